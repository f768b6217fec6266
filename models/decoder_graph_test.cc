// Every graph that a configuration can describe, against a forward pass in
// double precision.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/rope.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "tensor/dtype.h"
#include "testing/decoder_graphs.h"
#include "testing/decoder_session.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"

namespace nibble {
namespace {

using testing::DecoderGraph;
using testing::RandomCheckpoint;
using testing::RandomValues;

constexpr int64_t kCapacity = 64;

// Logits of every token of a new sequence. [tokens, vocabulary]
std::vector<float> AllLogits(const Decoder& decoder,
                             absl::Span<const int32_t> tokens, size_t chunk,
                             DType kv_dtype, ThreadPool& pool) {
  testing::DecoderSession session(decoder, kv_dtype, kCapacity, pool);
  return session.AppendInChunks(tokens, chunk);
}

class DecoderGraphTest : public ::testing::TestWithParam<DecoderGraph> {};

// The bound: a logit is a sum of 32 products, after about ten dependent steps
// that each round the residual stream by 2^-24 of its size and that a norm may
// amplify tenfold: 100 * 2^-24 of the largest logit.
TEST_P(DecoderGraphTest, MatchesTheReferenceForwardPass) {
  const Checkpoint checkpoint = RandomCheckpoint(GetParam().config, 11);
  ThreadPool pool(2);
  const std::unique_ptr<Decoder> decoder =
      testing::LoadF32Decoder(checkpoint, pool);
  RandomValues random(5);
  const std::vector<int32_t> tokens =
      random.Tokens(40, decoder->config().vocabulary);
  const std::vector<std::vector<double>> want =
      testing::ReferenceLogits(checkpoint, tokens);
  const std::vector<float> got =
      AllLogits(*decoder, tokens, 40, DType::kF32, pool);
  double worst = 0.0;
  double largest = 0.0;
  size_t i = 0;
  for (const std::vector<double>& row : want) {
    for (const double logit : row) {
      worst = std::max(worst, std::abs(got[i++] - logit));
      largest = std::max(largest, std::abs(logit));
    }
  }
  EXPECT_EQ(i, got.size());
  EXPECT_GE(largest, 1.0);
  EXPECT_LE(worst, 100 * 0x1p-24 * largest);
}

TEST_P(DecoderGraphTest, BitsDoNotDependOnChunksOrThreads) {
  DecoderConfig config = GetParam().config;
  if (config.rope.scaling.type == RopeScaling::kDynamic) {
    config.rope.max_positions = kCapacity;  // Past it they do.
  }
  const Checkpoint checkpoint = RandomCheckpoint(config, 12);
  ThreadPool one(1);
  ThreadPool two(2);
  const std::unique_ptr<Decoder> decoder =
      testing::LoadF32Decoder(checkpoint, one);
  RandomValues random(6);
  const std::vector<int32_t> tokens = random.Tokens(37, config.vocabulary);
  for (const DType kv : {DType::kF32, DType::kBF16}) {
    const std::vector<float> whole = AllLogits(*decoder, tokens, 37, kv, one);
    for (const size_t chunk : {1, 3, 16, 37}) {
      EXPECT_EQ(AllLogits(*decoder, tokens, chunk, kv, one), whole) << chunk;
      EXPECT_EQ(AllLogits(*decoder, tokens, chunk, kv, two), whole) << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, DecoderGraphTest,
                         ::testing::ValuesIn(testing::DecoderGraphs()),
                         testing::GraphName);

}  // namespace
}  // namespace nibble
