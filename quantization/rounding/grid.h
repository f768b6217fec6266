// The numbers that a group of weights may become.
//
//   GridSpec spec;                                   // INT4, zeros, 128
//   GroupGrid grid = FitGroup(weights, spec);        // round to nearest's
//   uint8_t code = EncodeWeight(w, grid, spec);
//   float decoded = DecodeWeight(code, grid, spec);
//
// A row is cut into groups of `group_size` inputs, the last of which may be
// shorter. What a code stands for is that of tensor/coded_matrix.h:
//
//   kSymmetric  scale * (code - 2^(bits - 1)), the scale may be negative
//   kZeros      scale * (code - zero), zero a whole number among the codes
//   kMinimums   scale * code + minimum
//
// Scales and minimums are rounded to f16 where they are 0 or normal numbers
// there, else they stay f32, before anything is divided by them. Weights are
// finite, of magnitude at most kMaxRoundedWeight
// (quantization/round_to_nearest.h).
#ifndef NIBBLE_QUANTIZATION_ROUNDING_GRID_H_
#define NIBBLE_QUANTIZATION_ROUNDING_GRID_H_

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "tensor/coded_matrix.h"

namespace nibble {

struct GridSpec {
  int bits = 4;  // 2, 3, 4 or 8; 8 bits are always kSymmetric
  // A positive multiple of 32. From the number of inputs on, the whole row
  // (kWholeRow in quantization/round_to_nearest.h).
  int64_t group_size = 128;
  CodeOffset offset = CodeOffset::kZeros;

  int max_code() const { return (1 << bits) - 1; }
  // Codes of 8 bits are 1 to 255, as far to either side of 128.
  int min_code() const { return bits == 8 ? 1 : 0; }
  int middle_code() const { return 1 << (bits - 1); }
  // Inputs of a group, and groups along a row.
  int64_t group_inputs(int64_t inputs) const {
    return std::min(group_size, inputs);
  }
  int64_t groups(int64_t inputs) const {
    const int64_t size = group_inputs(inputs);
    return (inputs + size - 1) / size;
  }
};

// InvalidArgument, saying what is allowed.
absl::Status CheckGridSpec(const GridSpec& spec);

struct GroupGrid {
  float scale = 0;   // 0: every code stands for 0 (for `offset` of kMinimums)
  float offset = 0;  // zero or minimum; the middle code of kSymmetric
};

// The grid from the extremes of the weights, as round_to_nearest.h has it
// (kMinimums: minimum = the least weight, scale = range / max_code).
GroupGrid FitGroup(absl::Span<const float> weights, const GridSpec& spec);

// The same for weights from `low` to `high`. REQUIRES: low <= high; and unless
// the grid has minimums, low <= 0 <= high.
GroupGrid FitRange(double low, double high, const GridSpec& spec);

// FitGroup with a range drawn in to `ratio` of itself, 0 < ratio <= 1: towards
// 0, or under kMinimums towards its middle. Codes of weights beyond it clamp.
GroupGrid FitClippedGroup(absl::Span<const float> weights, float ratio,
                          const GridSpec& spec);

// What a scale or minimum becomes when it is stored, as above. A number too
// small for a float becomes its smallest.
float StoredParameter(double exact);

// The nearest code, ties to even before the offset is added, clamped.
uint8_t EncodeWeight(float weight, const GroupGrid& grid, const GridSpec& spec);
float DecodeWeight(uint8_t code, const GroupGrid& grid, const GridSpec& spec);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_ROUNDING_GRID_H_
