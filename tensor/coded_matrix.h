// A weight matrix stored as small integers with scales, whatever file format
// it comes from: GPTQ, AWQ, AutoRound, compressed-tensors, GGUF.
//
//   const CodedMatrix* w =
//   source.FindCoded("model.layers.0.mlp.up_proj.weight"); const CodedForm&
//   form = w->form(); w->Read(first_row, rows, {codes, scales, offsets});
//
// Weights are [outputs, inputs]. Along a row, each group of `group_size` codes
// (the last may be shorter) shares a scale s and, by `offset`,
//
//   kSymmetric  w = s * (code - 2^(bits - 1))
//   kZeros      w = s * (code - zero), zero of the group
//   kMinimums   w = s * code + minimum, minimum of the group
//
// in float arithmetic, each operation rounded once. Scales may be negative.
#ifndef NIBBLE_TENSOR_CODED_MATRIX_H_
#define NIBBLE_TENSOR_CODED_MATRIX_H_

#include <cstdint>

#include "absl/types/span.h"

namespace nibble {

enum class CodeOffset { kSymmetric, kZeros, kMinimums };

struct CodedForm {
  int64_t outputs = 0;
  int64_t inputs = 0;
  int bits = 4;            // codes are below 2^bits; 2 to 8
  int64_t group_size = 0;  // in codes; at most `inputs`
  CodeOffset offset = CodeOffset::kSymmetric;
  // [inputs]: code j of a row belongs to input input_order[j], a permutation
  // that puts each group's codes side by side (GPTQ's act-order). Empty: code j
  // is that of input j. Lives as long as the matrix.
  absl::Span<const int32_t> input_order;

  int64_t groups() const { return (inputs + group_size - 1) / group_size; }
};

// Where Read writes. All row-major.
struct CodedRowsBuffer {
  // [rows, inputs], one code a byte; not written where it is empty.
  absl::Span<uint8_t> codes;
  absl::Span<float> scales;  // [rows, groups]
  // [rows, groups]: zeros (whole numbers from 0 to 2^bits - 1) or minimums;
  // not written, and may be empty, under kSymmetric.
  absl::Span<float> offsets;
};

// Immutable; may be read from several threads.
class CodedMatrix {
 public:
  virtual ~CodedMatrix() = default;

  virtual const CodedForm& form() const = 0;

  // Bytes it takes in the file, scales and all.
  virtual int64_t stored_bytes() const = 0;

  // Rows [first_row, first_row + rows). REQUIRES: they exist, and the buffer
  // has the sizes above. What was stored is not judged: scales and minimums may
  // be NaN or infinite.
  virtual void Read(int64_t first_row, int64_t rows,
                    const CodedRowsBuffer& out) const = 0;

  // The matrix was read and takes up no more memory until it is read again:
  // TensorSource::Release of all that it is stored in.
  virtual void Release() const {}
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_CODED_MATRIX_H_
