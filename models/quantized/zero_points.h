// What the zero points of a stored matrix turn out to be, whatever the settings
// say of them.
//
//   switch (JudgeZeros(matrix, /*declared_symmetric=*/true)) ...
#ifndef NIBBLE_MODELS_QUANTIZED_ZERO_POINTS_H_
#define NIBBLE_MODELS_QUANTIZED_ZERO_POINTS_H_

#include "models/quantized/stored_codes.h"

namespace nibble {

enum class ZeroPoints {
  kMiddle,  // all are 2^(bits - 1), or none are stored: symmetric
  // Declared symmetric, and all are one off the middle: GPTQ's other version,
  // which stores them one more or one less. They are meant as the middle.
  kMislabelled,
  kNotSymmetric,  // declared symmetric, and of other values
  // Of GPTQ's first version, and some decode to 0. Writers do not agree on how
  // 0 less one is stored; what is read may be 0, or neighbours off by one.
  kAmbiguous,
  kPlain,  // as declared: not symmetric
};

// Reads all zeros, unless their first words show that they differ.
ZeroPoints JudgeZeros(const StoredCodes& codes, bool declared_symmetric);

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_ZERO_POINTS_H_
