// What the passes of one layer need to know beside its weights.
#ifndef NIBBLE_QUANTIZATION_BLOCK_BLOCK_SHAPE_H_
#define NIBBLE_QUANTIZATION_BLOCK_BLOCK_SHAPE_H_

#include <cstdint>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "models/decoder_config.h"

namespace nibble {

struct BlockShape {
  BlockShape(const DecoderConfig& config, int64_t layer, int64_t length,
             GemmPrecision precision);

  DecoderConfig config;
  int64_t window = 0;  // of this layer
  int64_t length = 0;  // tokens of a sequence
  GemmPrecision precision = GemmPrecision::kF32;
  double score_scale = 1;           // 1 / sqrt(head_dim)
  std::vector<float> alibi_slopes;  // [heads] or empty
  int64_t pairs = 0;                // rotary_dims / 2; 0: no rotary embedding
  std::vector<float> cosines;       // [length, pairs]
  std::vector<float> sines;         // [length, pairs]
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_BLOCK_SHAPE_H_
