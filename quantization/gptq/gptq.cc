#include "quantization/gptq/gptq.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/damped_factor.h"
#include "quantization/gptq/gptq_panel.h"
#include "quantization/gptq/gram.h"
#include "quantization/gptq/panel_solver.h"
#include "quantization/gptq/refine.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

absl::Status Check(MatrixView<const float> weights, const Gram& gram,
                   const GptqOptions& options, ThreadPool& pool) {
  CHECK_EQ(gram.inputs(), weights.cols);
  CHECK(options.residual.rows == 0 || (options.residual.rows == weights.rows &&
                                       options.residual.cols == weights.cols));
  if (absl::Status status = CheckGridSpec(options.spec); !status.ok()) {
    return status;
  }
  if (!(options.damping >= 0) || !std::isfinite(options.damping)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "damping ", options.damping, ": it is a share of H's diagonal, 0.05"));
  }
  if (options.block < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("blocks of ", options.block, " columns"));
  }
  if (!std::isfinite(options.correction)) {
    return absl::InvalidArgumentError(
        absl::StrCat("correction ", options.correction, ": 0 to 1"));
  }
  if (options.correction != 0 && gram.mean_cross().rows == 0 &&
      options.residual.rows == 0) {
    return absl::InvalidArgumentError(
        "a correction by the float inputs, which were not collected");
  }
  if (!gram.is_finite()) {
    return absl::InvalidArgumentError(
        "the calibration inputs of the matrix hold values that are not finite");
  }
  return CheckWeights(weights, pool);
}

// [rows, inputs]: weights less what they became, of every `step`-th row.
Array<float> Differences(MatrixView<const float> weights,
                         const QuantizedMatrix& matrix, int64_t step,
                         int64_t rows, ThreadPool& pool) {
  Array<float> differences(static_cast<size_t>(rows * weights.cols));
  pool.ParallelFor(rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const absl::Span<float> row =
          differences.span().subspan(i * weights.cols, weights.cols);
      matrix.DequantizeRow(i * step, row);
      const float* w = weights.row(i * step);
      for (int64_t j = 0; j < weights.cols; ++j) row[j] = w[j] - row[j];
    }
  });
  return differences;
}

// GptqResult::loss.
double LossOf(MatrixView<const float> weights, const QuantizedMatrix& matrix,
              const Gram& gram, ThreadPool& pool) {
  if (gram.tokens() == 0 || weights.rows == 0) return 0;
  const int64_t step = (weights.rows + kLossRows - 1) / kLossRows;
  const int64_t rows = (weights.rows + step - 1) / step;
  const Array<float> d = Differences(weights, matrix, step, rows, pool);
  Array<float> product(d.size());
  GemmNN({d.data(), rows, weights.cols}, gram.mean(), {},
         {product.data(), rows, weights.cols}, pool);
  double loss = 0;
  for (size_t i = 0; i < d.size(); ++i) {
    loss += static_cast<double>(d[i]) * product[i];
  }
  return loss / static_cast<double>(rows);
}

QuantizedMatrix Nearest(MatrixView<const float> weights, const Gram& gram,
                        const GptqOptions& options, ThreadPool& pool) {
  RoundOptions round;
  round.spec = options.spec;
  round.search = options.search;
  round.search_options = options.search_options;
  round.importance = gram.mean_squares();
  return RoundMatrix(weights, round, pool);
}

// The squared errors of all columns; not finite where updates ran away.
double Solve(const GptqProblem& problem, ThreadPool& pool,
             QuantizedMatrix& out) {
  const int64_t panels = (problem.weights.rows + kPanelRows - 1) / kPanelRows;
  // Of each panel, so that the order of the sum is that of the rows.
  std::vector<double> errors(static_cast<size_t>(panels));
  std::vector<std::optional<GptqPanel>> workers(
      static_cast<size_t>(pool.threads()));
  pool.ParallelForStealing(panels, /*grain=*/1,
                           [&](int64_t begin, int64_t end, int thread) {
                             std::optional<GptqPanel>& worker = workers[thread];
                             if (!worker.has_value()) worker.emplace(problem);
                             for (int64_t i = begin; i < end; ++i) {
                               errors[i] = worker->Round(i * kPanelRows, out);
                             }
                           });
  double sum = 0;
  for (const double error : errors) sum += error;
  return sum;
}

void Refine(MatrixView<const float> weights, const Gram& gram,
            const GptqOptions& options, const DampedFactor& factor,
            ThreadPool& pool, QuantizedMatrix& out) {
  std::vector<int32_t> order = factor.order;
  if (options.static_groups) std::iota(order.begin(), order.end(), 0);
  RefineProblem problem = MakeRefineProblem(weights, options.spec, gram, order,
                                            factor.damping_used, pool);
  problem.rounds = options.refinements;
  std::vector<std::optional<RefinePanel>> workers(
      static_cast<size_t>(pool.threads()));
  const int64_t panels = (weights.rows + kPanelRows - 1) / kPanelRows;
  pool.ParallelForStealing(
      panels, /*grain=*/1, [&](int64_t begin, int64_t end, int thread) {
        std::optional<RefinePanel>& worker = workers[thread];
        if (!worker.has_value()) worker.emplace(problem);
        for (int64_t i = begin; i < end; ++i) {
          worker->Refine(i * kPanelRows, out);
        }
      });
}

// [outputs, inputs]: C of gptq.h; empty without a correction.
Array<float> PullOf(MatrixView<const float> weights, const Gram& gram,
                    const GptqOptions& options, ThreadPool& pool) {
  Array<float> pull;
  if (options.correction == 0) return pull;
  pull = Array<float>(static_cast<size_t>(weights.rows * weights.cols),
                      AlignedBuffer::Fill::kZero);
  if (gram.mean_cross().rows > 0) {
    GemmNN(weights, gram.mean_cross(), {},
           {pull.data(), weights.rows, weights.cols}, pool);
  }
  pool.ParallelFor(weights.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* to = pull.data() + i * weights.cols;
      for (int64_t j = 0; j < weights.cols; ++j) {
        if (options.residual.rows > 0) to[j] += options.residual.row(i)[j];
        to[j] *= static_cast<float>(options.correction);
      }
    }
  });
  return pull;
}

std::optional<DampedFactor> FactorFor(MatrixView<const float> weights,
                                      const Gram& gram,
                                      const GptqOptions& options,
                                      ThreadPool& pool) {
  const Array<float> pull = PullOf(weights, gram, options, pool);
  FactorOptions factor_options;
  factor_options.act_order = options.act_order;
  factor_options.damping = options.damping;
  if (!pull.empty()) {
    factor_options.pull = {pull.data(), weights.rows, weights.cols};
  }
  std::optional<DampedFactor> factor = FactorDamped(gram, factor_options, pool);
  if (!factor.has_value() || pull.empty()) return factor;
  pool.ParallelFor(weights.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* target = factor->shift.data() + i * weights.cols;
      const float* w = weights.row(i);
      for (int64_t j = 0; j < weights.cols; ++j) target[j] += w[j];
    }
  });
  return factor;
}

// weights: the target.
std::optional<GptqResult> Solved(MatrixView<const float> weights,
                                 const Gram& gram, const GptqOptions& options,
                                 const DampedFactor& factor, ThreadPool& pool) {
  GptqProblem problem;
  problem.weights = weights;
  problem.options = &options;
  problem.factor = &factor;
  problem.importance.resize(weights.cols);
  for (int64_t c = 0; c < weights.cols; ++c) {
    const double u = factor.factor.at(c, c);
    problem.importance[options.static_groups ? factor.order[c] : c] =
        static_cast<float>(1.0 / (u * u));
  }
  GptqResult result;
  result.matrix = QuantizedMatrix(options.spec, weights.rows, weights.cols);
  if (options.act_order && !options.static_groups) {
    result.matrix.input_order = factor.order;
  }
  result.damping_used = factor.damping_used;
  result.squared_errors = Solve(problem, pool, result.matrix);
  if (!std::isfinite(result.squared_errors)) return std::nullopt;
  // Where no input was ever active, no code costs anything.
  if (options.refinements > 0 && DiagonalOf(gram).most > 0) {
    Refine(weights, gram, options, factor, pool, result.matrix);
  }
  return result;
}

}  // namespace

absl::StatusOr<GptqResult> QuantizeGptq(MatrixView<const float> weights,
                                        const Gram& gram,
                                        const GptqOptions& options,
                                        ThreadPool& pool) {
  if (absl::Status status = Check(weights, gram, options, pool); !status.ok()) {
    return status;
  }
  std::optional<DampedFactor> factor;
  if (static_cast<double>(gram.tokens()) >=
      kLeastTokenShare * static_cast<double>(weights.cols)) {
    factor = FactorFor(weights, gram, options, pool);
  }
  MatrixView<const float> target = weights;
  if (factor.has_value() && !factor->shift.empty()) {
    target.data = factor->shift.data();
    target.stride = weights.cols;
    if (!CheckWeights(target, pool).ok()) {  // the correction ran away
      factor.reset();
      target = weights;
    }
  }
  QuantizedMatrix nearest = Nearest(weights, gram, options, pool);
  const double nearest_loss = LossOf(target, nearest, gram, pool);
  if (factor.has_value()) {
    std::optional<GptqResult> result =
        Solved(target, gram, options, *factor, pool);
    if (result.has_value()) {
      result->nearest_loss = nearest_loss;
      result->loss = LossOf(target, result->matrix, gram, pool);
      if (result->loss <= nearest_loss) return *std::move(result);
    }
  }
  GptqResult result;
  result.matrix = std::move(nearest);
  result.fell_back_to_nearest = true;
  result.loss = result.nearest_loss = nearest_loss;
  return result;
}

}  // namespace nibble
