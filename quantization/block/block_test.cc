// The forward pass: a chain of blocks is the decoder.

#include "quantization/block/block.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "kernels/elementwise/norm.h"
#include "kernels/gemm/gemm.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/registry.h"
#include "quantization/block/block_testing.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/load_block.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/view.h"
#include "testing/decoder_graphs.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"
#include "testing/tiny_families.h"

namespace nibble {
namespace {

using ::nibble::testing::Converted;
using ::nibble::testing::DecoderGraph;
using ::nibble::testing::DecoderGraphs;
using ::nibble::testing::DecoderSession;
using ::nibble::testing::Flat;
using ::nibble::testing::IsOk;
using ::nibble::testing::LoadF32Decoder;
using ::nibble::testing::RandomBlock;
using ::nibble::testing::RandomCheckpoint;
using ::nibble::testing::RandomRows;
using ::nibble::testing::RandomValues;
using ::nibble::testing::ReferenceLogits;
using ::nibble::testing::RelativeError;
using ::nibble::testing::TinyFamilies;
using ::nibble::testing::TinyFamily;

constexpr int64_t kLength = 24;  // longer than windows and trained lengths

std::vector<std::vector<int32_t>> RandomWindows(const DecoderConfig& config,
                                                size_t count) {
  RandomValues random(11);
  std::vector<std::vector<int32_t>> windows;
  for (size_t i = 0; i < count; ++i) {
    windows.push_back(random.Tokens(kLength, config.vocabulary));
  }
  return windows;
}

// What the last block gives for the windows' embeddings, not rounded to bf16.
template <class T>
Array<T> ChainOutput(const Checkpoint& checkpoint,
                     absl::Span<const std::vector<int32_t>> windows,
                     ThreadPool& pool) {
  const DecoderConfig& config = checkpoint.config;
  const absl::StatusOr<TensorView> embedding =
      checkpoint.tensors->Find(checkpoint.names.embedding);
  EXPECT_THAT(embedding, IsOk());
  const size_t width = static_cast<size_t>(config.hidden);
  Array<float> rows(windows.size() * static_cast<size_t>(kLength) * width);
  size_t row = 0;
  for (const std::vector<int32_t>& window : windows) {
    for (const int32_t token : window) {
      EXPECT_THAT(ConvertRowToF32(*embedding, token,
                                  rows.span().subspan(row++ * width, width)),
                  IsOk());
    }
  }
  Array<T> x = Converted<T>(rows);
  const MatrixView<const T> view(x.data(), static_cast<int64_t>(row),
                                 config.hidden);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const auto weights = LoadBlock(checkpoint, layer, pool);
    EXPECT_THAT(weights, IsOk());
    const BlockWeights<T> own = Converted<T>(*weights);
    Block<T> block(config, layer, kLength, GemmPrecision::kF32);
    block.SetWeights(own, /*gradients=*/false, pool);
    BlockActivations<T> acts;
    block.Forward(view, acts, pool);
    std::memcpy(x.data(), acts.output().data, x.size() * sizeof(T));
  }
  return x;
}

// The decoder's logits of hidden states behind the last block.
std::vector<float> LogitsOf(const Decoder& decoder, Array<float> x,
                            ThreadPool& pool) {
  const DecoderConfig& config = decoder.config();
  const int64_t rows = static_cast<int64_t>(x.size()) / config.hidden;
  const MatrixView<float> view(x.data(), rows, config.hidden);
  const DecoderWeights& weights = decoder.weights();
  if (config.norm == NormKind::kRms) {
    RmsNormRows(view, weights.final_norm.weight.span(), config.norm_eps, view,
                pool);
  } else {
    LayerNormRows(view, weights.final_norm.weight.span(),
                  weights.final_norm.bias.span(), config.norm_eps, view, pool);
  }
  std::vector<float> logits(static_cast<size_t>(rows * config.vocabulary));
  MatMulOptions options;
  if (!weights.head.bias.empty()) options.bias = weights.head.bias.data();
  MatMul(view, weights.head.matrix, options,
         MatrixView<float>(logits.data(), rows, config.vocabulary), pool);
  return logits;
}

void ExpectChainIsDecoder(const Checkpoint& checkpoint) {
  ThreadPool pool(2);
  const std::unique_ptr<Decoder> decoder = LoadF32Decoder(checkpoint, pool);
  const auto windows = RandomWindows(checkpoint.config, 3);
  const std::vector<float> got =
      LogitsOf(*decoder, ChainOutput<float>(checkpoint, windows, pool), pool);
  const size_t size = got.size() / windows.size();
  for (size_t i = 0; i < windows.size(); ++i) {
    DecoderSession session(*decoder, DType::kF32, kLength, pool);
    // The same operations in the same order: the same bits.
    EXPECT_EQ(session.Append(windows[i], /*all_logits=*/true),
              std::vector<float>(got.begin() + i * size,
                                 got.begin() + (i + 1) * size))
        << "window " << i;
  }
}

class BlockGraphTest : public ::testing::TestWithParam<DecoderGraph> {};

TEST_P(BlockGraphTest, ChainIsTheDecoderBitForBit) {
  ExpectChainIsDecoder(RandomCheckpoint(GetParam().config, /*seed=*/3));
}

// Angles are rounded to f32, at most 24 * 2^-24 at position 24 (rope.h), and
// the tables of the two are of different arithmetic: the only difference.
TEST_P(BlockGraphTest, DoubleChainIsTheReference) {
  const Checkpoint checkpoint = RandomCheckpoint(GetParam().config, 3);
  ThreadPool pool(1);
  const DecoderConfig& c = checkpoint.config;
  const auto windows = RandomWindows(c, 1);
  const Array<double> x = ChainOutput<double>(checkpoint, windows, pool);
  const std::unique_ptr<Decoder> decoder = LoadF32Decoder(checkpoint, pool);
  const std::vector<float> got = LogitsOf(*decoder, Converted<float>(x), pool);
  const std::vector<std::vector<double>> want =
      ReferenceLogits(checkpoint, windows[0]);
  std::vector<double> flat;
  for (const auto& row : want) flat.insert(flat.end(), row.begin(), row.end());
  const double error =
      RelativeError(absl::MakeConstSpan(got), absl::MakeConstSpan(flat));
  EXPECT_LT(error, 5e-6);
}

// Every intermediate that is kept for the way back is computed by other calls.
TEST_P(BlockGraphTest, OutputIsTheSameWithGradients) {
  ThreadPool pool(2);
  const DecoderConfig& config = GetParam().config;
  const BlockWeights<float> weights = RandomBlock(config, 1, pool);
  const Array<float> x = RandomRows<float>(2 * kLength, config.hidden, 5);
  const MatrixView<const float> view(x.data(), 2 * kLength, config.hidden);
  Block<float> block(config, 1, kLength, GemmPrecision::kF32);
  BlockActivations<float> plain, kept;
  block.SetWeights(weights, /*gradients=*/false, pool);
  block.Forward(view, plain, pool);
  block.SetWeights(weights, /*gradients=*/true, pool);
  block.Forward(view, kept, pool);
  EXPECT_EQ(Flat(plain.output()), Flat(kept.output()));
  for (const LinearId id : kAllLinears) {
    EXPECT_EQ(Flat(plain.input(id)), Flat(kept.input(id)));
  }
}

TEST_P(BlockGraphTest, StopsOnceTheInputIsThere) {
  ThreadPool pool(2);
  const DecoderConfig& config = GetParam().config;
  const BlockWeights<float> weights = RandomBlock(config, 0, pool);
  const Array<float> x = RandomRows<float>(kLength, config.hidden, 5);
  const MatrixView<const float> view(x.data(), kLength, config.hidden);
  Block<float> block(config, 0, kLength, GemmPrecision::kF32);
  block.SetWeights(weights, /*gradients=*/false, pool);
  BlockActivations<float> whole;
  block.Forward(view, whole, pool);
  for (const LinearId until : kAllLinears) {
    BlockActivations<float> acts;
    block.Forward(view, acts, pool, until);
    for (const LinearId id : kAllLinears) {
      if (id > until) break;
      EXPECT_EQ(Flat(acts.input(id)), Flat(whole.input(id)));
    }
    EXPECT_EQ(acts.output().rows, until < LinearId::kUp ? 0 : kLength);
  }
  // kDown, and with it the output, was never computed: its weights don't count.
  BlockActivations<float> acts;
  Array<float> zeros(weights[LinearId::kDown].weight.size(),
                     Array<float>::Fill::kZero);
  block.SetLinear(
      LinearId::kDown,
      MatrixView<const float>(zeros.data(), config.hidden, config.ffn), pool);
  block.Forward(view, acts, pool, LinearId::kDown);
  EXPECT_EQ(Flat(acts.input(LinearId::kDown)),
            Flat(whole.input(LinearId::kDown)));
}

INSTANTIATE_TEST_SUITE_P(Graphs, BlockGraphTest,
                         ::testing::ValuesIn(DecoderGraphs()),
                         ::nibble::testing::GraphName);

class BlockFamilyTest : public ::testing::TestWithParam<TinyFamily> {};

TEST_P(BlockFamilyTest, ChainIsTheDecoderBitForBit) {
  const std::string dir = ::testing::TempDir() + "/block_" + GetParam().name;
  ASSERT_THAT(WriteTinyFamily(dir, GetParam(), /*seed=*/3), IsOk());
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(dir);
  ASSERT_THAT(checkpoint, IsOk());
  ExpectChainIsDecoder(*checkpoint);
}

INSTANTIATE_TEST_SUITE_P(Families, BlockFamilyTest,
                         ::testing::ValuesIn(TinyFamilies()),
                         ::nibble::testing::TinyFamilyName);

TEST(BlockTest, ReplacesOneMatrix) {
  ThreadPool pool(2);
  const DecoderConfig config = ::nibble::testing::TinyDecoderConfig();
  BlockWeights<float> weights = RandomBlock(config, 0, pool);
  const Array<float> x = RandomRows<float>(kLength, config.hidden, 5);
  const MatrixView<const float> view(x.data(), kLength, config.hidden);
  Block<float> block(config, 0, kLength, GemmPrecision::kF32);
  for (const LinearId id : kAllLinears) {
    block.SetWeights(weights, /*gradients=*/false, pool);
    BlockActivations<float> before, after, want;
    block.Forward(view, before, pool);
    Array<float> doubled = Converted<float>(weights[id].weight);
    for (float& w : doubled) w *= 2;
    block.SetLinear(id,
                    MatrixView<const float>(doubled.data(), weights[id].outputs,
                                            weights[id].inputs),
                    pool);
    block.Forward(view, after, pool);
    EXPECT_NE(Flat(after.output()), Flat(before.output()));
    weights[id].weight = std::move(doubled);
    block.SetWeights(weights, /*gradients=*/false, pool);
    block.Forward(view, want, pool);
    EXPECT_EQ(Flat(after.output()), Flat(want.output()));
  }
}

// Factors are rounded to 8 bits of mantissa, 2^-9 of each at most; along the
// way to the output there are three products in a row and the attention.
TEST(BlockTest, BF16StaysWithinTheRoundingOfItsFactors) {
  ThreadPool pool(2);
  const DecoderConfig config = ::nibble::testing::TinyDecoderConfig();
  const BlockWeights<float> weights = RandomBlock(config, 0, pool);
  const Array<float> x = RandomRows<float>(kLength, config.hidden, 5);
  const MatrixView<const float> view(x.data(), kLength, config.hidden);
  BlockActivations<float> exact, rounded;
  Block<float> f32(config, 0, kLength, GemmPrecision::kF32);
  f32.SetWeights(weights, /*gradients=*/false, pool);
  f32.Forward(view, exact, pool);
  Block<float> bf16(config, 0, kLength, GemmPrecision::kBF16);
  bf16.SetWeights(weights, /*gradients=*/false, pool);
  bf16.Forward(view, rounded, pool);
  const double error =
      RelativeError(Flat(rounded.output()), Flat(exact.output()));
  EXPECT_GT(error, 0.0);
  EXPECT_LT(error, 4 * 0x1p-8);
}

}  // namespace
}  // namespace nibble
