// How many tensors of which type a file holds, for the report of `inspect`.
#ifndef NIBBLE_APPS_INSPECT_TYPES_H_
#define NIBBLE_APPS_INSPECT_TYPES_H_

#include "apps/common/json.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

// {"q4_0": "42 tensors, kept as codes", "q6_k": "1 tensor, dequantized",
//  "f32": "13 tensors"}: the types of which `source` has tensors. One that
// nibble does not have is "?": their names stand in the list of tensors.
Json TensorTypes(const TensorSource& source);

}  // namespace nibble

#endif  // NIBBLE_APPS_INSPECT_TYPES_H_
