// The flags by which programs open an engine: --threads, --isa, --weights,
// --group_size, --symmetric, --activations, --kv_cache; and --model.
//
//   absl::StatusOr<std::unique_ptr<Engine>> engine = OpenEngineFromFlags();
#ifndef NIBBLE_APPS_COMMON_ENGINE_FLAGS_H_
#define NIBBLE_APPS_COMMON_ENGINE_FLAGS_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/engine.h"

namespace nibble {

// The options as the flags give them, without a model path. Errors name the
// flag: values that mean nothing, values that this version does not support
// yet, and values that contradict each other.
absl::StatusOr<EngineOptions> EngineOptionsFromFlags();

// Limits dispatch to --isa (process-wide) and opens --model, with a progress
// bar on a terminal.
absl::StatusOr<std::unique_ptr<Engine>> OpenEngineFromFlags();

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_ENGINE_FLAGS_H_
