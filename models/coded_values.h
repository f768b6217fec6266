// The weights that codes stand for (tensor/coded_matrix.h), as floats.
//
//   CodedReader
//   reader(*tensors.FindCoded("model.layers.0.mlp.up_proj.weight"));
//   reader.Read(first_row, rows, values);
//
// A weight stands where its input does, also in a matrix with an input order.
// Not for several threads at once; each takes a reader of its own.
#ifndef NIBBLE_MODELS_CODED_VALUES_H_
#define NIBBLE_MODELS_CODED_VALUES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "tensor/coded_matrix.h"

namespace nibble {

class CodedReader {
 public:
  // `matrix` must outlive the reader.
  explicit CodedReader(const CodedMatrix& matrix) : matrix_(matrix) {}

  // values [rows, inputs] = rows [first_row, first_row + rows), NaN and
  // infinity included. REQUIRES: the rows exist, values.size() == rows *
  // inputs.
  void Read(int64_t first_row, int64_t rows, absl::Span<float> values);

 private:
  const CodedMatrix& matrix_;
  std::vector<uint8_t> codes_;  // [rows, inputs]
  std::vector<float> scales_;   // [rows, groups]
  std::vector<float> offsets_;  // [rows, groups], 0 where there are none
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_CODED_VALUES_H_
