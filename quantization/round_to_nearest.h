// Rounds the rows of a weight matrix to integers: RTN, the method that needs no
// data, and the last step of every other one.
//
//   absl::StatusOr<PackedLayout> layout =
//       RoundedLayout({/*bits=*/4, /*group_size=*/128}, outputs, inputs);
//   if (!layout.ok()) return layout.status();
//   for (absl::Span<const float> row : rows) {
//     layout->wide_scales |= SurveyRow(row, *layout).needs_wide_scales;
//   }
//   RoundRow(rows[0], *layout, {codes, scales, zeros});
//
// A row is cut into groups of `group_size` inputs, the last of which may be
// shorter. A group is decoded as w = scale * (code - zero). With wmin = min(0,
// weights) and wmax = max(0, weights), its grid is
//
//   4 bits              scale = (wmax - wmin) / 15
//                       zero  = round(-wmin / scale), 0..15
//   4 bits, symmetric   scale = -extreme / 8, where extreme is the weight
//                       furthest from zero; so the scale may be negative
//                       zero  = 8; the extreme has code 0
//   8 bits              scale = max(-wmin, wmax) / 127
//                       zero  = 128, codes 1..255
//
//   code = clamp(round(w / scale) + zero)
//
// and a group of zeros has scale 0 and decodes to zeros. Ties go to even. The
// scale is rounded to the type it is stored in before anything is divided by
// it: f16, or f32 where the matrix has `wide_scales`. docs/quantization.md
// compares the grids.
//
// Denormal weights are kept: a scale that is too small for f16's normal range
// makes the matrix wide, and one too small for f32 becomes f32's smallest
// number, on whose multiples such weights lie.
#ifndef NIBBLE_QUANTIZATION_ROUND_TO_NEAREST_H_
#define NIBBLE_QUANTIZATION_ROUND_TO_NEAREST_H_

#include <cstdint>
#include <limits>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "tensor/packed_layout.h"

namespace nibble {

// A group size: one scale for each row.
inline constexpr int64_t kWholeRow = std::numeric_limits<int64_t>::max();

struct RoundingOptions {
  int bits = 4;  // 4 or 8
  // A positive multiple of 32. From the number of inputs on, the whole row.
  int64_t group_size = 128;
  bool symmetric = false;  // 8 bits are always symmetric
};

// The layout of a rounded matrix, without wide scales. InvalidArgument, saying
// what is allowed, for options outside the above.
absl::StatusOr<PackedLayout> RoundedLayout(const RoundingOptions& options,
                                           int64_t outputs, int64_t inputs);

// The largest magnitude that can be rounded. A grid reaches up to a step beyond
// its weights, and nothing that a code stands for may be infinite.
inline constexpr float kMaxRoundedWeight = 0x1p126f;

struct RowSurvey {
  // Every weight is a number of magnitude at most kMaxRoundedWeight.
  bool in_range = true;
  // A scale is neither 0 nor in f16's normal range, 2^-14 to 65504.
  bool needs_wide_scales = false;
};

// What must be known of every row before the first one is rounded. Does not
// read layout.wide_scales. REQUIRES: row.size() == layout.inputs.
RowSurvey SurveyRow(absl::Span<const float> row, const PackedLayout& layout);

struct RoundedRow {
  absl::Span<uint8_t> codes;  // [inputs]
  absl::Span<float> scales;   // [groups], exact in the stored type
  absl::Span<uint8_t> zeros;  // [groups]; empty unless layout.has_zeros()
};

// Sums over weights, for the relative error sqrt(error / signal).
struct RoundingLoss {
  double error = 0;   // of (w - decoded w)^2
  double signal = 0;  // of w^2
};

// Rounds one row. Calls on separate rows may run at the same time.
// REQUIRES: the row is in range; layout.wide_scales if SurveyRow asks for it.
RoundingLoss RoundRow(absl::Span<const float> row, const PackedLayout& layout,
                      const RoundedRow& out);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_ROUND_TO_NEAREST_H_
