// Where the rows of a GPTQ matrix come from: floats that are rounded, or codes
// that are kept.
//
//   absl::StatusOr<GptqRows> rows = GptqRows::Rounded(tensors, name, rounding);
//   if (!rows.ok()) return rows.status();
//   absl::StatusOr<RoundingLoss> loss = rows->Read(first, count, &matrix);
#ifndef NIBBLE_QUANTIZATION_EXPORT_GPTQ_ROWS_H_
#define NIBBLE_QUANTIZATION_EXPORT_GPTQ_ROWS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "quantization/export/gptq_matrix.h"
#include "quantization/matrix_rows.h"
#include "quantization/round_to_nearest.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"

namespace nibble {

class GptqRows {
 public:
  // Errors name file and tensor: shapes that do not fill words of codes.
  static absl::StatusOr<GptqRows> Rounded(const TensorSource& tensors,
                                          const std::string& name,
                                          const RoundingOptions& rounding);
  // Also: the tensor has no codes, or has minimums, or 3 bits and the like.
  static absl::StatusOr<GptqRows> Kept(const TensorSource& tensors,
                                       const std::string& name);

  // zeros_minus_one is for the caller to set.
  const GptqForm& form() const { return form_; }
  bool symmetric() const;
  absl::Span<const int32_t> input_order() const;
  int64_t stored_bytes() const;

  // Sets rows [first, first + count) of `matrix`, which has form(). May be
  // called from several threads. InvalidArgument: a weight is not finite, or a
  // scale is no f16 number.
  absl::StatusOr<RoundingLoss> Read(int64_t first, int64_t count,
                                    GptqMatrix* matrix) const;

  // The input was read and takes up no more memory.
  void Release() const;

 private:
  struct Buffers;

  GptqRows(const TensorSource& tensors, const std::string& name)
      : tensors_(&tensors), name_(name) {}

  absl::Status Error(const absl::Status& status) const;
  absl::StatusOr<RoundingLoss> Round(int64_t row, Buffers* buffers,
                                     int64_t at) const;
  absl::Status Keep(int64_t first, int64_t count, Buffers* buffers) const;

  const TensorSource* tensors_;
  std::string name_;
  GptqForm form_;
  std::optional<MatrixRows> floats_;  // or else
  const CodedMatrix* codes_ = nullptr;
  PackedLayout layout_;  // of the rounding
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GPTQ_ROWS_H_
