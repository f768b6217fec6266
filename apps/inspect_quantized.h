// What `inspect` says of a checkpoint that others have quantized.
#ifndef NIBBLE_APPS_INSPECT_QUANTIZED_H_
#define NIBBLE_APPS_INSPECT_QUANTIZED_H_

#include "apps/common/json.h"
#include "models/checkpoint.h"

namespace nibble {

// Adds "quantization", what the checkpoint says of itself, and the check
// "weights": how many matrices a decoder holds as what, and which it can only
// hold as f32. Nothing of a checkpoint of floats.
void AddQuantized(Json& report, const Checkpoint& checkpoint);

}  // namespace nibble

#endif  // NIBBLE_APPS_INSPECT_QUANTIZED_H_
