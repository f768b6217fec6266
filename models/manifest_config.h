// A decoder's configuration as a .nib file's manifest holds it.
//
//   ToManifest(checkpoint.config, manifest.mutable_config());
//   absl::StatusOr<DecoderConfig> config =
//       FromManifest(file->manifest().config(), file->path());
#ifndef NIBBLE_MODELS_MANIFEST_CONFIG_H_
#define NIBBLE_MODELS_MANIFEST_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "models/decoder_config.h"
#include "tensor/io/packed_manifest.pb.h"

namespace nibble {

// Sets every field of `manifest`; what it held before is gone.
void ToManifest(const DecoderConfig& config, ModelConfig* manifest);

// InvalidArgument, naming `source` and the field: a field is missing or has a
// value that this version does not know, or the numbers do not fit together
// (ValidateDecoderConfig).
absl::StatusOr<DecoderConfig> FromManifest(const ModelConfig& manifest,
                                           const std::string& source);

}  // namespace nibble

#endif  // NIBBLE_MODELS_MANIFEST_CONFIG_H_
