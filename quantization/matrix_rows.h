// The rows of a decoder's matrix, read where their parts are stored.
//
//   absl::StatusOr<MatrixRows> rows =
//       MatrixRows::Find(*checkpoint.tensors, names.layers[0].qkv.weight);
//   if (!rows.ok()) return rows.status();
//   std::vector<float> row(rows->inputs());
//   absl::Status status = rows->Read(17, absl::MakeSpan(row));
//   rows->Release(0, 18);
//
// A matrix may be put together from several tensors (models/checkpoint.h), also
// of those that are there as codes alone: they are read as their values.
// Nothing of it is copied, so that a matrix larger than memory can be streamed.
#ifndef NIBBLE_QUANTIZATION_MATRIX_ROWS_H_
#define NIBBLE_QUANTIZATION_MATRIX_ROWS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/checkpoint.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {

class MatrixRows {
 public:
  // `ranges` must have passed CheckTensors, and `tensors` must outlive the
  // result.
  static absl::StatusOr<MatrixRows> Find(const TensorSource& tensors,
                                         absl::Span<const RowRange> ranges);

  int64_t rows() const { return rows_; }
  int64_t inputs() const { return inputs_; }
  // Bytes that all rows take where they are stored.
  int64_t stored_bytes() const { return stored_bytes_; }

  // values = a row as floats. May be called from several threads.
  // REQUIRES: 0 <= row < rows(), values.size() == inputs().
  absl::Status Read(int64_t row, absl::Span<float> values) const;

  // `status`, with the file and the tensor that holds `row` in front.
  absl::Status Error(int64_t row, const absl::Status& status) const;

  // Rows [first, first + count) need no memory for now.
  void Release(int64_t first, int64_t count) const;

 private:
  struct Part {
    int64_t end = 0;  // The row behind its last one, of the whole matrix.
    int64_t rows = 0;
    int64_t first_row = 0;  // Of `view`.
    std::string tensor;
    TensorView view;                     // without data: read from `codes`
    const CodedMatrix* codes = nullptr;  // null where there are dense bytes
    int64_t row_bytes = 0;               // where it is stored
  };

  explicit MatrixRows(const TensorSource& tensors) : tensors_(&tensors) {}

  const Part& PartOf(int64_t row) const;

  const TensorSource* tensors_;
  std::vector<Part> parts_;
  int64_t rows_ = 0;
  int64_t inputs_ = 0;
  int64_t stored_bytes_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_MATRIX_ROWS_H_
