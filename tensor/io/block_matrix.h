// A matrix of Q4_0, Q4_1, Q4_K or Q8_0 blocks (tensor/block_format.h) as codes.
//
//   std::unique_ptr<const CodedMatrix> w = MakeBlockMatrix(view, source);
//   if (w != nullptr) w->Read(0, 32, buffer);
//
//   q4_0  4 bits, kSymmetric
//   q4_1  4 bits, kMinimums
//   q4_k  4 bits, kMinimums: the scale is d * scale(j) of the sub-block, the
//         minimum -(dmin * min(j)); both products are exact
//   q8_0  8 bits, kSymmetric: the stored signed number + 128
//
// Groups are of 32.
#ifndef NIBBLE_TENSOR_IO_BLOCK_MATRIX_H_
#define NIBBLE_TENSOR_IO_BLOCK_MATRIX_H_

#include <memory>

#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {

// Null for another dtype, and for a tensor that is no matrix or has no
// elements. `source`, which `view` comes from, must outlive the result.
std::unique_ptr<const CodedMatrix> MakeBlockMatrix(const TensorView& view,
                                                   const TensorSource& source);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_BLOCK_MATRIX_H_
