// Models in .nib files: what opens, what is mapped, what is refused.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/manifest_config.h"
#include "models/registry.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/quantized_model.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::QuantizedModel;
using testing::RandomCheckpoint;
using testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

std::string Path(const std::string& name) {
  return ::testing::TempDir() + "/" + name;
}

std::vector<float> Logits(const Decoder& decoder, ThreadPool& pool) {
  testing::DecoderSession session(decoder, DType::kF32, 32, pool);
  return session.Append(
      testing::RandomValues(4).Tokens(12, decoder.config().vocabulary),
      /*all_logits=*/true);
}

class PackedCheckpointTest : public ::testing::TestWithParam<bool> {
 protected:
  // A model with every kind of tensor, in a file.
  QuantizedModel Write(const std::string& path) {
    DecoderConfig config = testing::TinyDecoderConfig();
    config.norm = NormKind::kLayer;
    config.qkv_bias = config.output_bias = config.mlp_bias = true;
    config.tied_head = GetParam();
    config.head_bias = !GetParam();
    QuantizedModel model = testing::RoundCheckpoint(
        RandomCheckpoint(config, 3), {/*bits=*/4, /*group_size=*/32}, pool_);
    testing::WritePackedModel(path, model, {});
    return model;
  }

  ThreadPool pool_{2};
};

INSTANTIATE_TEST_SUITE_P(Heads, PackedCheckpointTest, ::testing::Bool(),
                         [](const ::testing::TestParamInfo<bool>& info) {
                           return info.param ? "Tied" : "Untied";
                         });

TEST_P(PackedCheckpointTest, RunsFromTheFileWithTheBitsOfMemory) {
  const std::string path = Path("model.nib");
  QuantizedModel model = Write(path);
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(path);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ(checkpoint->format, "nib");
  EXPECT_EQ(checkpoint->path, path);
  const auto mapped = Decoder::Load(*checkpoint, {}, pool_);
  ASSERT_THAT(mapped, IsOk());
  const auto owned = Decoder::Create(std::move(model.weights), {});
  ASSERT_THAT(owned, IsOk());
  EXPECT_EQ(Logits(**mapped, pool_), Logits(**owned, pool_));
  EXPECT_EQ((*mapped)->weight_bytes(), (*owned)->weight_bytes());
}

TEST_P(PackedCheckpointTest, MatricesAreViewsOfTheFile) {
  const std::string path = Path("views.nib");
  Write(path);
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(path);
  ASSERT_THAT(checkpoint, IsOk());
  const auto decoder = Decoder::Load(*checkpoint, {}, pool_);
  ASSERT_THAT(decoder, IsOk());
  const DecoderWeights& weights = (*decoder)->weights();
  const auto expect_in_place = [&](const std::string& name,
                                   const PackedMatrix& matrix) {
    const auto stored = checkpoint->packed->FindPacked(name);
    ASSERT_THAT(stored, IsOk());
    EXPECT_EQ(matrix.data(), stored->data);
  };
  expect_in_place("layers.1.up.weight", weights.layers[1].up.matrix);
  expect_in_place("layers.0.qkv.weight", weights.layers[0].qkv.matrix);
  expect_in_place("head.weight", weights.head.matrix);
  EXPECT_EQ(weights.embedding.has_value(), !GetParam());
}

TEST_P(PackedCheckpointTest, TheDecoderKeepsTheFileMapped) {
  const std::string path = Path("kept.nib");
  Write(path);
  std::unique_ptr<Decoder> decoder;
  {
    const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(path);
    ASSERT_THAT(checkpoint, IsOk());
    auto loaded = Decoder::Load(*checkpoint, {}, pool_);
    ASSERT_THAT(loaded, IsOk());
    decoder = *std::move(loaded);
  }
  const std::vector<float> before = Logits(*decoder, pool_);
  ASSERT_EQ(std::remove(path.c_str()), 0);
  EXPECT_EQ(Logits(*decoder, pool_), before);
}

TEST_P(PackedCheckpointTest, IsRecognisedByItsFirstBytes) {
  const std::string path = Path("model.weights");
  Write(path);
  EXPECT_THAT(OpenCheckpoint(path), IsOk());
  const std::string text = Path("text.nib");
  std::ofstream(text) << std::string(4096, 'x');
  EXPECT_THAT(OpenCheckpoint(text), StatusIs(kInvalid, HasSubstr(text)));
}

// Files of zeros, with one thing wrong.
struct FileOfZeros {
  DecoderConfig config = testing::TinyDecoderConfig();
  std::vector<PackedTensorPlan> plan;
};

PackedTensorPlan Matrix(const std::string& name, int64_t outputs,
                        int64_t inputs) {
  return {name,
          *PackedLayout::Create(WeightFormat::kInt4, outputs, inputs, 32)};
}

PackedTensorPlan Plain(const std::string& name, Shape shape) {
  return {name, PlainTensor{DType::kF32, shape}};
}

FileOfZeros SoundFile() {
  FileOfZeros file;
  const DecoderConfig& c = file.config;
  file.plan.push_back(Plain("embedding", {c.vocabulary, c.hidden}));
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    file.plan.push_back(Plain(layer + "attention_norm.weight", {c.hidden}));
    file.plan.push_back(Plain(layer + "mlp_norm.weight", {c.hidden}));
    file.plan.push_back(Matrix(layer + "qkv.weight", c.qkv_dim(), c.hidden));
    file.plan.push_back(
        Matrix(layer + "attention.weight", c.hidden, c.q_dim()));
    file.plan.push_back(Matrix(layer + "up.weight", 2 * c.ffn, c.hidden));
    file.plan.push_back(Matrix(layer + "down.weight", c.hidden, c.ffn));
  }
  file.plan.push_back(Plain("final_norm.weight", {c.hidden}));
  file.plan.push_back(Matrix("head.weight", c.vocabulary, c.hidden));
  return file;
}

// What opening the file says after `change`.
absl::Status OpenChanged(const std::function<void(FileOfZeros&)>& change) {
  FileOfZeros file = SoundFile();
  change(file);
  const std::string path = Path("changed.nib");
  PackedManifest manifest;
  ToManifest(file.config, manifest.mutable_config());
  auto writer = PackedFileWriter::Create(path, manifest, file.plan, {});
  EXPECT_THAT(writer, IsOk());
  for (const PackedTensorPlan& tensor : file.plan) {
    const std::vector<std::byte> zeros(
        static_cast<size_t>(*PackedKindBytes(tensor.what)));
    EXPECT_THAT(writer->Append(zeros), IsOk());
  }
  EXPECT_THAT(writer->Commit(), IsOk());
  return OpenCheckpoint(path).status();
}

void Replace(FileOfZeros& file, PackedTensorPlan tensor) {
  for (PackedTensorPlan& planned : file.plan) {
    if (planned.name == tensor.name) planned = tensor;
  }
}

TEST(PackedCheckpointErrors, ASoundFileOfZerosOpens) {
  EXPECT_THAT(OpenChanged([](FileOfZeros&) {}), IsOk());
}

TEST(PackedCheckpointErrors, NameTheTensorThatIsMissing) {
  for (const PackedTensorPlan& missing : SoundFile().plan) {
    EXPECT_THAT(
        OpenChanged([&](FileOfZeros& file) {
          for (size_t i = 0; i < file.plan.size(); ++i) {
            if (file.plan[i].name != missing.name) continue;
            file.plan.erase(file.plan.begin() + static_cast<std::ptrdiff_t>(i));
            return;
          }
        }),
        StatusIs(absl::StatusCode::kNotFound,
                 AllOf(HasSubstr("changed.nib"), HasSubstr(missing.name))));
  }
}

TEST(PackedCheckpointErrors, NameTheTensorOfAnotherShape) {
  EXPECT_THAT(
      OpenChanged([](FileOfZeros& file) {
        Replace(file, Matrix("layers.1.up.weight", 95, 32));
      }),
      StatusIs(kInvalid, AllOf(HasSubstr("layers.1.up.weight"),
                               HasSubstr("[95, 32]"), HasSubstr("[96, 32]"))));
  EXPECT_THAT(OpenChanged([](FileOfZeros& file) {
                Replace(file, Matrix("layers.0.down.weight", 32, 64));
              }),
              StatusIs(kInvalid, HasSubstr("layers.0.down.weight")));
  EXPECT_THAT(OpenChanged([](FileOfZeros& file) {
                Replace(file, Plain("final_norm.weight", {31}));
              }),
              StatusIs(kInvalid, HasSubstr("final_norm.weight")));
  EXPECT_THAT(OpenChanged([](FileOfZeros& file) {
                Replace(file, Plain("embedding", {96, 32}));
              }),
              StatusIs(kInvalid, HasSubstr("embedding")));
}

TEST(PackedCheckpointErrors, NameTheTensorOfAnotherKind) {
  EXPECT_THAT(OpenChanged([](FileOfZeros& file) {
                Replace(file, Plain("head.weight", {97, 32}));
              }),
              StatusIs(kInvalid, HasSubstr("head.weight")));
  EXPECT_THAT(
      OpenChanged([](FileOfZeros& file) {
        Replace(file, Matrix("embedding", 97, 32));
      }),
      StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("embedding")));
}

TEST(PackedCheckpointErrors, NameTheTensorThatIsTooMany) {
  EXPECT_THAT(OpenChanged([](FileOfZeros& file) {
                file.plan.push_back(Plain("layers.0.qkv.bias", {64}));
              }),
              StatusIs(kInvalid, HasSubstr("layers.0.qkv.bias")));
  EXPECT_THAT(OpenChanged([](FileOfZeros& file) {
                file.plan.push_back(Matrix("layers.2.up.weight", 96, 32));
              }),
              StatusIs(kInvalid, HasSubstr("layers.2.up.weight")));
  EXPECT_THAT(
      OpenChanged([](FileOfZeros& file) { file.config.tied_head = true; }),
      StatusIs(kInvalid, HasSubstr("embedding")));
}

TEST(PackedCheckpointErrors, NameTheConfigurationThatDoesNotFit) {
  EXPECT_THAT(OpenChanged([](FileOfZeros& file) { file.config.layers = 0; }),
              StatusIs(kInvalid, HasSubstr("changed.nib")));
  EXPECT_THAT(OpenChanged([](FileOfZeros& file) {
                file.config.layers = 3;
                file.config.windows.push_back(0);
              }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("layers.2.")));
}

PackedTensorPlan Order(const std::string& name, DType dtype, int64_t size) {
  return {name, PlainTensor{dtype, Shape({size})}};
}

TEST(PackedCheckpointErrors, NameTheInputOrderOfAnotherTypeOrSize) {
  const auto with = [](const PackedTensorPlan& tensor) {
    return OpenChanged([&](FileOfZeros& file) { file.plan.push_back(tensor); });
  };
  const std::string name = "layers.1.down.input_order";
  EXPECT_THAT(with(Order(name, DType::kI32, 48)), IsOk());
  for (const PackedTensorPlan& bad :
       {Order(name, DType::kF32, 48), Order(name, DType::kI64, 48),
        Order(name, DType::kI32, 32), Matrix(name, 48, 32)}) {
    EXPECT_FALSE(with(bad).ok());
    EXPECT_THAT(std::string(with(bad).message()),
                AllOf(HasSubstr("changed.nib"), HasSubstr(name)));
  }
  EXPECT_THAT(with(Order("layers.2.down.input_order", DType::kI32, 48)),
              StatusIs(kInvalid, HasSubstr("layers.2.down.input_order")));
}

TEST(PackedCheckpointErrors, RefuseAnInputOrderThatIsNoPermutation) {
  // All zeros.
  EXPECT_THAT(
      OpenChanged([](FileOfZeros& file) {
        file.plan.push_back(Order("layers.0.qkv.input_order", DType::kI32, 32));
      }),
      IsOk());
  const absl::StatusOr<Checkpoint> opened = OpenCheckpoint(Path("changed.nib"));
  ASSERT_THAT(opened, IsOk());
  ThreadPool pool(1);
  EXPECT_THAT(
      Decoder::Load(*opened, {}, pool),
      StatusIs(kInvalid, AllOf(HasSubstr("changed.nib"),
                               HasSubstr("layers.0.qkv.input_order"),
                               HasSubstr("no permutation of the inputs"))));
}

TEST(PackedCheckpointErrors, RefuseNormsThatAreNotFinite) {
  ThreadPool pool(1);
  DecoderConfig config = testing::TinyDecoderConfig();
  Checkpoint checkpoint = RandomCheckpoint(config, 3);
  QuantizedModel model = testing::RoundCheckpoint(checkpoint, {4, 32}, pool);
  auto tensors = std::make_shared<testing::MemoryTensors>();
  for (const std::string& name : model.dequantized.tensors->names()) {
    const TensorView view = *model.dequantized.tensors->Find(name);
    std::vector<float> values(view.As<float>().begin(), view.As<float>().end());
    if (name == "layers.1.mlp_norm.weight") values[7] = NAN;
    tensors->Add(name, view.shape, std::move(values));
  }
  model.dequantized.tensors = tensors;
  const std::string path = Path("nan.nib");
  testing::WritePackedModel(path, model, {});
  const absl::StatusOr<Checkpoint> opened = OpenCheckpoint(path);
  ASSERT_THAT(opened, IsOk());
  EXPECT_THAT(Decoder::Load(*opened, {}, pool),
              StatusIs(kInvalid, AllOf(HasSubstr("nan.nib"),
                                       HasSubstr("layers.1.mlp_norm.weight"),
                                       HasSubstr("finite"))));
}

}  // namespace
}  // namespace nibble
