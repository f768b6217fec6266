// What GPTQ's options do: search, act-order, correction, refinement.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gptq.h"
#include "quantization/gptq/gptq_testing.h"
#include "quantization/gptq/gram.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/coded_matrix.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

TEST(Gptq, SearchedGroupsLoseLess) {
  ThreadPool pool(2);
  const Matrix w = NormalMatrix(64, 128, 0.2f, 12);
  const Gram gram = GramOf(CorrelatedInputs(1000, 128, 11), pool);
  for (const GridSpec& spec : SomeSpecs()) {
    if (spec.bits == 8) continue;
    GptqOptions options = OptionsOf(spec);
    const double fitted = Quantize(w, gram, options).loss;
    options.search = true;
    EXPECT_LT(Quantize(w, gram, options).loss, fitted) << spec.bits;
  }
}

TEST(Gptq, ActOrderTakesTheLargestInputsFirst) {
  ThreadPool pool(2);
  const Matrix w = NormalMatrix(32, 96, 0.2f, 14);
  const Gram gram = GramOf(CorrelatedInputs(400, 96, 13), pool);
  GptqOptions options = OptionsOf({4, 32, CodeOffset::kZeros});
  options.act_order = true;
  const GptqResult ordered = Quantize(w, gram, options);
  std::vector<int32_t> order = ordered.matrix.input_order;
  ASSERT_EQ(order.size(), 96);
  for (size_t c = 1; c < order.size(); ++c) {
    EXPECT_GE(gram.mean_squares()[order[c - 1]], gram.mean_squares()[order[c]]);
  }
  std::sort(order.begin(), order.end());
  for (int32_t j = 0; j < 96; ++j) EXPECT_EQ(order[j], j);
  EXPECT_LT(ordered.loss, 0.25 * ordered.nearest_loss);
  // Static groups are those of the inputs as they lie.
  options.static_groups = true;
  const GptqResult fixed = Quantize(w, gram, options);
  EXPECT_TRUE(fixed.matrix.input_order.empty());
  const QuantizedMatrix nearest = NearestOf(w, options.spec);
  EXPECT_TRUE(std::equal(nearest.scales.begin(), nearest.scales.end(),
                         fixed.matrix.scales.begin()));
  EXPECT_LT(fixed.loss, 0.25 * fixed.nearest_loss);
}

// The float model's outputs are the target, on inputs that are off.
TEST(Gptq, CorrectionMovesTowardsTheFloatOutputs) {
  ThreadPool pool(2);
  const Matrix x_float = CorrelatedInputs(1000, 64, 15);
  Matrix x = x_float;
  const Matrix noise = CorrelatedInputs(1000, 64, 16);
  for (size_t i = 0; i < x.values.size(); ++i) {
    x.values[i] += 0.2f * noise.values[i];
  }
  const Matrix w = NormalMatrix(64, 64, 0.2f, 17);
  Gram gram(64);
  gram.AddPair(x.view(), x_float.view(), pool);
  gram.Finish(pool);
  const auto error = [&](double correction, int refinements) {
    GptqOptions options = OptionsOf({4, 32, CodeOffset::kZeros});
    options.correction = correction;
    options.refinements = refinements;
    const std::vector<float> became =
        Dequantized(Quantize(w, gram, options).matrix);
    double sum = 0;
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t r = 0; r < w.rows; ++r) {
        double off = 0;
        for (int64_t j = 0; j < w.cols; ++j) {
          off += double{w.at(r, j)} * x_float.at(t, j) -
                 double{became[r * w.cols + j]} * x.at(t, j);
        }
        sum += off * off;
      }
    }
    return sum;
  };
  EXPECT_LT(error(0.25, 0), error(0, 0));
  EXPECT_LT(error(1, 0), error(0.25, 0));
  EXPECT_LT(error(1, 2), error(1, 0));
}

// Outputs should gain what a stream lacks, as far as the inputs tell.
TEST(Gptq, CorrectionMakesUpForTheResidual) {
  ThreadPool pool(2);
  const Matrix x = CorrelatedInputs(800, 64, 27);
  const Matrix w = NormalMatrix(40, 64, 0.2f, 28);
  const Matrix other = NormalMatrix(40, 64, 0.02f, 29);
  const Gram gram = GramOf(x, pool);
  // Lacking: other x. So the aim is w + other.
  Matrix residual = {40, 64, std::vector<float>(40 * 64)};
  Matrix aim = w;
  for (int64_t r = 0; r < 40; ++r) {
    for (int64_t j = 0; j < 64; ++j) {
      aim.at(r, j) += other.at(r, j);
      for (int64_t k = 0; k < 64; ++k) {
        residual.at(r, j) += other.at(r, k) * gram.mean().row(k)[j];
      }
    }
  }
  for (const bool act_order : {false, true}) {
    GptqOptions options = OptionsOf({8, 32, CodeOffset::kSymmetric});
    options.damping = 1e-4;
    options.act_order = act_order;
    const double without =
        OutputError(aim, Dequantized(Quantize(w, gram, options).matrix), x);
    options.correction = 1;
    options.residual = residual.view();
    const GptqResult result = Quantize(w, gram, options);
    EXPECT_FALSE(result.fell_back_to_nearest);
    const double with = OutputError(aim, Dequantized(result.matrix), x);
    EXPECT_LT(with, 1e-2 * without);
    EXPECT_NEAR(result.loss * 40 / with, 1, 0.2);
  }
}

// ---- Refinement

TEST(GptqRefinement, LowersTheLoss) {
  ThreadPool pool(2);
  const Matrix w = NormalMatrix(70, 100, 0.2f, 23);
  const Gram gram = GramOf(CorrelatedInputs(700, 100, 24), pool);
  const std::vector<double> h = Damped(gram, GptqOptions().damping);
  for (const GridSpec& spec : SomeSpecs()) {
    for (const int mode : {0, 1, 2}) {
      GptqOptions options = OptionsOf(spec);
      options.act_order = mode > 0;
      options.static_groups = mode == 2;
      double before = std::numeric_limits<double>::infinity();
      for (const int refinements : {0, 1, 3}) {
        options.refinements = refinements;
        const double loss =
            Trace(w, Dequantized(Quantize(w, gram, options).matrix), h);
        EXPECT_LT(loss, before) << spec.bits << " " << mode;
        before = loss;
      }
    }
  }
}

TEST(GptqRefinement, EndsWhereNoSingleCodeCanImprove) {
  ThreadPool pool(2);
  const Matrix w = NormalMatrix(16, 48, 0.2f, 25);
  const Gram gram = GramOf(CorrelatedInputs(300, 48, 26), pool);
  const std::vector<double> h = Damped(gram, GptqOptions().damping);
  for (const GridSpec& spec : SomeSpecs()) {
    GptqOptions options = OptionsOf(spec);
    options.refinements = 100;
    const QuantizedMatrix matrix = Quantize(w, gram, options).matrix;
    const std::vector<float> became = Dequantized(matrix);
    for (int64_t r = 0; r < w.rows; ++r) {
      for (int64_t c = 0; c < w.cols; ++c) {
        double slope = 0;
        for (int64_t k = 0; k < w.cols; ++k) {
          slope +=
              h[c * w.cols + k] * (double{w.at(r, k)} - became[r * w.cols + k]);
        }
        const int code = matrix.row_codes(r)[c];
        const GroupGrid grid = matrix.grid(r, c / matrix.spec.group_size);
        for (const int other : {code - 1, code + 1}) {
          if (other < spec.min_code() || other > spec.max_code()) continue;
          const double move =
              double{DecodeWeight(other, grid, spec)} - became[r * w.cols + c];
          const double square = move * move * h[c * w.cols + c];
          // Slopes are f32.
          EXPECT_GE(square - 2 * move * slope, -1e-3 * square);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble
