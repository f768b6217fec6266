// A quantized matrix as Hugging Face folders store it: the four layouts, read
// as a CodedMatrix.
//
//   kGptq      codes [CodeWords(in), out]: a stream down each column;
//              scales [groups, out]; zeros [groups, CodeWords(out)]
//   kAwqGemm   codes [in, out / 8], zeros [groups, out / 8]: nibble i of a word
//              is that of output 8 c + {0, 2, 4, 6, 1, 3, 5, 7}[i];
//              scales [groups, out]
//   kAwqGemv   codes [out, in / 8]: a stream along each row; zeros [out, w],
//              scales [out, 8 w], w words holding the groups and padding
//   kCompressedTensors
//              codes [out, CodeWords(in)]: a stream along each row;
//              scales [out, groups]; zeros [CodeWords(out), groups]: a stream
//              down each column
//
// Words are 32 bits. Scales are f16, bf16 or f32.
#ifndef NIBBLE_MODELS_QUANTIZED_STORED_CODES_H_
#define NIBBLE_MODELS_QUANTIZED_STORED_CODES_H_

#include <cstdint>
#include <vector>

#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {

enum class CodeLayout { kGptq, kAwqGemm, kAwqGemv, kCompressedTensors };

struct ModuleTensors {
  CodeLayout layout = CodeLayout::kGptq;
  int64_t outputs = 0;
  int64_t inputs = 0;
  int bits = 4;
  int64_t group_size = 0;  // at most `inputs`
  TensorView codes;        // i32
  TensorView scales;       // f16, bf16 or f32
  TensorView zeros;        // i32; no data: all are 2^(bits - 1)
  // Zeros are stored less one, as GPTQ's first format has them. Writers took
  // the one from whole words (0x11111111 at 4 bits), so it is added to whole
  // words; at 3 bits, where zeros lie across words, to each zero.
  bool zeros_less_one = false;
  std::vector<int32_t> input_order;  // as GroupOrder returns it
};

class StoredCodes : public CodedMatrix {
 public:
  // `source` is where the views are from; it must outlive the matrix. kAwqGemm
  // and kAwqGemv: 4 bits. REQUIRES: the shapes above.
  StoredCodes(ModuleTensors matrix, const TensorSource* source);
  StoredCodes(const StoredCodes&) = delete;
  StoredCodes& operator=(const StoredCodes&) = delete;

  const CodedForm& form() const override { return form_; }
  int64_t stored_bytes() const override;
  void Read(int64_t first_row, int64_t rows,
            const CodedRowsBuffer& out) const override;
  void Release() const override;

  // The zero point of a row's group. REQUIRES: zeros are stored.
  uint32_t Zero(int64_t row, int64_t group) const;

  // From now on the zeros count as 2^(bits - 1), whatever is stored.
  void SetSymmetric() { form_.offset = CodeOffset::kSymmetric; }

  const ModuleTensors& matrix() const { return matrix_; }

 private:
  void ReadCodes(int64_t first_row, int64_t rows, uint8_t* codes) const;
  void ReadScales(int64_t first_row, int64_t rows, float* scales) const;

  ModuleTensors matrix_;
  CodedForm form_;
  const TensorSource* source_;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_STORED_CODES_H_
