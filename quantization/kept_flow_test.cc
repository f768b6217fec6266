// Files that keep a checkpoint's codes: the model in them is the one that was
// there.

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/quantized/quantized_summary.h"
#include "models/registry.h"
#include "quantization/flow.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/coded_tensors.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using testing::CodedCheckpoint;
using testing::CodedCheckpointOptions;
using testing::CodedTensors;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Pair;
using testing::RandomValues;
using testing::StatusIs;

std::vector<float> Logits(const Checkpoint& checkpoint, Activations activations,
                          ThreadPool& pool) {
  DecoderOptions options;
  options.activations = activations;
  const auto decoder = Decoder::Load(checkpoint, options, pool);
  EXPECT_THAT(decoder, IsOk());
  if (!decoder.ok()) return {};
  testing::DecoderSession session(**decoder, DType::kF32, 32, pool);
  return session.Append(RandomValues(4).Tokens(12, 97), /*all_logits=*/true);
}

class KeptFlowTest : public ::testing::Test {
 protected:
  KeptFlowTest() {
    std::string name =
        ::testing::UnitTest::GetInstance()->current_test_info()->name();
    for (char& c : name) c = c == '/' ? '_' : c;
    folder_ = ::testing::TempDir() + "/kept_flow_test_" + name;
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    out_ = folder_ + "/model.nib";
  }

  static Checkpoint Floats(bool tied_head = false) {
    DecoderConfig config = testing::TinyDecoderConfig();
    config.hidden = 64;  // two groups
    config.head_dim = config.rope.rotary_dims = 16;
    config.tied_head = tied_head;
    config.qkv_bias = true;
    return testing::RandomCheckpoint(config, 3);
  }

  absl::StatusOr<QuantizationReport> Keep(const Checkpoint& checkpoint) {
    QuantizationOptions options;
    options.keep_codes = true;
    return QuantizeOpenCheckpoint(checkpoint, out_, options, pool_, nullptr);
  }

  // Writes the file and compares what a decoder makes of both.
  Checkpoint ExpectSameModel(const Checkpoint& checkpoint) {
    EXPECT_THAT(Keep(checkpoint), IsOk());
    absl::StatusOr<Checkpoint> kept = OpenCheckpoint(out_);
    EXPECT_THAT(kept, IsOk());
    if (!kept.ok()) return Checkpoint();
    EXPECT_THAT(kept->packed->VerifyAll(), IsOk());
    for (const Activations activations :
         {Activations::kF32, Activations::kInt8}) {
      EXPECT_EQ(Logits(*kept, activations, pool_),
                Logits(checkpoint, activations, pool_));
    }
    return *std::move(kept);
  }

  ThreadPool pool_{2};
  RandomValues random_{9};
  std::string folder_, out_;
};

class KeptFormTest
    : public KeptFlowTest,
      public ::testing::WithParamInterface<CodedCheckpointOptions> {};

INSTANTIATE_TEST_SUITE_P(
    Forms, KeptFormTest,
    ::testing::Values(
        CodedCheckpointOptions{{0, 0, 4, 32, CodeOffset::kSymmetric, {}},
                               false},
        CodedCheckpointOptions{
            {0, 0, 4, 32, CodeOffset::kZeros, {}}, true, true},
        CodedCheckpointOptions{
            {0, 0, 3, 0, CodeOffset::kZeros, {}}, false, true},
        CodedCheckpointOptions{
            {0, 0, 4, 32, CodeOffset::kMinimums, {}}, true, true},
        CodedCheckpointOptions{
            {0, 0, 8, 0, CodeOffset::kSymmetric, {}}, true, true},
        CodedCheckpointOptions{
            {0, 0, 8, 32, CodeOffset::kZeros, {}}, true, true}));

TEST_P(KeptFormTest, GivesTheLogitsOfTheCheckpointBitForBit) {
  const Checkpoint coded = CodedCheckpoint(Floats(), GetParam(), 5);
  const Checkpoint kept = ExpectSameModel(coded);
  ASSERT_NE(kept.packed, nullptr);
  const auto loaded = LoadWeights(coded, std::nullopt, nullptr, pool_);
  ASSERT_THAT(loaded, IsOk());
  const LinearWeights& down = loaded->layers[1].down;
  const auto stored = kept.packed->FindPacked("layers.1.down.weight");
  ASSERT_THAT(stored, IsOk());
  EXPECT_EQ(stored->layout, down.matrix.layout());
  EXPECT_EQ(kept.packed->Contains("layers.1.down.input_order"),
            !down.input_order.empty());
}

TEST_F(KeptFlowTest, SaysWhatWasKept) {
  Checkpoint coded = CodedCheckpoint(Floats(), {}, 5);
  auto summary = std::make_shared<QuantizedSummary>();
  summary->method = "gptq";
  coded.quantized = summary;
  // One matrix in a form that nothing packs, and one of another width.
  auto tensors = std::make_shared<CodedTensors>(coded.tensors);
  tensors->Add("odd", testing::RandomCodes(
                          {96, 64, 8, 32, CodeOffset::kZeros, {}}, random_));
  tensors->Add("wide",
               testing::RandomCodes({96, 64, 8, 32, CodeOffset::kSymmetric, {}},
                                    random_));
  coded.tensors = tensors;
  coded.names.layers[0].up.weight = {{"odd", 0, 96}};
  coded.names.layers[1].up.weight = {{"wide", 0, 96}};
  const auto report = Keep(coded);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->relative_error, 0);
  EXPECT_EQ(report->file_bytes,
            static_cast<int64_t>(std::filesystem::file_size(out_)));
  std::map<std::string, std::string> formats;
  for (const QuantizedTensor& tensor : report->tensors) {
    EXPECT_FALSE(tensor.relative_error.has_value()) << tensor.name;
    EXPECT_GT(tensor.bytes, 0) << tensor.name;
    EXPECT_GT(tensor.stored_bytes, 0) << tensor.name;
    formats[tensor.name] = tensor.format;
  }
  EXPECT_EQ(formats["embedding"], "f32");
  EXPECT_EQ(formats["layers.0.qkv.weight"], "int4");
  EXPECT_EQ(formats["layers.0.up.weight"], "f32");
  EXPECT_EQ(formats["layers.1.up.weight"], "int8");
  EXPECT_EQ(formats["head.weight"], "bf16");

  const auto file = PackedFile::Open(out_);
  ASSERT_THAT(file, IsOk());
  const QuantizationRecord& record = (*file)->manifest().record();
  EXPECT_EQ(record.method(), "gptq (kept)");
  EXPECT_EQ(record.bits(), 4);
  EXPECT_EQ(record.group_size(), 32);
  EXPECT_FALSE(record.symmetric());
  EXPECT_FALSE(record.has_keep_float());
  std::map<std::string, std::string> overrides;
  for (const QuantizationRecord::Override& other : record.overrides()) {
    overrides[other.tensor()] =
        absl::StrCat(other.format(), ": ", other.reason());
  }
  EXPECT_THAT(
      overrides,
      ElementsAre(Pair("head.weight",
                       "bf16: stored as floats, or as a type without codes"),
                  Pair("layers.0.up.weight",
                       "f32: no packed layout holds its codes together"),
                  Pair("layers.1.up.weight", "int8: stored so")));
}

TEST_F(KeptFlowTest, ProgressCountsWhatIsRead) {
  QuantizationOptions options;
  options.keep_codes = true;
  int64_t last = 0, in_all = 0;
  const auto report =
      QuantizeOpenCheckpoint(CodedCheckpoint(Floats(), {}, 5), out_, options,
                             pool_, [&](int64_t done, int64_t total) {
                               EXPECT_GE(done, last);
                               last = done;
                               in_all = total;
                             });
  ASSERT_THAT(report, IsOk());
  EXPECT_GT(in_all, 0);
  EXPECT_GE(last, in_all * 9 / 10);
}

TEST_F(KeptFlowTest, CanBeInterrupted) {
  QuantizationOptions options;
  options.keep_codes = true;
  const std::atomic<bool> cancelled(true);
  options.cancelled = &cancelled;
  EXPECT_THAT(QuantizeOpenCheckpoint(CodedCheckpoint(Floats(), {}, 5), out_,
                                     options, pool_, nullptr),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("")));
  EXPECT_FALSE(std::filesystem::exists(out_));
}

TEST_F(KeptFlowTest, ABadScaleIsNamedAndNothingIsWritten) {
  Checkpoint coded = Floats();
  auto tensors = std::make_shared<CodedTensors>(coded.tensors);
  auto bad =
      testing::RandomCodes({96, 64, 4, 32, CodeOffset::kZeros, {}}, random_);
  bad->scales[7] = std::numeric_limits<float>::infinity();
  tensors->Add("layer1.up.weight", std::move(bad));
  coded.tensors = tensors;
  EXPECT_THAT(Keep(coded),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("coded: tensor layer1.up.weight"),
                             HasSubstr("finite"))));
  EXPECT_FALSE(std::filesystem::exists(out_));
}

TEST_F(KeptFlowTest, ATiedHeadThatIsExactInBf16StaysTied) {
  Checkpoint floats = Floats(/*tied_head=*/true);
  auto rounded = std::make_shared<testing::MemoryTensors>();
  for (const std::string& name : floats.tensors->names()) {
    const TensorView view = *floats.tensors->Find(name);
    std::vector<float> values(view.As<float>().begin(), view.As<float>().end());
    if (name == "embedding") {
      for (float& value : values) value = ToFloat(ToBF16(value));
    }
    rounded->Add(name, view.shape, std::move(values));
  }
  floats.tensors = rounded;
  const Checkpoint kept = ExpectSameModel(CodedCheckpoint(floats, {}, 5));
  EXPECT_TRUE(kept.config.tied_head);
}

TEST_F(KeptFlowTest, ATiedHeadOfCodesStaysTied) {
  Checkpoint coded = CodedCheckpoint(Floats(/*tied_head=*/true), {}, 5);
  auto tensors = std::make_shared<CodedTensors>(coded.tensors);
  tensors->Add("embedding",
               testing::RandomCodes({97, 64, 8, 32, CodeOffset::kSymmetric, {}},
                                    random_));
  coded.tensors = tensors;
  const Checkpoint kept = ExpectSameModel(coded);
  EXPECT_TRUE(kept.config.tied_head);
}

TEST_F(KeptFlowTest, AnEmbeddingOfCodesBecomesTheirValues) {
  Checkpoint coded = CodedCheckpoint(Floats(), {}, 5);
  auto tensors = std::make_shared<CodedTensors>(coded.tensors);
  tensors->Add(
      "embedding",
      testing::RandomCodes({97, 64, 4, 32, CodeOffset::kZeros, {}}, random_));
  coded.tensors = tensors;
  ExpectSameModel(coded);
}

TEST_F(KeptFlowTest, ATiedHeadOfOddFloatsIsStoredBesideTheEmbedding) {
  const Checkpoint coded = CodedCheckpoint(Floats(/*tied_head=*/true), {}, 5);
  const Checkpoint kept = ExpectSameModel(coded);
  ASSERT_NE(kept.packed, nullptr);
  EXPECT_FALSE(kept.config.tied_head);
  EXPECT_TRUE(kept.packed->Contains("embedding"));
}

TEST_F(KeptFlowTest, FloatsCannotBeKept) {
  const auto report = Keep(Floats());
  EXPECT_THAT(report, StatusIs(absl::StatusCode::kInvalidArgument,
                               AllOf(HasSubstr("memory: holds floats"),
                                     HasSubstr("--method=rtn"))));
  EXPECT_FALSE(std::filesystem::exists(out_));
}

}  // namespace
}  // namespace nibble
