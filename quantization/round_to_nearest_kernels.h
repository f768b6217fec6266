// The loops over weights behind round_to_nearest.h, one set per instruction
// set.
#ifndef NIBBLE_QUANTIZATION_ROUND_TO_NEAREST_KERNELS_H_
#define NIBBLE_QUANTIZATION_ROUND_TO_NEAREST_KERNELS_H_

#include <cstdint>

namespace nibble {

struct GroupRange {
  float min = 0.0f;  // min(0, weights), or a NaN or infinity among them
  float max = 0.0f;  // max(0, weights), likewise
};

struct CodeGrid {
  float scale = 0.0f;  // not 0
  float zero = 0.0f;
  float min_code = 0.0f;
  float max_code = 0.0f;
};

// In units of scale^2.
struct GroupLoss {
  float error = 0.0f;
  float signal = 0.0f;
};

struct RoundingKernels {
  GroupRange (*range)(const float* weights, int64_t count);
  // codes[i] = clamp(round(weights[i] / scale) + zero).
  GroupLoss (*round)(const float* weights, int64_t count, const CodeGrid& grid,
                     uint8_t* codes);
};

const RoundingKernels& ActiveRoundingKernels();

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_ROUND_TO_NEAREST_KERNELS_H_
