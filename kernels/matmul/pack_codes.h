// Writes rounded weights into the packed form.
//
//   AlignedBuffer memory(layout.bytes());
//   for (int64_t first = 0; first < layout.outputs; first += 32) {
//     // ... round rows [first, first + 32) into codes, scales, zeros ...
//     PackCodes(layout, first, rows, {codes, scales, zeros}, memory.data());
//   }
//   PackedMatrix w = PackedMatrix::Own(layout, std::move(memory));
#ifndef NIBBLE_KERNELS_MATMUL_PACK_CODES_H_
#define NIBBLE_KERNELS_MATMUL_PACK_CODES_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "tensor/packed_layout.h"

namespace nibble {

// Rows of a matrix as integers: w[n][k] = scale * (code - zero), or with
// minimums scale * code + minimum, of the group that k is in.
struct CodedRows {
  absl::Span<const uint8_t> codes;  // [rows, inputs], one code a byte
  // [rows, groups], each representable in the layout's type of scale.
  absl::Span<const float> scales;
  // [rows, groups], 0..15; empty where the layout has none.
  absl::Span<const uint8_t> zeros;
  // [rows, groups], like the scales; empty where the layout has none.
  absl::Span<const float> minimums = {};
};

// Packs rows [first_output, first_output + rows) into their records of
// `matrix`, which holds layout.bytes(). Outputs past the matrix in its last
// record become zeros. Threads may pack disjoint rows at once.
// REQUIRES: an integer layout; first_output is a multiple of 32 and rows is
// too, or ends at layout.outputs; codes are in range.
void PackCodes(const PackedLayout& layout, int64_t first_output, int64_t rows,
               const CodedRows& coded, std::byte* matrix);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_PACK_CODES_H_
