// Rounding that training can see through: what a group of weights becomes on
// its grid, and how the loss changes with the grid.
//
// With the shift V of a weight in steps of the grid (SignRound's variable, 0
// for plain rounding), its code and value are
//
//   code = clamp(round((w - minimum) / scale + V) + zero)
//   ŵ    = scale * (code - zero) + minimum
//
// where minimum is 0 but for CodeOffset::kMinimums, and zero is 0 there.
// Shifts are fixed-point numbers, kShiftOne for a whole step: signed descent
// takes known steps, so that 16 bits lose nothing and halve the memory.
#ifndef NIBBLE_QUANTIZATION_TUNING_FAKE_QUANT_H_
#define NIBBLE_QUANTIZATION_TUNING_FAKE_QUANT_H_

#include <cstdint>

#include "quantization/rounding/grid.h"

namespace nibble {

// Shifts reach up to two steps: one that another method began with, and half a
// step of training to either side (200 iterations at the default rate sum up to
// 0.5025). At the end of its reach a shift stays.
inline constexpr int kShiftOne = 16384;

// GroupGrid in the form that the loops read.
struct FakeQuantGrid {
  float scale = 0;  // 0: every value is `minimum`
  float zero = 0;
  float minimum = 0;
  float min_code = 0;
  float max_code = 0;
};

FakeQuantGrid FakeQuantGridOf(const GroupGrid& grid, const GridSpec& spec);

// Sums over a group, G the gradient with respect to ŵ and m = 1 where the code
// was not clamped, 0 where it was. Roundings have the gradient of the identity.
struct FakeQuantSums {
  float scale = 0;    // G * ((code - zero) - m * (w - minimum) / scale)
  float clamped = 0;  // G * (1 - m)
};

// One set per instruction set. `shifts` may be null: no shifts.
struct FakeQuantKernels {
  // values[i] = ŵ.
  void (*decode)(const float* weights, const int16_t* shifts, int64_t count,
                 const FakeQuantGrid& grid, float* values);
  void (*encode)(const float* weights, const int16_t* shifts, int64_t count,
                 const FakeQuantGrid& grid, uint8_t* codes);
  // shifts[i] -= step * sign(dLoss/dV) with dLoss/dV = G * m * scale. The
  // sums are those before the step.
  FakeQuantSums (*descend)(const float* weights, const float* gradient,
                           int64_t count, const FakeQuantGrid& grid, int step,
                           int16_t* shifts);
};

const FakeQuantKernels& ActiveFakeQuantKernels();

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TUNING_FAKE_QUANT_H_
