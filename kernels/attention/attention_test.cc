#include "kernels/attention/attention.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention/alibi.h"
#include "kernels/attention/attention_kernels.h"
#include "kernels/attention/attention_testing.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/thread_pool.h"
#include "tensor/dtype.h"

namespace nibble {
namespace {

struct Shape {
  int64_t heads, kv_heads, head_dim;
};

class AttentionTest : public VariantTest<AttentionKernels> {
 protected:
  void SetUp() override {
    VariantTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_TRUE(LimitIsa(kernels().isa).ok());
  }
  void TearDown() override { ASSERT_TRUE(LimitIsa(BestIsa()).ok()); }

  // What the row computes by itself: the VNNI rows differ from those before
  // them in int8 alone.
  std::vector<DType> CacheTypes() const {
    const Isa isa = kernels().isa;
    if (isa == Isa::kAvxVnni || isa == Isa::kAvx512Vnni) return {DType::kI8};
    return {DType::kF32, DType::kBF16, DType::kI8};
  }

  ThreadPool pool_{1};
  ThreadPool three_{3};
};

INSTANTIATE_VARIANTS(AttentionTest, AttentionTable());

void ExpectNear(const Problem& problem, const Problem::Options& options,
                const std::vector<float>& got) {
  const Expected expected = problem.Expect(options);
  ASSERT_EQ(got.size(), expected.values.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected.values[i], expected.tolerance[i])
        << "at " << i << " of " << problem.Describe();
  }
}

TEST_P(AttentionTest, MatchesFormulaForEveryHeadShape) {
  const Shape shapes[] = {{1, 1, 16},   {4, 4, 24},  {9, 3, 64},  {8, 1, 80},
                          {6, 2, 96},   {71, 1, 64}, {4, 2, 128}, {2, 1, 256},
                          {3, 1, 20},   {2, 2, 6},   {5, 1, 1},   {14, 2, 33},
                          {100, 1, 16}, {2, 2, 112}};
  for (const Shape& s : shapes) {
    for (DType dtype : CacheTypes()) {
      for (int64_t tokens : {1, 5}) {
        const Problem problem({s.heads, s.kv_heads, s.head_dim, dtype,
                               /*page_tokens=*/16, /*first=*/70, tokens});
        ExpectNear(problem, {}, problem.Run({}, pool_));
      }
    }
  }
}

TEST_P(AttentionTest, MatchesFormulaAtEveryDepth) {
  for (int64_t depth :
       {1, 2, 15, 16, 17, 63, 64, 65, 128, 255, 256, 257, 300, 512, 513, 700}) {
    for (DType dtype : CacheTypes()) {
      const Problem problem({4, 2, 32, dtype, /*page_tokens=*/48,
                             /*first=*/depth - 1, /*tokens=*/1});
      ExpectNear(problem, {}, problem.Run({}, pool_));
    }
  }
}

TEST_P(AttentionTest, MatchesFormulaForPromptsOfEveryLength) {
  for (int64_t tokens : {2, 6, 7, 13, 63, 64, 65, 100, 270}) {
    const Problem problem({4, 2, 16, DType::kF32, /*page_tokens=*/32,
                           /*first=*/0, tokens});
    ExpectNear(problem, {}, problem.Run({}, pool_));
  }
}

TEST_P(AttentionTest, WindowHidesDistantKeys) {
  for (DType dtype : CacheTypes()) {
    for (int64_t window : {1, 2, 5, 16, 63, 64, 65, 200, 256, 400, 1000}) {
      for (int64_t tokens : {1, 90}) {
        const Problem problem({4, 2, 16, dtype, /*page_tokens=*/16,
                               /*first=*/330, tokens});
        Problem::Options options;
        options.window = window;
        ExpectNear(problem, options, problem.Run(options, pool_));
      }
    }
  }
}

TEST_P(AttentionTest, FullAttentionSeesLaterKeys) {
  for (DType dtype : CacheTypes()) {
    for (int64_t window : {0, 20}) {
      Problem problem({4, 1, 32, dtype, /*page_tokens=*/16, /*first=*/40,
                       /*tokens=*/30});
      Problem::Options options;
      options.causal = false;
      options.window = window;
      options.kv_length = 300;
      ExpectNear(problem, options, problem.Run(options, pool_));
    }
  }
}

TEST_P(AttentionTest, QueryThatSeesNoKeyGetsZeros) {
  for (DType dtype : CacheTypes()) {
    Problem problem({2, 1, 16, dtype, /*page_tokens=*/16, /*first=*/40,
                     /*tokens=*/8});
    Problem::Options options;
    options.causal = false;
    options.window = 4;
    options.kv_length = 40;
    const std::vector<float> got = problem.Run(options, pool_);
    ExpectNear(problem, options, got);
    // Position 43 sees keys above 39: none.
    for (int64_t i = 3 * 32; i < 8 * 32; ++i) EXPECT_EQ(got[i], 0.0f);
  }
}

TEST_P(AttentionTest, AlibiBiasesByDistance) {
  for (DType dtype : CacheTypes()) {
    for (int64_t tokens : {1, 40}) {
      const Problem problem({6, 2, 16, dtype, /*page_tokens=*/16,
                             /*first=*/250, tokens});
      Problem::Options options;
      options.slopes = AlibiSlopes(6);
      ExpectNear(problem, options, problem.Run(options, pool_));
    }
  }
}

// Scores far outside the range of exp: each query takes the value of one key.
TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  Problem problem({4, 2, 16, DType::kF32, /*page_tokens=*/16, /*first=*/300,
                   /*tokens=*/9});
  problem.ScaleQueries(1e15f);
  const std::vector<float> got = problem.Run({}, pool_);
  const Expected expected = problem.Expect({});
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], expected.values[i]) << i;
  }
}

TEST_P(AttentionTest, EqualScoresAverageTheValues) {
  for (DType dtype : CacheTypes()) {
    Problem problem({4, 2, 16, dtype, /*page_tokens=*/16, /*first=*/299,
                     /*tokens=*/1});
    problem.ScaleQueries(0.0f);
    const std::vector<float> got = problem.Run({}, pool_);
    ExpectNear(problem, {}, got);
  }
}

TEST_P(AttentionTest, SpoiledTokensHarmOnlyThoseWhoSeeThem) {
  for (DType dtype : CacheTypes()) {
    const float inf = std::numeric_limits<float>::infinity();
    for (float poison : {std::nanf(""), inf}) {
      Problem clean({4, 2, 16, dtype, /*page_tokens=*/16, /*first=*/240,
                     /*tokens=*/40});
      const std::vector<float> expected = clean.Run({}, pool_);
      Problem problem = clean;
      problem.PoisonToken(/*position=*/262, poison);
      const std::vector<float> got = problem.Run({}, pool_);
      const int64_t width = 4 * 16;
      for (int64_t t = 0; t < 40; ++t) {
        for (int64_t i = 0; i < width; ++i) {
          const float value = got[t * width + i];
          if (240 + t < 262) {
            ASSERT_EQ(value, expected[t * width + i]) << t;
          } else {
            ASSERT_FALSE(std::isfinite(value)) << t;
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, NanInQueryGivesNanNotText) {
  for (DType dtype : CacheTypes()) {
    Problem problem({2, 1, 16, dtype, /*page_tokens=*/16, /*first=*/10,
                     /*tokens=*/3});
    problem.SetQuery(/*token=*/1, /*index=*/5, std::nanf(""));
    const std::vector<float> got = problem.Run({}, pool_);
    for (int64_t i = 0; i < 16; ++i) {
      EXPECT_TRUE(std::isfinite(got[i]));
      EXPECT_TRUE(std::isnan(got[32 + i]));
      EXPECT_TRUE(std::isfinite(got[32 + 16 + i]));
      EXPECT_TRUE(std::isfinite(got[64 + i]));
    }
  }
}

// One-shot, in chunks, token by token; one thread and three.
TEST_P(AttentionTest, BitsDoNotDependOnChunksOrThreads) {
  const Shape shapes[] = {{9, 3, 64}, {71, 1, 16}, {4, 4, 24}, {2, 2, 128}};
  // The scalar reference has no blocks to cross, and takes long.
  const int64_t tokens = kernels().isa == Isa::kScalar ? 70 : 301;
  for (const Shape& s : shapes) {
    for (DType dtype : CacheTypes()) {
      for (int64_t window : {0, 37}) {
        const Problem problem({s.heads, s.kv_heads, s.head_dim, dtype,
                               /*page_tokens=*/16, /*first=*/0, tokens});
        Problem::Options options;
        options.window = window;
        if (s.heads == 4) options.slopes = AlibiSlopes(4);
        const std::vector<float> whole = problem.Run(options, pool_);
        for (ThreadPool* pool : {&pool_, &three_}) {
          EXPECT_EQ(whole, problem.Run(options, *pool));
          for (int64_t chunk : {1, 7, 96, 128}) {
            EXPECT_EQ(whole, problem.RunInChunks(options, chunk, *pool))
                << problem.Describe() << " chunk " << chunk << " threads "
                << pool->threads();
          }
        }
      }
    }
  }
}

// Deep enough for the sequence to be split among threads.
TEST_P(AttentionTest, BitsDoNotDependOnSplittingTheSequence) {
  ThreadPool seven(7);
  for (const Shape& s : {Shape{4, 1, 32}, Shape{6, 3, 64}}) {
    for (DType dtype : {DType::kBF16, DType::kI8}) {
      const Problem problem({s.heads, s.kv_heads, s.head_dim, dtype,
                             /*page_tokens=*/64, /*first=*/2500,
                             /*tokens=*/2});
      const std::vector<float> one = problem.Run({}, pool_);
      EXPECT_EQ(one, problem.Run({}, three_));
      EXPECT_EQ(one, problem.Run({}, seven));
      ExpectNear(problem, {}, one);
    }
  }
}

TEST_P(AttentionTest, SequencesOfABatchDoNotMeet) {
  for (DType dtype : CacheTypes()) {
    const Problem first({6, 2, 32, dtype, /*page_tokens=*/16,
                         /*first=*/700, /*tokens=*/1});
    const Problem second({6, 2, 32, dtype, /*page_tokens=*/16,
                          /*first=*/0, /*tokens=*/50});
    const Problem third({6, 2, 32, dtype, /*page_tokens=*/32,
                         /*first=*/1900, /*tokens=*/3});
    const std::vector<const Problem*> batch = {&first, &second, &third};
    for (ThreadPool* pool : {&pool_, &three_}) {
      const auto together = RunBatch(batch, {}, *pool);
      for (size_t i = 0; i < batch.size(); ++i) {
        EXPECT_EQ(together[i], batch[i]->Run({}, pool_)) << i;
      }
    }
  }
}

TEST_P(AttentionTest, EmptyBatchDoesNothing) {
  Attention({}, {.heads = 4}, three_);
}

}  // namespace
}  // namespace nibble
