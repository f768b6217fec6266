#include "quantization/gptq/gptq.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gptq_testing.h"
#include "quantization/gptq/gram.h"
#include "quantization/round_to_nearest.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/coded_matrix.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

// ---- Against definitions

TEST(Gptq, IdentityMomentsGiveRoundToNearest) {
  ThreadPool pool(1);
  Matrix x = {100, 100, std::vector<float>(10000, 0.0f)};
  for (int64_t i = 0; i < 100; ++i) x.at(i, i) = 10.0f;
  const Gram gram = GramOf(x, pool);
  const Matrix w = NormalMatrix(70, 100, 0.3f, 3);
  for (const GridSpec& spec : SomeSpecs()) {
    const QuantizedMatrix nearest = NearestOf(w, spec);
    for (const bool act_order : {false, true}) {
      for (const bool is_static : {false, true}) {
        GptqOptions options = OptionsOf(spec);
        options.act_order = act_order;
        options.static_groups = is_static;
        const GptqResult result = Quantize(w, gram, options);
        EXPECT_FALSE(result.fell_back_to_nearest);
        EXPECT_TRUE(std::equal(nearest.codes.begin(), nearest.codes.end(),
                               result.matrix.codes.begin()));
        EXPECT_EQ(Dequantized(result.matrix), Dequantized(nearest));
      }
    }
  }
}

// Optimal brain quantization in doubles, without a factor: the inverse of H by
// elimination, and after each column the inverse of what is left.
struct Textbook {
  std::vector<double> became;  // [rows, cols]
  double squared_errors = 0;
};

Textbook SolveByElimination(const Matrix& w, std::vector<double> h,
                            const GridSpec& spec) {
  const int64_t n = w.cols;
  std::vector<double> inverse(n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (int64_t i = 0; i < n; ++i) {  // Gauss-Jordan; H is positive definite
    const double pivot = h[i * n + i];
    for (int64_t j = 0; j < n; ++j) {
      h[i * n + j] /= pivot;
      inverse[i * n + j] /= pivot;
    }
    for (int64_t k = 0; k < n; ++k) {
      if (k == i) continue;
      const double by = h[k * n + i];
      for (int64_t j = 0; j < n; ++j) {
        h[k * n + j] -= by * h[i * n + j];
        inverse[k * n + j] -= by * inverse[i * n + j];
      }
    }
  }
  Textbook result;
  std::vector<double> live(w.values.begin(), w.values.end());
  result.became.resize(live.size());
  std::vector<GroupGrid> grids(w.rows);
  for (int64_t c = 0; c < n; ++c) {
    const double d = inverse[c * n + c];
    for (int64_t r = 0; r < w.rows; ++r) {
      if (c % spec.group_size == 0) {
        const int64_t end = std::min(n, c + spec.group_size);
        grids[r] = FitGroup(std::vector<float>(live.begin() + r * n + c,
                                               live.begin() + r * n + end),
                            spec);
      }
      const double value = live[r * n + c];
      const double rounded =
          DecodeWeight(EncodeWeight(static_cast<float>(value), grids[r], spec),
                       grids[r], spec);
      result.became[r * n + c] = rounded;
      const double error = (value - rounded) / d;
      result.squared_errors += error * error * d;
      for (int64_t k = c; k < n; ++k) {
        live[r * n + k] -= error * inverse[c * n + k];
      }
    }
    for (int64_t i = c + 1; i < n; ++i) {
      for (int64_t j = c + 1; j < n; ++j) {
        inverse[i * n + j] -= inverse[i * n + c] * inverse[c * n + j] / d;
      }
    }
  }
  return result;
}

TEST(Gptq, SquaredErrorsAreTheTraceOfTheDampedLoss) {
  ThreadPool pool(1);
  const Matrix w = NormalMatrix(20, 80, 0.2f, 5);
  const Gram gram = GramOf(CorrelatedInputs(500, 80, 6), pool);
  const std::vector<double> h = Damped(gram, GptqOptions().damping);
  for (const GridSpec& spec : SomeSpecs()) {
    const Textbook textbook = SolveByElimination(w, h, spec);
    EXPECT_NEAR(textbook.squared_errors / Trace(w, textbook.became, h), 1,
                1e-12 * 80);
    const GptqResult result = Quantize(w, gram, OptionsOf(spec));
    ASSERT_FALSE(result.fell_back_to_nearest);
    EXPECT_EQ(result.damping_used, GptqOptions().damping);
    // Live weights are f32.
    EXPECT_NEAR(result.squared_errors / Trace(w, Dequantized(result.matrix), h),
                1, 1e-4);
  }
}

TEST(Gptq, AgreesWithEliminationInDoubles) {
  ThreadPool pool(1);
  const Matrix w = NormalMatrix(70, 100, 0.2f, 7);
  const Gram gram = GramOf(CorrelatedInputs(700, 100, 8), pool);
  const std::vector<double> h = Damped(gram, GptqOptions().damping);
  for (const GridSpec& spec : SomeSpecs()) {
    const Textbook textbook = SolveByElimination(w, h, spec);
    const GptqResult result = Quantize(w, gram, OptionsOf(spec));
    // A weight that lies on the edge between two codes to f32's precision turns
    // the rest of its row another way.
    const std::vector<float> became = Dequantized(result.matrix);
    int64_t rows_apart = 0;
    for (int64_t r = 0; r < w.rows; ++r) {
      for (int64_t c = 0; c < w.cols; ++c) {
        if (became[r * w.cols + c] != textbook.became[r * w.cols + c]) {
          ++rows_apart;
          break;
        }
      }
    }
    EXPECT_LE(rows_apart, 3);
    EXPECT_NEAR(result.squared_errors / textbook.squared_errors, 1, 0.01);
  }
}

// Rows of five weights with four codes each: every choice there is.
TEST(Gptq, LiesBetweenTheBestChoiceAndTheNearest) {
  ThreadPool pool(1);
  const GridSpec spec = {2, 32, CodeOffset::kZeros};
  double best_sum = 0, found_sum = 0, nearest_sum = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Matrix w = NormalMatrix(4, 5, 0.2f, 100 + seed);
    const Gram gram = GramOf(CorrelatedInputs(40, 5, 200 + seed), pool);
    const std::vector<double> h = Damped(gram, 0.0);
    GptqOptions options = OptionsOf(spec);
    options.static_groups = true;
    options.damping = 0.01;  // of the paper; the loss has none
    const GptqResult result = Quantize(w, gram, options);
    for (int64_t r = 0; r < 4; ++r) {
      const Matrix row = {
          1, 5, {w.values.begin() + r * 5, w.values.begin() + r * 5 + 5}};
      const GroupGrid grid = FitGroup(row.values, spec);
      double best = std::numeric_limits<double>::infinity();
      for (int choice = 0; choice < 1024; ++choice) {
        std::vector<float> became;
        for (int c = 0; c < 5; ++c) {
          became.push_back(DecodeWeight(choice >> (2 * c) & 3, grid, spec));
        }
        best = std::min(best, Trace(row, became, h));
      }
      const auto loss = [&](const QuantizedMatrix& matrix) {
        const std::vector<float> all = Dequantized(matrix);
        return Trace(
            row,
            std::vector<float>(all.begin() + r * 5, all.begin() + r * 5 + 5),
            h);
      };
      const double found = loss(result.matrix);
      EXPECT_GE(found, best * (1 - 1e-9));
      best_sum += best;
      found_sum += found;
      nearest_sum += loss(NearestOf(w, spec));
    }
  }
  EXPECT_LT(found_sum, nearest_sum);
  // How near GPTQ comes: of what rounding to nearest loses, at least half of
  // what can be had is had.
  EXPECT_LT(found_sum - best_sum, 0.5 * (nearest_sum - best_sum));
}

// ---- What it is for

TEST(Gptq, LosesFarLessThanNearestOnCorrelatedInputs) {
  ThreadPool pool(2);
  const Matrix x = CorrelatedInputs(1000, 128, 9);
  const Matrix w = NormalMatrix(64, 128, 0.2f, 10);
  const Gram gram = GramOf(x, pool);
  for (const GridSpec& spec : SomeSpecs()) {
    const GptqResult result = Quantize(w, gram, OptionsOf(spec));
    const double nearest = OutputError(w, Dequantized(NearestOf(w, spec)), x);
    const double found = OutputError(w, Dequantized(result.matrix), x);
    EXPECT_LT(found, 0.25 * nearest);
    // All 64 rows are sampled.
    EXPECT_NEAR(result.loss * 64 / found, 1, 1e-3);
    EXPECT_NEAR(result.nearest_loss * 64 / nearest, 1, 1e-3);
  }
}

// ---- What must not matter

TEST(Gptq, BlocksChangeNoBit) {
  ThreadPool pool(2);
  const Matrix w = NormalMatrix(70, 203, 0.2f, 18);  // ragged in every way
  const Matrix x = CorrelatedInputs(300, 203, 19);
  Gram gram(203);
  gram.AddPair(x.view(), CorrelatedInputs(300, 203, 20).view(), pool);
  gram.Finish(pool);
  for (const int64_t size : {int64_t{32}, int64_t{64}, kWholeRow}) {
    for (const int mode : {0, 1, 2, 3, 4, 5}) {
      GptqOptions options = OptionsOf({4, size, CodeOffset::kZeros});
      options.act_order = mode == 1 || mode == 2;
      options.static_groups = mode == 2;
      options.search = mode == 3;
      options.correction = mode >= 4 ? 0.25 : 0;
      options.refinements = mode == 5 ? 2 : 0;
      const GptqResult want = Quantize(w, gram, options);
      ASSERT_FALSE(want.fell_back_to_nearest);
      for (const int64_t block :
           {int64_t{1}, int64_t{8}, int64_t{40}, int64_t{64}, int64_t{100},
            int64_t{1000}, int64_t{1} << 40,
            std::numeric_limits<int64_t>::max()}) {
        options.block = block;
        const GptqResult got = Quantize(w, gram, options);
        ExpectSameBits(got.matrix, want.matrix);
        EXPECT_EQ(got.squared_errors, want.squared_errors);
        EXPECT_EQ(got.loss, want.loss);
      }
    }
  }
}

TEST(Gptq, ThreadsChangeNoBit) {
  ThreadPool pool(2);
  const Matrix w = NormalMatrix(300, 96, 0.2f, 21);
  const Gram gram = GramOf(CorrelatedInputs(300, 96, 22), pool);
  for (const GridSpec& spec : SomeSpecs()) {
    GptqOptions options = OptionsOf(spec);
    options.act_order = true;
    options.refinements = 1;
    const GptqResult one = Quantize(w, gram, options, 1);
    const GptqResult three = Quantize(w, gram, options, 3);
    ExpectSameBits(one.matrix, three.matrix);
    EXPECT_EQ(one.squared_errors, three.squared_errors);
    EXPECT_EQ(one.loss, three.loss);
  }
}

}  // namespace
}  // namespace nibble
