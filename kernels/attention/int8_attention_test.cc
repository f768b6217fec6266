#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention/alibi.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_kernels.h"
#include "kernels/attention/attention_testing.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/thread_pool.h"
#include "tensor/dtype.h"

namespace nibble {
namespace {

// Every row of the table against the scalar one: equal bits, not nearly equal.
class Int8AttentionTest : public VariantTest<AttentionKernels> {
 protected:
  void SetUp() override {
    VariantTest::SetUp();
    if (kernels().isa == Isa::kScalar) GTEST_SKIP() << "is the reference";
  }
  void TearDown() override { ASSERT_TRUE(LimitIsa(BestIsa()).ok()); }

  std::vector<float> Run(Isa isa, const Problem& problem,
                         const Problem::Options& options) {
    EXPECT_TRUE(LimitIsa(isa).ok());
    return problem.Run(options, pool_);
  }

  // NaNs equal each other.
  void ExpectSameBits(const Problem& problem, const Problem::Options& options) {
    const std::vector<float> expected = Run(Isa::kScalar, problem, options);
    const std::vector<float> got = Run(kernels().isa, problem, options);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(expected[i])) {
        ASSERT_TRUE(std::isnan(got[i])) << i << " of " << problem.Describe();
      } else {
        ASSERT_EQ(got[i], expected[i]) << i << " of " << problem.Describe();
      }
    }
  }

  ThreadPool pool_{1};
};

INSTANTIATE_VARIANTS(Int8AttentionTest, AttentionTable());

TEST_P(Int8AttentionTest, SameBitsAsTheReferenceForEveryHeadShape) {
  const int64_t shapes[][3] = {
      {1, 1, 16},  {4, 4, 24},  {9, 3, 64},   {8, 1, 80},  {6, 2, 96},
      {71, 1, 64}, {4, 2, 128}, {2, 1, 256},  {3, 1, 20},  {2, 2, 6},
      {5, 1, 1},   {14, 2, 33}, {100, 1, 16}, {2, 2, 112}, {2, 1, 1024}};
  for (const auto& s : shapes) {
    for (int64_t tokens : {1, 2, 5, 17}) {
      ExpectSameBits(Problem({s[0], s[1], s[2], DType::kI8,
                              /*page_tokens=*/16, /*first=*/250, tokens}),
                     {});
    }
  }
}

TEST_P(Int8AttentionTest, SameBitsAsTheReferenceAtEveryDepth) {
  for (int64_t depth = 1; depth <= 300; depth += depth < 70 ? 1 : 7) {
    ExpectSameBits(Problem({4, 2, 32, DType::kI8, /*page_tokens=*/48,
                            /*first=*/depth - 1, /*tokens=*/1}),
                   {});
  }
}

TEST_P(Int8AttentionTest, SameBitsAsTheReferenceForPromptsUnderEveryMask) {
  for (int64_t tokens : {2, 6, 13, 64, 100, 270}) {
    for (int64_t window : {0, 1, 15, 64, 70, 200}) {
      for (bool alibi : {false, true}) {
        Problem::Options options;
        options.window = window;
        if (alibi) options.slopes = AlibiSlopes(6);
        ExpectSameBits(Problem({6, 2, 16, DType::kI8, /*page_tokens=*/32,
                                /*first=*/40, tokens}),
                       options);
      }
    }
  }
}

TEST_P(Int8AttentionTest, SameBitsAsTheReferenceWithoutACausalMask) {
  for (int64_t window : {0, 20, 100}) {
    Problem::Options options;
    options.causal = false;
    options.window = window;
    options.kv_length = 297;
    ExpectSameBits(Problem({4, 1, 32, DType::kI8, /*page_tokens=*/64,
                            /*first=*/40, /*tokens=*/30}),
                   options);
  }
}

// Sharp, flat and vanishing softmax; keys and values of very unlike scales.
TEST_P(Int8AttentionTest, SameBitsAsTheReferenceForExtremeMagnitudes) {
  for (float factor : {0.0f, 1e-36f, 1e-3f, 30.0f, 1e4f, 1e30f}) {
    Problem problem({4, 2, 64, DType::kI8, /*page_tokens=*/64, /*first=*/290,
                     /*tokens=*/9});
    problem.ScaleQueries(factor);
    problem.PoisonToken(/*position=*/3, 1e-38f);
    problem.PoisonToken(/*position=*/4, 0.0f);
    problem.PoisonToken(/*position=*/5, 1e5f);
    problem.PoisonKey(/*position=*/6, 1e4f);
    ExpectSameBits(problem, {});
  }
}

TEST_P(Int8AttentionTest, SameBitsAsTheReferenceWithSpoiledTokens) {
  const float inf = std::numeric_limits<float>::infinity();
  for (float poison : {std::nanf(""), inf, -inf}) {
    for (int64_t window : {0, 12}) {
      Problem::Options options;
      options.window = window;
      Problem keys({4, 2, 16, DType::kI8, /*page_tokens=*/16, /*first=*/240,
                    /*tokens=*/40});
      Problem values = keys;
      keys.PoisonKey(/*position=*/262, poison);
      values.PoisonToken(/*position=*/262, poison);
      ExpectSameBits(keys, options);
      ExpectSameBits(values, options);
    }
  }
}

TEST_P(Int8AttentionTest, SpoiledKeysHarmOnlyThoseWhoSeeThem) {
  Problem problem({4, 2, 16, DType::kI8, /*page_tokens=*/16, /*first=*/240,
                   /*tokens=*/40});
  const std::vector<float> clean = Run(kernels().isa, problem, {});
  problem.PoisonKey(/*position=*/262, std::nanf(""));
  const std::vector<float> got = Run(kernels().isa, problem, {});
  for (size_t i = 0; i < got.size(); ++i) {
    if (240 + i / 64 < 262) {
      ASSERT_EQ(got[i], clean[i]) << i;
    } else {
      ASSERT_TRUE(std::isnan(got[i])) << i;
    }
  }
}

// What a cache holds beyond its tokens must not matter: here all NaN bytes, and
// in the other case the tokens of a longer text.
TEST_P(Int8AttentionTest, LaterTokensInThePagesDoNotMatter) {
  const int64_t width = 2 * 32;
  NormalNumbers normal(11);
  const std::vector<float> rows = normal.Vector(128 * width);
  const std::vector<float> q = normal.Vector(4 * 32);
  const KvView shape{DType::kI8, 2, 32, 64, {}, {}};
  ASSERT_TRUE(LimitIsa(kernels().isa).ok());
  for (int64_t length : {1, 3, 17, 66}) {
    std::vector<float> outputs[2];
    for (int full : {0, 1}) {
      const PagedCache cache(shape, 128);
      const MatrixView<const float> stored(rows.data(), full ? 128 : length,
                                           width);
      StoreKv(stored, stored, 0, cache.view());
      outputs[full].assign(4 * 32, -1.0f);
      const AttentionSequence sequence{{q.data(), 1, 4 * 32},
                                       {outputs[full].data(), 1, 4 * 32},
                                       length - 1,
                                       length,
                                       cache.view()};
      AttentionParams params;
      params.heads = 4;
      Attention({&sequence, 1}, params, pool_);
    }
    EXPECT_EQ(outputs[0], outputs[1]) << length;
  }
}

}  // namespace
}  // namespace nibble
