// From a path to an opened model, whatever its format and family.
//
//   absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint("models/tolstoy");
//   if (!checkpoint.ok()) return checkpoint.status();
//   LOG(INFO) << checkpoint->config.family << ", " << checkpoint->config.layers
//             << " layers";
//
// A path may be
//   a folder   config.json, model.safetensors (or shards with an index), and
//              perhaps generation_config.json, as Hugging Face lays them out
//   a .gguf    GGUF v2 or v3, recognised by its magic
//   a .nib     a packed model, recognised by its magic
//   a .bin     a llama2.c export (version 0)
//
// Everything is checked here once: configuration, names, shapes, dtypes. What
// OpenCheckpoint returns can be loaded. Unsupported architectures, formats and
// settings are errors that list what is supported.
#ifndef NIBBLE_MODELS_REGISTRY_H_
#define NIBBLE_MODELS_REGISTRY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/checkpoint.h"

namespace nibble {

absl::StatusOr<Checkpoint> OpenCheckpoint(const std::string& path);

// The values of `model_type` in config.json that can be opened, sorted.
std::vector<std::string> SupportedModelTypes();

}  // namespace nibble

#endif  // NIBBLE_MODELS_REGISTRY_H_
