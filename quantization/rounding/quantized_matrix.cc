#include "quantization/rounding/quantized_matrix.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr auto kZero = AlignedBuffer::Fill::kZero;

}  // namespace

QuantizedMatrix::QuantizedMatrix(const GridSpec& spec, int64_t outputs,
                                 int64_t inputs)
    : spec(spec),
      outputs(outputs),
      inputs(inputs),
      codes(static_cast<size_t>(outputs * inputs), kZero),
      scales(static_cast<size_t>(outputs * spec.groups(inputs)), kZero) {
  if (spec.offset != CodeOffset::kSymmetric) {
    offsets = Array<float>(scales.size(), kZero);
  }
}

absl::Span<uint8_t> QuantizedMatrix::row_codes(int64_t row) {
  return codes.span().subspan(static_cast<size_t>(row * inputs),
                              static_cast<size_t>(inputs));
}

absl::Span<const uint8_t> QuantizedMatrix::row_codes(int64_t row) const {
  return codes.span().subspan(static_cast<size_t>(row * inputs),
                              static_cast<size_t>(inputs));
}

GroupGrid QuantizedMatrix::grid(int64_t row, int64_t group) const {
  const size_t at = static_cast<size_t>(row * groups() + group);
  return {scales[at], offsets.empty() ? static_cast<float>(spec.middle_code())
                                      : offsets[at]};
}

void QuantizedMatrix::set_grid(int64_t row, int64_t group,
                               const GroupGrid& grid) {
  const size_t at = static_cast<size_t>(row * groups() + group);
  scales[at] = grid.scale;
  if (!offsets.empty()) offsets[at] = grid.offset;
}

void QuantizedMatrix::DequantizeRow(int64_t row,
                                    absl::Span<float> values) const {
  DCHECK_EQ(static_cast<int64_t>(values.size()), inputs);
  const absl::Span<const uint8_t> codes = row_codes(row);
  const int64_t size = spec.group_inputs(inputs);
  for (int64_t group = 0; group < groups(); ++group) {
    const GroupGrid numbers = grid(row, group);
    const int64_t end = std::min(inputs, (group + 1) * size);
    // A table: codes are few, and the loop then only looks up.
    float decoded[256];
    for (int code = 0; code <= spec.max_code(); ++code) {
      decoded[code] = DecodeWeight(static_cast<uint8_t>(code), numbers, spec);
    }
    for (int64_t j = group * size; j < end; ++j) {
      values[input_order.empty() ? j : input_order[j]] = decoded[codes[j]];
    }
  }
}

void Dequantize(const QuantizedMatrix& matrix, MatrixView<float> out,
                ThreadPool& pool) {
  DCHECK_EQ(out.rows, matrix.outputs);
  DCHECK_EQ(out.cols, matrix.inputs);
  pool.ParallelFor(matrix.outputs, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      matrix.DequantizeRow(row, out.row_span(row));
    }
  });
}

}  // namespace nibble
