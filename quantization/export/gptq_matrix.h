// A matrix in GPTQ's layout: qweight, qzeros, scales and g_idx.
//
//   GptqMatrix matrix({outputs, inputs, /*bits=*/4, /*group_size=*/128});
//   matrix.SetRows(0, 16, {codes, scales, zeros});   // any order, any thread
//   writer.Append(matrix.qweight());                 // and the others
//
//   qweight  i32 [inputs / n, outputs]   n = 32 / bits codes in a word, the
//                                        first lowest, along the inputs
//   qzeros   i32 [groups, outputs / n]   the same along the outputs; minus 1 in
//                                        the format "gptq", but not "gptq_v2"
//   scales   f16 [groups, outputs]
//   g_idx    i32 [inputs]                the group of each input
#ifndef NIBBLE_QUANTIZATION_EXPORT_GPTQ_MATRIX_H_
#define NIBBLE_QUANTIZATION_EXPORT_GPTQ_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "tensor/bf16.h"
#include "tensor/io/safetensors_writer.h"

namespace nibble {

struct GptqForm {
  int64_t outputs = 0;  // a multiple of codes_per_word()
  int64_t inputs = 0;   // likewise
  int bits = 4;         // 2, 4 or 8
  int64_t group_size = 0;
  bool zeros_minus_one = false;  // of the format "gptq"

  int64_t codes_per_word() const { return 32 / bits; }
  int64_t groups() const { return (inputs + group_size - 1) / group_size; }
};

// InvalidArgument, saying what is needed, when the sizes do not fill words.
absl::Status CheckGptqForm(const GptqForm& form);

// The four tensors of module `base` ("model.layers.0.mlp.up_proj").
std::vector<SafetensorsPlan> GptqTensors(const std::string& base,
                                         const GptqForm& form);

class GptqMatrix {
 public:
  // Rows that are best set together: whole cache lines of qweight, and as many
  // as readers of packed codes unpack at a time.
  static constexpr int64_t kRowsAtOnce = 64;

  struct Rows {
    absl::Span<const uint8_t> codes;  // [rows, inputs]
    absl::Span<const float> scales;   // [rows, groups], f16 numbers
    absl::Span<const uint8_t> zeros;  // [rows, groups]; not 0 in "gptq"
  };

  // `input_order` as in CodedForm: the codes of a row come in that order. It
  // may be empty and must outlive the object.
  GptqMatrix(const GptqForm& form, absl::Span<const int32_t> input_order);

  // Rows [first, first + count). REQUIRES: both are multiples of
  // codes_per_word(). Calls for separate rows may run at the same time.
  void SetRows(int64_t first, int64_t count, const Rows& rows);

  // In the order of GptqTensors. They live as long as the matrix.
  std::vector<absl::Span<const std::byte>> Bytes() const;

 private:
  const GptqForm form_;
  const absl::Span<const int32_t> input_order_;
  std::vector<uint32_t> qweight_, qzeros_;
  std::vector<F16> scales_;
  std::vector<int32_t> group_of_input_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GPTQ_MATRIX_H_
