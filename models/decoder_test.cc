#include "models/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/attention/kv_view.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/decoder_workspace.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/kv_pages.h"
#include "testing/matchers.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::KvPages;
using testing::RandomCheckpoint;
using testing::RandomValues;
using testing::StatusIs;
using testing::TinyDecoderConfig;

constexpr int64_t kCapacity = 64;

std::unique_ptr<Decoder> LoadF32(const Checkpoint& checkpoint,
                                 ThreadPool& pool) {
  DecoderOptions options;
  options.weights = DType::kF32;
  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Load(checkpoint, options, pool);
  EXPECT_THAT(decoder, IsOk());
  return *std::move(decoder);
}

// Feeds `tokens` in chunks; logits of every token. [tokens, vocabulary]
std::vector<float> RunInChunks(const Decoder& decoder,
                               absl::Span<const int32_t> tokens, int64_t chunk,
                               DType kv_dtype, ThreadPool& pool) {
  const int64_t vocabulary = decoder.config().vocabulary;
  KvPages cache(decoder.config(), kv_dtype, kCapacity);
  DecoderWorkspace work;
  const int64_t count = static_cast<int64_t>(tokens.size());
  std::vector<float> logits(static_cast<size_t>(count * vocabulary));
  for (int64_t first = 0; first < count; first += chunk) {
    SequenceSlice slice;
    slice.tokens =
        tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(chunk));
    slice.first_position = first;
    slice.layers = cache.layers();
    slice.all_logits = true;
    const MatrixView<float> out(logits.data() + first * vocabulary,
                                slice.count(), vocabulary);
    EXPECT_THAT(decoder.Forward({&slice, 1}, work, out, pool), IsOk());
  }
  return logits;
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
  const std::unique_ptr<Decoder> decoder = LoadF32(checkpoint, pool);
  RandomValues random(5);
  const std::vector<int32_t> tokens =
      random.Tokens(40, decoder->config().vocabulary);
  const std::vector<std::vector<double>> want =
      testing::ReferenceLogits(checkpoint, tokens);
  const std::vector<float> got =
      RunInChunks(*decoder, tokens, 40, DType::kF32, pool);
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
  const std::unique_ptr<Decoder> decoder = LoadF32(checkpoint, one);
  RandomValues random(6);
  const std::vector<int32_t> tokens = random.Tokens(37, config.vocabulary);
  for (const DType kv : {DType::kF32, DType::kBF16}) {
    const std::vector<float> whole = RunInChunks(*decoder, tokens, 37, kv, one);
    for (const int64_t chunk : {1, 3, 16, 37}) {
      EXPECT_EQ(RunInChunks(*decoder, tokens, chunk, kv, one), whole) << chunk;
      EXPECT_EQ(RunInChunks(*decoder, tokens, chunk, kv, two), whole) << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, DecoderGraphTest,
                         ::testing::ValuesIn(GraphCases()),
                         [](const ::testing::TestParamInfo<GraphCase>& info) {
                           return info.param.name;
                         });

class DecoderTest : public ::testing::Test {
 protected:
  DecoderTest()
      : pool_(2),
        checkpoint_(RandomCheckpoint(TinyDecoderConfig(), 3)),
        decoder_(LoadF32(checkpoint_, pool_)),
        cache_(checkpoint_.config, DType::kF32, kCapacity) {}

  int64_t vocabulary() const { return checkpoint_.config.vocabulary; }

  SequenceSlice Slice(absl::Span<const int32_t> tokens) const {
    SequenceSlice slice;
    slice.tokens = tokens;
    slice.layers = cache_.layers();
    return slice;
  }

  absl::Status Forward(const SequenceSlice& slice, int64_t rows) {
    std::vector<float> logits(static_cast<size_t>(rows * vocabulary()));
    return decoder_->Forward(
        {&slice, 1}, work_,
        MatrixView<float>(logits.data(), rows, vocabulary()), pool_);
  }

  ThreadPool pool_;
  Checkpoint checkpoint_;
  std::unique_ptr<Decoder> decoder_;
  KvPages cache_;
  DecoderWorkspace work_;
};

TEST_F(DecoderTest, ABatchOfSequencesGivesTheBitsOfEachAlone) {
  RandomValues random(8);
  const std::vector<int64_t> lengths = {1, 20, 7};
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::unique_ptr<KvPages>> caches;
  std::vector<SequenceSlice> batch;
  std::vector<float> want;
  for (const int64_t length : lengths) {
    prompts.push_back(random.Tokens(length, vocabulary()));
    const std::vector<float> alone =
        RunInChunks(*decoder_, prompts.back(), length, DType::kF32, pool_);
    // The second wants all logits, the others the last.
    const int64_t rows = length == 20 ? 20 : 1;
    want.insert(want.end(), alone.end() - rows * vocabulary(), alone.end());
  }
  for (const std::vector<int32_t>& prompt : prompts) {
    caches.push_back(std::make_unique<KvPages>(checkpoint_.config, DType::kF32,
                                               kCapacity, 8));
    SequenceSlice slice;
    slice.tokens = prompt;
    slice.layers = caches.back()->layers();
    slice.all_logits = prompt.size() == 20;
    batch.push_back(slice);
  }
  std::vector<float> got(want.size());
  ASSERT_THAT(
      decoder_->Forward(batch, work_,
                        MatrixView<float>(got.data(), 22, vocabulary()), pool_),
      IsOk());
  EXPECT_EQ(got, want);
}

TEST_F(DecoderTest, LogitsMayHaveAnyStride) {
  const std::vector<int32_t> tokens = {5, 6};
  SequenceSlice slice = Slice(tokens);
  slice.all_logits = true;
  std::vector<float> wide(2 * 128, -1.0f);
  ASSERT_THAT(decoder_->Forward(
                  {&slice, 1}, work_,
                  MatrixView<float>(wide.data(), 2, vocabulary(), 128), pool_),
              IsOk());
  const std::vector<float> want =
      RunInChunks(*decoder_, tokens, 2, DType::kF32, pool_);
  for (int64_t v = 0; v < vocabulary(); ++v) {
    EXPECT_EQ(wide[static_cast<size_t>(128 + v)],
              want[static_cast<size_t>(vocabulary() + v)]);
  }
  EXPECT_EQ(wide[static_cast<size_t>(vocabulary())], -1.0f);
}

TEST_F(DecoderTest, WorkspaceStopsGrowingAtTheLargestBatch) {
  RandomValues random(9);
  const std::vector<int32_t> tokens = random.Tokens(30, vocabulary());
  ASSERT_THAT(Forward(Slice(tokens), 1), IsOk());
  const size_t bytes = work_.bytes();
  EXPECT_GT(bytes, 0u);
  SequenceSlice next = Slice(absl::MakeConstSpan(tokens).first(1));
  next.first_position = 30;
  ASSERT_THAT(Forward(next, 1), IsOk());
  EXPECT_EQ(work_.bytes(), bytes);
}

TEST_F(DecoderTest, Bf16WeightsAreExactForABf16Checkpoint) {
  // Halves are bf16 numbers, so packing loses nothing.
  Checkpoint halves = RandomCheckpoint(TinyDecoderConfig(), 4);
  auto tensors = std::make_shared<testing::MemoryTensors>();
  RandomValues random(10);
  for (const std::string& name : halves.tensors->names()) {
    const Shape shape = halves.tensors->Find(name)->shape;
    std::vector<float> values = random.Uniform(shape.elements(), -4.0f, 4.0f);
    for (float& value : values) value = std::round(value) * 0.125f;
    tensors->Add(name, shape, std::move(values));
  }
  halves.tensors = tensors;
  DecoderOptions options;
  const auto narrow = Decoder::Load(halves, options, pool_);
  ASSERT_THAT(narrow, IsOk());
  const std::unique_ptr<Decoder> wide = LoadF32(halves, pool_);
  EXPECT_LT((*narrow)->weight_bytes(), wide->weight_bytes());
  const std::vector<int32_t> tokens = random.Tokens(12, vocabulary());
  const std::vector<float> want =
      RunInChunks(*wide, tokens, 12, DType::kF32, pool_);
  EXPECT_THAT(RunInChunks(**narrow, tokens, 12, DType::kF32, pool_),
              testing::AllNear(want, 1e-4f));
}

TEST_F(DecoderTest, Bf16ActivationsStayNearF32) {
  DecoderOptions options;
  options.activations = Activations::kBF16;
  const auto rounded = Decoder::Load(checkpoint_, options, pool_);
  ASSERT_THAT(rounded, IsOk());
  RandomValues random(10);
  const std::vector<int32_t> tokens = random.Tokens(12, vocabulary());
  const std::vector<float> want =
      RunInChunks(*decoder_, tokens, 12, DType::kF32, pool_);
  // Rounding to 8 bits in each of nine products of each path: a few percent of
  // the logits' deviation, which is about 1.
  EXPECT_THAT(RunInChunks(**rounded, tokens, 12, DType::kF32, pool_),
              testing::AllNear(want, 0.25f));
}

TEST_F(DecoderTest, ReportsProgressAfterEachMatrix) {
  std::vector<int64_t> done;
  int64_t in_all = 0;
  DecoderOptions options;
  options.progress = [&](int64_t matrices, int64_t total) {
    done.push_back(matrices);
    in_all = total;
  };
  ASSERT_THAT(Decoder::Load(checkpoint_, options, pool_), IsOk());
  EXPECT_THAT(done, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(in_all, 9);
}

TEST_F(DecoderTest, RejectsOptionsItCannotServe) {
  DecoderOptions options;
  options.weights = DType::kF16;
  EXPECT_THAT(Decoder::Load(checkpoint_, options, pool_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("f16")));
  options.weights = DType::kF32;
  options.activations = Activations::kBF16;
  EXPECT_THAT(Decoder::Load(checkpoint_, options, pool_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bf16")));
}

TEST_F(DecoderTest, RejectsTokensOutsideTheVocabulary) {
  for (const int32_t token : {-1, 97, INT32_MAX, INT32_MIN}) {
    const std::vector<int32_t> tokens = {3, token};
    EXPECT_THAT(Forward(Slice(tokens), 1),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("vocabulary of 97")))
        << token;
  }
}

TEST_F(DecoderTest, RejectsEmptyBatchAndEmptySlice) {
  EXPECT_THAT(
      Forward(Slice({}), 1),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no tokens")));
  EXPECT_THAT(
      decoder_->Forward({}, work_, MatrixView<float>(nullptr, 0, 97), pool_),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("empty")));
}

TEST_F(DecoderTest, RejectsPositionsOutsideTheCache) {
  const std::vector<int32_t> tokens = {3};
  SequenceSlice slice = Slice(tokens);
  slice.first_position = kCapacity;
  EXPECT_THAT(Forward(slice, 1), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("room for 64")));
  slice.first_position = -1;
  EXPECT_FALSE(Forward(slice, 1).ok());
  slice.first_position = INT64_MAX;
  EXPECT_FALSE(Forward(slice, 1).ok());
  slice.first_position = kCapacity - 1;
  EXPECT_THAT(Forward(slice, 1), IsOk());
}

TEST_F(DecoderTest, RejectsCacheOfAnotherModel) {
  const std::vector<int32_t> tokens = {3};
  SequenceSlice slice = Slice(tokens);
  slice.layers = cache_.layers().first(1);
  EXPECT_THAT(Forward(slice, 1), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("1 of 2 layers")));
  DecoderConfig other = TinyDecoderConfig();
  other.kv_heads = 4;
  const KvPages wrong(other, DType::kF32, kCapacity);
  slice.layers = wrong.layers();
  EXPECT_THAT(Forward(slice, 1), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("2 heads of 8")));
}

TEST_F(DecoderTest, RejectsLogitsOfAnotherShape) {
  const std::vector<int32_t> tokens = {3, 4};
  EXPECT_THAT(
      Forward(Slice(tokens), 2),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs [1, 97]")));
}

}  // namespace
}  // namespace nibble
