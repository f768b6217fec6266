// The bytes of a packed weight matrix: what the .nib file stores, what matrix
// products read in place, on every ISA alike.
//
//   absl::StatusOr<PackedLayout> layout = PackedLayout::Create(
//       WeightFormat::kInt4, /*outputs=*/5632, /*inputs=*/2048,
//       /*group_size=*/128, /*symmetric=*/false);
//   AlignedBuffer memory(layout->bytes());
//
// Weights W are [outputs, inputs]; y = x W^T. Outputs go in records of 32 for
// the integer formats (two tiles of 16, A and B) and of 16 for the float ones
// (one tile), records one after another, outputs beyond the matrix padded with
// zeros. All numbers are little-endian, every part starts at a multiple of 64
// bytes.
//
// A record of kF32 or kBF16, `steps` rows of 64 bytes:
//
//   f32   step s: w[0][s] w[1][s] ... w[15][s]
//   bf16  step s: w[0][2s] w[0][2s+1] w[1][2s] ... w[15][2s+1]
//
// A record of kInt4 or kInt8, along K in groups of `group_size` inputs (the
// last may be shorter):
//
//   scales  [groups][32]  f16, or f32 if wide_scales: outputs 0..31
//   zeros   [groups][16]  bytes, asymmetric kInt4 only, padded to 64: byte c
//                         holds the zero point of output c in its low nibble,
//                         of output 16 + c in its high one
//   minimums  [groups][32]  kInt4 with minimums only, which has no zeros: of
//                         the type of the scales
//   codes   [chunks][2][64]  bytes: chunk, tile (A, then B). A chunk is 8
//                         inputs of kInt4, 4 of kInt8. Of chunk k, byte
//                         4 c + i (c = 0..15, i = 0..3) of a tile holds
//             kInt4: code[c][8k + i] in the low nibble, code[c][8k + 4 + i] in
//                    the high one
//             kInt8: code[c][4k + i]
//
// and w[n][k] = scale * (code - zero), exactly, with zero = 8 (kInt4) or 128
// (kInt8) where the format is symmetric; with minimums it is scale * code +
// minimum, rounded once. Codes beyond `inputs` are the zero point, or 0.
#ifndef NIBBLE_TENSOR_PACKED_LAYOUT_H_
#define NIBBLE_TENSOR_PACKED_LAYOUT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// The values are part of the .nib format.
enum class WeightFormat : uint8_t { kF32 = 0, kBF16 = 1, kInt8 = 2, kInt4 = 3 };

// "f32", "bf16", "int8", "int4".
absl::string_view WeightFormatName(WeightFormat format);
// The reverse; InvalidArgument lists the names.
absl::StatusOr<WeightFormat> ParseWeightFormat(absl::string_view name);

constexpr bool IsInteger(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
}

inline constexpr int64_t kPackedTileOutputs = 16;
inline constexpr int64_t kPackedLineBytes = 64;
// Group sizes are multiples of it, so that a group is whole chunks.
inline constexpr int64_t kGroupSizeUnit = 32;

struct PackedLayout {
  WeightFormat format = WeightFormat::kF32;
  int64_t outputs = 0;
  int64_t inputs = 0;
  // Of the integer formats: inputs that share a scale, a multiple of 32 or
  // `inputs` (one group per output). 0 for the float formats.
  int64_t group_size = 0;
  // Of the integer formats. kInt8 is always symmetric.
  bool symmetric = true;
  // Scales and minimums are f32 instead of f16: for a matrix with one outside
  // f16's normal range.
  bool wide_scales = false;
  // Of kInt4, not together with `symmetric`: groups have minimums instead of
  // zero points.
  bool minimums = false;

  // A group size of at least `inputs` becomes `inputs`. InvalidArgument, saying
  // which: a size below 1 or so large that bytes() would pass 2^46, a group
  // size that is not a multiple of 32, asymmetric kInt8, group options on a
  // float format (pass group_size 0 and symmetric true there), kInt8 groups
  // above 65536 (their integer sums could overflow).
  static absl::StatusOr<PackedLayout> Create(WeightFormat format,
                                             int64_t outputs, int64_t inputs,
                                             int64_t group_size = 0,
                                             bool symmetric = true,
                                             bool wide_scales = false);
  // The same of all fields. InvalidArgument also: minimums with `symmetric` or
  // a format other than kInt4.
  static absl::StatusOr<PackedLayout> Checked(const PackedLayout& wanted);

  bool has_zeros() const {
    return IsInteger(format) && !symmetric && !minimums;
  }
  bool has_minimums() const { return minimums; }
  // What is subtracted from codes where no zero points are stored.
  int64_t symmetric_zero() const {
    return has_minimums() ? 0 : format == WeightFormat::kInt8 ? 128 : 8;
  }

  int64_t record_outputs() const {
    return IsInteger(format) ? 2 * kPackedTileOutputs : kPackedTileOutputs;
  }
  int64_t records() const {
    return (outputs + record_outputs() - 1) / record_outputs();
  }
  // Groups along a row; 1 for the float formats.
  int64_t groups() const {
    return IsInteger(format) ? (inputs + group_size - 1) / group_size : 1;
  }
  // Inputs per 64 bytes of a tile.
  int64_t chunk_inputs() const;
  int64_t chunks() const {
    return (inputs + chunk_inputs() - 1) / chunk_inputs();
  }

  // Byte offsets within a record of the integer formats.
  int64_t scale_bytes() const { return wide_scales ? 4 : 2; }
  int64_t zeros_offset() const {
    return IsInteger(format) ? groups() * 32 * scale_bytes() : 0;
  }
  int64_t minimums_offset() const { return zeros_offset(); }
  int64_t codes_offset() const {
    if (has_minimums()) return 2 * minimums_offset();
    if (!has_zeros()) return zeros_offset();
    return zeros_offset() + (groups() * 16 + 63) / 64 * 64;
  }
  int64_t record_bytes() const {
    return codes_offset() +
           chunks() * kPackedLineBytes * (IsInteger(format) ? 2 : 1);
  }
  int64_t bytes() const { return records() * record_bytes(); }

  friend bool operator==(const PackedLayout& a, const PackedLayout& b) {
    return a.format == b.format && a.outputs == b.outputs &&
           a.inputs == b.inputs && a.group_size == b.group_size &&
           a.symmetric == b.symmetric && a.wide_scales == b.wide_scales &&
           a.minimums == b.minimums;
  }
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_PACKED_LAYOUT_H_
