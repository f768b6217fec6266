// Reads model.safetensors.index.json, which says in which shard each tensor is.
//
//   {"metadata": {...}, "weight_map": {"a.weight":
//   "model-00001-of-00002.safetensors"}}
//
// Everything but weight_map is ignored. Refused: text that is not JSON or too
// deep, no weight_map or two of them, a tensor named twice, and a shard that is
// not a plain file name (a path separator, "..", an absolute path).
#ifndef NIBBLE_TENSOR_IO_SAFETENSORS_INDEX_H_
#define NIBBLE_TENSOR_IO_SAFETENSORS_INDEX_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// Tensor name to file name of its shard. `path` is the index's name in
// messages.
absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsIndex(
    absl::string_view path, absl::string_view json);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_SAFETENSORS_INDEX_H_
