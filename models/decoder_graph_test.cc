// Every graph that a configuration can describe, against a forward pass in
// double precision.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "tensor/dtype.h"
#include "testing/decoder_session.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"

namespace nibble {
namespace {

using testing::RandomCheckpoint;
using testing::RandomValues;
using testing::TinyDecoderConfig;

constexpr int64_t kCapacity = 64;

// Logits of every token of a new sequence. [tokens, vocabulary]
std::vector<float> AllLogits(const Decoder& decoder,
                             absl::Span<const int32_t> tokens, size_t chunk,
                             DType kv_dtype, ThreadPool& pool) {
  testing::DecoderSession session(decoder, kv_dtype, kCapacity, pool);
  return session.AppendInChunks(tokens, chunk);
}

struct GraphCase {
  std::string name;
  DecoderConfig config;
};

void PrintTo(const GraphCase& graph, std::ostream* out) { *out << graph.name; }

DecoderConfig NeoxConfig() {
  DecoderConfig config = TinyDecoderConfig();
  config.norm = NormKind::kLayer;
  config.residual = Residual::kParallel;
  config.kv_heads = 4;
  config.rope.rotary_dims = 4;
  config.activation = Activation::kGelu;
  config.gated = false;
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  return config;
}

DecoderConfig GptjConfig() {
  DecoderConfig config = NeoxConfig();
  config.norm_layout = NormLayout::kShared;
  config.rope.style = RopeStyle::kInterleaved;
  config.rope.rotary_dims = 6;
  config.activation = Activation::kGeluTanh;
  config.qkv_bias = config.output_bias = false;
  config.head_bias = true;
  return config;
}

DecoderConfig AlibiConfig() {
  DecoderConfig config = TinyDecoderConfig();
  config.norm = NormKind::kLayer;
  config.heads = 6;
  config.kv_heads = 6;
  config.rope.style = RopeStyle::kNone;
  config.alibi = true;
  config.alibi_scale = 0.25f;
  config.gated = false;
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  config.tied_head = true;
  return config;
}

std::vector<GraphCase> GraphCases() {
  std::vector<GraphCase> cases;
  const auto add = [&cases](std::string name, auto change) {
    DecoderConfig config = TinyDecoderConfig();
    change(config);
    cases.push_back({std::move(name), std::move(config)});
  };
  add("Llama", [](DecoderConfig&) {});
  add("HeadsWiderThanHidden", [](DecoderConfig& c) {
    c.head_dim = 14;
    c.rope.rotary_dims = 14;
  });
  add("OneKvHead", [](DecoderConfig& c) { c.kv_heads = 1; });
  add("AllBiases", [](DecoderConfig& c) {
    c.qkv_bias = c.output_bias = c.mlp_bias = c.head_bias = true;
  });
  add("TiedHead", [](DecoderConfig& c) { c.tied_head = true; });
  add("WindowOnOneLayer", [](DecoderConfig& c) { c.windows = {0, 5}; });
  add("InterleavedRope", [](DecoderConfig& c) {
    c.rope.style = RopeStyle::kInterleaved;
    c.rope_divisors = {1.0f, 2.0f, 4.0f, 8.0f};
  });
  add("LinearRope", [](DecoderConfig& c) {
    c.rope.scaling.type = RopeScaling::kLinear;
    c.rope.scaling.factor = 4.0f;
  });
  add("DynamicRopePastItsLength", [](DecoderConfig& c) {
    c.rope.scaling.type = RopeScaling::kDynamic;
    c.rope.scaling.factor = 2.0f;
    c.rope.max_positions = 16;
  });
  add("Llama3Rope", [](DecoderConfig& c) {
    c.rope.scaling.type = RopeScaling::kLlama3;
    c.rope.scaling.factor = 8.0f;
    c.rope.scaling.original_max_positions = 32;
  });
  add("YarnRope", [](DecoderConfig& c) {
    c.rope.scaling.type = RopeScaling::kYarn;
    c.rope.scaling.factor = 4.0f;
    c.rope.scaling.original_max_positions = 32;
  });
  cases.push_back({"ParallelSeparateNorms", NeoxConfig()});
  DecoderConfig sequential = NeoxConfig();
  sequential.residual = Residual::kSequential;
  cases.push_back({"SequentialLayerNorm", sequential});
  cases.push_back({"ParallelSharedNorm", GptjConfig()});
  cases.push_back({"Alibi", AlibiConfig()});
  return cases;
}

class DecoderGraphTest : public ::testing::TestWithParam<GraphCase> {};

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
                         ::testing::ValuesIn(GraphCases()),
                         [](const ::testing::TestParamInfo<GraphCase>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace nibble
