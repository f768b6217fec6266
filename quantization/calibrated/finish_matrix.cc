#include "quantization/calibrated/finish_matrix.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/calibrated/block_work.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr auto At = BlockWork::At;

const char* OffsetName(CodeOffset offset) {
  switch (offset) {
    case CodeOffset::kSymmetric:
      return "symmetric";
    case CodeOffset::kZeros:
      return "zeros";
    case CodeOffset::kMinimums:
      break;
  }
  return "minimums";
}

// sqrt(sum (w - w')^2 / sum w^2). Rows are summed one by one: the same for any
// number of threads.
double RelativeError(MatrixView<const float> weights,
                     const QuantizedMatrix& matrix, ThreadPool& pool) {
  const size_t rows = static_cast<size_t>(weights.rows);
  std::vector<double> errors(rows), signals(rows);
  pool.ParallelFor(weights.rows, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(weights.cols));
    for (int64_t i = begin; i < end; ++i) {
      matrix.DequantizeRow(i, absl::MakeSpan(row));
      double error = 0, signal = 0;
      for (int64_t j = 0; j < weights.cols; ++j) {
        const double w = weights.row(i)[j];
        const double difference = w - row[static_cast<size_t>(j)];
        error += difference * difference;
        signal += w * w;
      }
      errors[static_cast<size_t>(i)] = error;
      signals[static_cast<size_t>(i)] = signal;
    }
  });
  double error = 0, signal = 0;
  for (size_t i = 0; i < rows; ++i) {
    error += errors[i];
    signal += signals[i];
  }
  return signal > 0 ? std::sqrt(error / signal) : 0.0;
}

// Codes, and scales and offsets of 2 bytes (zeros of 4 bits take half of one).
int64_t PackedBytes(const QuantizedMatrix& matrix) {
  const int64_t code_bits = matrix.spec.bits <= 4 ? 4 : 8;
  const int64_t groups = matrix.outputs * matrix.groups();
  const int64_t offset_bits =
      matrix.spec.offset == CodeOffset::kSymmetric
          ? 0
          : (matrix.spec.offset == CodeOffset::kZeros ? 4 : 16);
  return (matrix.outputs * matrix.inputs * code_bits +
          groups * (16 + offset_bits)) /
         8;
}

}  // namespace

MatrixReport& ReportOf(BlockWork& work, LinearId id) {
  return *work.block.report.mutable_matrices(static_cast<int>(At(id)));
}

void AddReports(BlockWork& work) {
  for (const LinearId id : kAllLinears) {
    MatrixReport& report = *work.block.report.add_matrices();
    const std::optional<MatrixGrid>& grid = work.grids[At(id)];
    const BlockLinear<float>& linear = work.weights[id];
    report.set_name(work.Name(id));
    report.set_bits(grid.has_value() ? grid->spec.bits : 16);
    report.set_weights(linear.outputs * linear.inputs);
    report.set_bytes(2 * report.weights());  // as bf16
    if (!grid.has_value()) continue;
    report.set_group_size(grid->spec.group_inputs(linear.inputs));
    report.set_offset(OffsetName(grid->spec.offset));
  }
}

absl::Status Named(const BlockWork& work, LinearId id,
                   const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(work.Name(id), ": ", status.message()));
}

void Keep(BlockWork& work, LinearId id, QuantizedMatrix matrix,
          absl::Time start) {
  MatrixReport& report = ReportOf(work, id);
  report.set_relative_error(
      RelativeError(work.weights[id].view(), matrix, work.pool));
  report.set_bytes(PackedBytes(matrix));
  report.set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  work.block.codes[At(id)] = std::move(matrix);
}

absl::Status RoundToNearest(BlockWork& work, LinearId id) {
  const absl::Time start = absl::Now();
  const MatrixGrid& grid = *work.grids[At(id)];
  const MatrixView<const float> weights =
      std::as_const(work.weights)[id].view();
  const absl::Status checked = CheckWeights(weights, work.pool);
  if (!checked.ok()) return Named(work, id, checked);
  RoundOptions options;
  options.spec = grid.spec;
  if (!grid.nearest) {
    options.search = work.recipe.round_to_nearest().search();
    options.importance = work.importance[At(id)];
    options.clip = work.clip[At(id)].span();
  }
  Keep(work, id, RoundMatrix(weights, options, work.pool), start);
  return work.step(0);
}

bool IsCalibrated(const BlockWork& work, LinearId id) {
  const std::optional<MatrixGrid>& grid = work.grids[At(id)];
  return grid.has_value() && !grid->nearest;
}

}  // namespace nibble
