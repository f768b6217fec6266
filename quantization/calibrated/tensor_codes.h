// The codes of one stored tensor, taken from where its rows went.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_TENSOR_CODES_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_TENSOR_CODES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/matrix_rows.h"
#include "quantization/round_to_nearest.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"

namespace nibble {

// Rows [first, first + rows) of a tensor are rows [from, from + rows) of a
// decoder's matrix.
struct TensorRows {
  int64_t first = 0;
  int64_t rows = 0;
  int64_t from = 0;
};

// What the row ranges of a matrix say of each tensor, in the order of the
// tensor's rows: {"q_proj.weight", {{0, 4096, 0}}}, ... Unimplemented, naming
// the tensor, where they do not cover the rows of one from 0 on, each once.
absl::StatusOr<std::vector<std::pair<std::string, std::vector<TensorRows>>>>
RowsByTensor(const std::vector<RowRange>& ranges);

// A tensor whose rows are rows of `matrix`, which must outlive it.
class TensorCodes : public CodedMatrix {
 public:
  TensorCodes(const CodedMatrix& matrix, std::vector<TensorRows> rows);

  const CodedForm& form() const override { return form_; }
  int64_t stored_bytes() const override;
  void Read(int64_t first_row, int64_t rows,
            const CodedRowsBuffer& out) const override;

 private:
  const CodedMatrix& matrix_;
  const std::vector<TensorRows> rows_;
  CodedForm form_;
};

// A float matrix as int8, rounded to nearest whenever it is read.
class RoundedCodes : public CodedMatrix {
 public:
  // InvalidArgument, naming the tensor: a weight is not finite or too large.
  static absl::StatusOr<std::unique_ptr<const RoundedCodes>> Create(
      const TensorSource& tensors, const std::vector<RowRange>& rows,
      int64_t group_size, ThreadPool& pool);

  const CodedForm& form() const override { return form_; }
  int64_t stored_bytes() const override { return rows_.stored_bytes(); }
  void Read(int64_t first_row, int64_t rows,
            const CodedRowsBuffer& out) const override;

 private:
  RoundedCodes(MatrixRows rows, const PackedLayout& layout);

  const MatrixRows rows_;
  const PackedLayout layout_;
  CodedForm form_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_TENSOR_CODES_H_
