// Reading a block and its embeddings, and scaling its channels.

#include "quantization/block/load_block.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "quantization/block/block.h"
#include "quantization/block/block_testing.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/channel_scaling.h"
#include "quantization/block/hidden_states.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/view.h"
#include "testing/coded_tensors.h"
#include "testing/decoder_graphs.h"
#include "testing/gguf_builder.h"
#include "testing/matchers.h"
#include "testing/quantized_model.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"
#include "testing/tiny_families.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::nibble::testing::CodedCheckpoint;
using ::nibble::testing::Converted;
using ::nibble::testing::DecoderGraph;
using ::nibble::testing::DecoderGraphs;
using ::nibble::testing::Flat;
using ::nibble::testing::GgufBuilder;
using ::nibble::testing::IsOk;
using ::nibble::testing::RandomCheckpoint;
using ::nibble::testing::RandomRows;
using ::nibble::testing::RandomValues;
using ::nibble::testing::ReferenceLogits;
using ::nibble::testing::RelativeError;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TinyDecoderConfig;
using ::nibble::testing::TinyModelOptions;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Windows = std::vector<std::vector<int32_t>>;

TEST(HiddenStatesTest, ValuesOfBF16ComeBack) {
  ThreadPool pool(2);
  HiddenStates states(5, 3, 16);
  EXPECT_EQ(states.windows(), 5);
  EXPECT_EQ(states.length(), 3);
  EXPECT_EQ(states.hidden(), 16);
  Array<float> x = RandomRows<float>(15, 16, 1);
  for (float& v : x) v = ToFloat(ToBF16(v));
  const MatrixView<float> all(x.data(), 15, 16);
  states.Store(0, all.Rows(0, 6), pool);
  states.Store(2, all.Rows(6, 9), pool);
  Array<float> y(x.size());
  const MatrixView<float> back(y.data(), 15, 16);
  states.Load(0, back.Rows(0, 12), pool);
  states.Load(4, back.Rows(12, 3), pool);
  EXPECT_EQ(y.span(), x.span());
}

TEST(HiddenStatesTest, RoundsToNearestEven) {
  ThreadPool pool(1);
  HiddenStates states(1, 1, 2);
  // Halfway between 1 and 1 + 2^-7, and between that and 1 + 2^-6.
  float x[] = {1 + 0x1p-8f, 1 + 0x3p-8f};
  states.Store(0, MatrixView<const float>(x, 1, 2), pool);
  states.Load(0, MatrixView<float>(x, 1, 2), pool);
  EXPECT_EQ(x[0], 1.0f);
  EXPECT_EQ(x[1], 1 + 0x1p-6f);
}

// Dtypes change what a model's values are, never how they are read.
TEST(LoadBlockTest, ReadsEveryDtype) {
  ThreadPool pool(2);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    TinyModelOptions options;
    options.dtype = dtype;
    const std::string dir = ::testing::TempDir() + "/load_block";
    ASSERT_THAT(WriteTinyLlama(dir, options), IsOk());
    const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(dir);
    ASSERT_THAT(checkpoint, IsOk());
    const auto weights = LoadBlock(*checkpoint, 1, pool);
    ASSERT_THAT(weights, IsOk());
    const BlockLinear<float>& down = (*weights)[LinearId::kDown];
    EXPECT_EQ(down.outputs, checkpoint->config.hidden);
    EXPECT_EQ(down.inputs, checkpoint->config.ffn);
    EXPECT_TRUE(down.bias.empty());
    const absl::StatusOr<TensorView> stored =
        checkpoint->tensors->Find("model.layers.1.mlp.down_proj.weight");
    ASSERT_THAT(stored, IsOk());
    ASSERT_EQ(stored->dtype, dtype);
    std::vector<float> want(down.weight.size());
    ASSERT_THAT(ConvertToF32(*stored, absl::MakeSpan(want)), IsOk());
    EXPECT_EQ(down.weight.span(), absl::MakeConstSpan(want));
  }
}

// Of whole models, see the chain of blocks in block_test.cc; here codes are
// compared with the numbers they stand for.
TEST(LoadBlockTest, ReadsCodesAsTheirValues) {
  ThreadPool pool(2);
  DecoderConfig config = TinyDecoderConfig();
  config.ffn = 64;
  const Checkpoint coded =
      CodedCheckpoint(RandomCheckpoint(config, 3), {}, /*seed=*/4);
  const auto weights = LoadBlock(coded, 0, pool);
  ASSERT_THAT(weights, IsOk());
  const BlockLinear<float>& up = (*weights)[LinearId::kUp];
  int64_t row = 0;
  for (const RowRange& range : coded.names.layers[0].up.weight) {
    const auto* codes = dynamic_cast<const ::nibble::testing::MemoryCodes*>(
        coded.tensors->FindCoded(range.tensor));
    ASSERT_NE(codes, nullptr);
    for (int64_t r = 0; r < range.rows; ++r, ++row) {
      for (int64_t k = 0; k < up.inputs; ++k) {
        EXPECT_EQ(up.view().row(row)[k], codes->Value(range.first_row + r, k));
      }
    }
  }
  EXPECT_EQ(row, up.outputs);
}

TEST(LoadBlockTest, RefusesNotFiniteNumbersByTheirTensor) {
  ThreadPool pool(2);
  const Checkpoint good = RandomCheckpoint(TinyDecoderConfig(), 3);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    for (const std::string& name : good.tensors->names()) {
      const bool of_layer = name.find("1") != std::string::npos;
      if (!of_layer) continue;
      auto tensors = std::make_shared<::nibble::testing::MemoryTensors>();
      for (const std::string& other : good.tensors->names()) {
        const TensorView view = *good.tensors->Find(other);
        const absl::Span<const float> values = view.As<float>();
        std::vector<float> copy(values.begin(), values.end());
        if (other == name) copy.back() = bad;
        tensors->Add(other, view.shape, std::move(copy));
      }
      Checkpoint broken = good;
      broken.tensors = tensors;
      EXPECT_THAT(LoadBlock(broken, 1, pool),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           AllOf(HasSubstr("memory"), HasSubstr(name),
                                 HasSubstr("not a finite number"))));
      EXPECT_THAT(LoadBlock(broken, 0, pool), IsOk());
    }
  }
}

TEST(LoadBlockTest, RefusesAPackedModel) {
  ThreadPool pool(2);
  const std::string dir = ::testing::TempDir() + "/load_packed";
  ASSERT_THAT(WriteTinyLlama(dir, TinyModelOptions()), IsOk());
  const std::string path = ::testing::TempDir() + "/load_packed.nib";
  ::nibble::testing::PackModel(dir, path);
  const absl::StatusOr<Checkpoint> packed = OpenCheckpoint(path);
  ASSERT_THAT(packed, IsOk());
  EXPECT_THAT(LoadBlock(*packed, 0, pool),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(path), HasSubstr("packed already"))));
  EXPECT_THAT(EmbedWindows(*packed, Windows{{1, 2}}, pool),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(path), HasSubstr("packed already"))));
}

TEST(EmbedWindowsTest, TakesRowsOfTheEmbedding) {
  ThreadPool pool(2);
  const Checkpoint checkpoint = RandomCheckpoint(TinyDecoderConfig(), 3);
  const Windows windows = {{0, 96, 5}, {7, 7, 1}};
  const absl::StatusOr<HiddenStates> states =
      EmbedWindows(checkpoint, windows, pool);
  ASSERT_THAT(states, IsOk());
  const int64_t hidden = checkpoint.config.hidden;
  ASSERT_EQ(states->windows(), 2);
  ASSERT_EQ(states->length(), 3);
  ASSERT_EQ(states->hidden(), hidden);
  Array<float> x(static_cast<size_t>(6 * hidden));
  const MatrixView<float> view(x.data(), 6, hidden);
  states->Load(0, view, pool);
  const absl::StatusOr<TensorView> embedding =
      checkpoint.tensors->Find(checkpoint.names.embedding);
  ASSERT_THAT(embedding, IsOk());
  for (int64_t t = 0; t < 6; ++t) {
    const int32_t token =
        windows[static_cast<size_t>(t / 3)][static_cast<size_t>(t % 3)];
    for (int64_t i = 0; i < hidden; ++i) {
      EXPECT_EQ(view.row(t)[i],
                ToFloat(ToBF16(embedding->As<float>()[static_cast<size_t>(
                    token * hidden + i)])));
    }
  }
}

TEST(EmbedWindowsTest, RefusesWindowsThatDoNotFit) {
  ThreadPool pool(1);
  const Checkpoint checkpoint = RandomCheckpoint(TinyDecoderConfig(), 3);
  const auto embed = [&](const Windows& windows) {
    return EmbedWindows(checkpoint, windows, pool);
  };
  EXPECT_THAT(embed({}), StatusIs(absl::StatusCode::kInvalidArgument,
                                  HasSubstr("no windows")));
  EXPECT_THAT(embed({{}}), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("no windows")));
  EXPECT_THAT(embed({{1, 2}, {1}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("window 1 has 1 tokens")));
  for (const int32_t token : {-1, 97}) {
    EXPECT_THAT(embed({{1, 2}, {1, token}}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("memory"), HasSubstr("window 1"),
                               HasSubstr("vocabulary of 97"))));
  }
}

class ChannelScalingTest : public ::testing::TestWithParam<DecoderGraph> {};

// The scales are rounded, and so are quotients and products with them: some
// 2^-24 of each weight.
TEST_P(ChannelScalingTest, TheBlockComputesTheSame) {
  ThreadPool pool(2);
  const DecoderConfig& config = GetParam().config;
  const BlockWeights<double> before =
      Converted<double>(::nibble::testing::RandomBlock(config, 1, pool));
  BlockWeights<float> scaled = ::nibble::testing::RandomBlock(config, 1, pool);
  ScaleChannels(config, 1, {}, scaled);
  const BlockWeights<double> after = Converted<double>(scaled);
  const Array<double> x = RandomRows<double>(8, config.hidden, 5);
  const MatrixView<const double> view(x.data(), 8, config.hidden);
  Block<double> block(config, 1, /*length=*/8, GemmPrecision::kF32);
  BlockActivations<double> want, got;
  block.SetWeights(before, /*gradients=*/false, pool);
  block.Forward(view, want, pool);
  block.SetWeights(after, /*gradients=*/false, pool);
  block.Forward(view, got, pool);
  EXPECT_LT(RelativeError(Flat(got.output()), Flat(want.output())), 0x1p-22);
  // And it is another block: one in e^-0.5 to e^0.5 is a common scale.
  EXPECT_GT(RelativeError(Flat(got.input(LinearId::kQkv)),
                          Flat(want.input(LinearId::kQkv))),
            0.2);
}

INSTANTIATE_TEST_SUITE_P(Graphs, ChannelScalingTest,
                         ::testing::ValuesIn(DecoderGraphs()),
                         ::nibble::testing::GraphName);

// A written model is the old one in other numbers: every family, whose tensors
// are put together in different ways.
TEST(ChannelScalingTest, WrittenFamiliesComputeTheSame) {
  ThreadPool pool(2);
  const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6};
  for (const auto& family : ::nibble::testing::TinyFamilies()) {
    const std::string dir = ::testing::TempDir() + "/plain_" + family.name;
    const std::string scaled_dir = dir + "_scaled";
    ASSERT_THAT(WriteTinyFamily(dir, family, /*seed=*/3), IsOk());
    const absl::StatusOr<Checkpoint> plain = OpenCheckpoint(dir);
    ASSERT_THAT(plain, IsOk());
    ASSERT_THAT(WriteScaled(*plain, {}, scaled_dir, pool), IsOk());
    const absl::StatusOr<Checkpoint> scaled = OpenCheckpoint(scaled_dir);
    ASSERT_THAT(scaled, IsOk());
    const auto want = ReferenceLogits(*plain, tokens);
    const auto got = ReferenceLogits(*scaled, tokens);
    for (size_t t = 0; t < tokens.size(); ++t) {
      EXPECT_LT(RelativeError(absl::MakeConstSpan(got[t]),
                              absl::MakeConstSpan(want[t])),
                0x1p-20)
          << family.name << ", token " << t;
    }
    EXPECT_NE((*LoadBlock(*plain, 0, pool))[LinearId::kQkv].weight.span(),
              (*LoadBlock(*scaled, 0, pool))[LinearId::kQkv].weight.span());
  }
}

// Random blocks of Q8_0: a scale of 2^-8 in f16, then 32 codes.
std::vector<std::byte> RandomQ8(int64_t weights, RandomValues& random) {
  std::vector<std::byte> bytes;
  for (int64_t block = 0; block < weights / 32; ++block) {
    bytes.push_back(std::byte{0x00});
    bytes.push_back(std::byte{0x1C});
    for (int i = 0; i < 32; ++i) {
      bytes.push_back(static_cast<std::byte>(random.Below(256)));
    }
  }
  return bytes;
}

// A Llama of one layer: hidden 32, 2 heads of 16, ffn 64, vocabulary 40.
void WriteQ8Gguf(const std::string& path) {
  GgufBuilder gguf;
  gguf.String("general.architecture", "llama")
      .Uint("general.file_type", 7)
      .Uint("llama.embedding_length", 32)
      .Uint("llama.block_count", 1)
      .Uint("llama.feed_forward_length", 64)
      .Uint("llama.attention.head_count", 2)
      .Uint("llama.attention.head_count_kv", 2)
      .Uint("llama.context_length", 64)
      .Float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  RandomValues random(1);
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    gguf.Tensor(name, {rows, cols}, GgufBuilder::kTypeQ8_0,
                RandomQ8(rows * cols, random));
  };
  const auto norm = [&](const std::string& name) {
    gguf.F32(name, {32}, random.Uniform(32, 0.5f, 1.5f));
  };
  matrix("token_embd.weight", 40, 32);
  norm("output_norm.weight");
  norm("blk.0.attn_norm.weight");
  norm("blk.0.ffn_norm.weight");
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
    matrix(absl::StrCat("blk.0.", name, ".weight"), 32, 32);
  }
  matrix("blk.0.ffn_gate.weight", 64, 32);
  matrix("blk.0.ffn_up.weight", 64, 32);
  matrix("blk.0.ffn_down.weight", 32, 64);
  gguf.Write(path);
}

// Blocks are read as their values, and written back as floats that compute the
// same.
TEST(ChannelScalingTest, WrittenGgufComputesTheSame) {
  ThreadPool pool(2);
  const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6};
  const std::string path = ::testing::TempDir() + "/plain_q8.gguf";
  WriteQ8Gguf(path);
  const absl::StatusOr<Checkpoint> plain = OpenCheckpoint(path);
  ASSERT_THAT(plain, IsOk());
  const auto want = ReferenceLogits(*plain, tokens);
  ASSERT_THAT(WriteScaled(*plain, {}, path + ".f32", pool), IsOk());
  const absl::StatusOr<Checkpoint> scaled = OpenCheckpoint(path + ".f32");
  ASSERT_THAT(scaled, IsOk());
  const auto got = ReferenceLogits(*scaled, tokens);
  for (size_t t = 0; t < tokens.size(); ++t) {
    EXPECT_LT(RelativeError(absl::MakeConstSpan(got[t]),
                            absl::MakeConstSpan(want[t])),
              0x1p-20);
  }
  // Unscaled in bf16: a code of 8 bits times a power of two is exact there.
  ChannelScaling none;
  none.deviation = 0;
  none.dtype = DType::kBF16;
  ASSERT_THAT(WriteScaled(*plain, none, path + ".bf16", pool), IsOk());
  const absl::StatusOr<Checkpoint> same = OpenCheckpoint(path + ".bf16");
  ASSERT_THAT(same, IsOk());
  EXPECT_EQ(ReferenceLogits(*same, tokens), want);
  EXPECT_EQ(*same->gguf->GetUint("general.file_type"), 32u);
}

}  // namespace
}  // namespace nibble
