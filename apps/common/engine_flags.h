// The flags by which programs open an engine: --threads, --isa, --activations,
// --kv_cache; those of weight_flags.h; and --model.
//
//   absl::StatusOr<std::unique_ptr<Engine>> engine = OpenEngineFromFlags();
#ifndef NIBBLE_APPS_COMMON_ENGINE_FLAGS_H_
#define NIBBLE_APPS_COMMON_ENGINE_FLAGS_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/engine.h"

namespace nibble {

// Limits dispatch to --isa (process-wide).
absl::Status ApplyIsaFlag();

// The options as the flags give them, without a model path. Errors name the
// flag: values that mean nothing, and values that contradict each other.
absl::StatusOr<EngineOptions> EngineOptionsFromFlags();

// Limits dispatch to --isa and opens --model, with a progress bar on a
// terminal.
// --weights=int4 and int8 quantize a checkpoint first, unless the user's cache
// has it already.
absl::StatusOr<std::unique_ptr<Engine>> OpenEngineFromFlags();

// Opens options.model_path, with a progress bar on a terminal and warnings on
// standard error.
absl::StatusOr<std::unique_ptr<Engine>> OpenEngineWithBar(
    EngineOptions options);

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_ENGINE_FLAGS_H_
