// A weight matrix as integers, the common result of every method.
//
//   QuantizedMatrix matrix(spec, outputs, inputs);
//   matrix.set_grid(row, group, grid);
//   matrix.row_codes(row)[j] = EncodeWeight(w[j], grid, spec);
//   matrix.DequantizeRow(row, values);              // [inputs]
//   Dequantize(matrix, floats, pool);               // [outputs, inputs]
#ifndef NIBBLE_QUANTIZATION_ROUNDING_QUANTIZED_MATRIX_H_
#define NIBBLE_QUANTIZATION_ROUNDING_QUANTIZED_MATRIX_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

struct QuantizedMatrix {
  GridSpec spec;
  int64_t outputs = 0;
  int64_t inputs = 0;
  Array<uint8_t> codes;  // [outputs, inputs], one code a byte
  Array<float> scales;   // [outputs, groups]
  // [outputs, groups]: zeros or minimums; empty under kSymmetric.
  Array<float> offsets;
  // [inputs], a permutation, or empty: code j of a row belongs to input
  // input_order[j] (GPTQ's act-order). Groups are of codes.
  std::vector<int32_t> input_order;

  QuantizedMatrix() = default;
  // Zeroed.
  QuantizedMatrix(const GridSpec& spec, int64_t outputs, int64_t inputs);

  int64_t groups() const { return spec.groups(inputs); }
  absl::Span<uint8_t> row_codes(int64_t row);
  absl::Span<const uint8_t> row_codes(int64_t row) const;
  GroupGrid grid(int64_t row, int64_t group) const;
  void set_grid(int64_t row, int64_t group, const GroupGrid& grid);
  // values[i] = the weight of input i: the order is undone. [inputs]
  void DequantizeRow(int64_t row, absl::Span<float> values) const;
};

// All rows. out: [outputs, inputs].
void Dequantize(const QuantizedMatrix& matrix, MatrixView<float> out,
                ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_ROUNDING_QUANTIZED_MATRIX_H_
