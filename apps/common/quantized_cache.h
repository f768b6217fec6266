// Float checkpoints quantized once and kept in the user's cache, for
// --weights=int4 and --weights=int8.
//
//   absl::StatusOr<std::string> path = QuantizeIntoCache(
//       "models/smollm2.gguf", {/*bits=*/4, /*group_size=*/128}, pool,
//       [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
//   if (!path.ok()) return path.status();
//   options.model_path = *path;
//
// The file's name is made of what the model's files hold, of the options and of
// the version of the format, so that a changed model, another option or a newer
// program never meets an old file, and a model that was moved or copied is not
// quantized again. Contents are read once: what they hashed to is remembered by
// the file's device, inode, size and times. Nothing is ever removed from the
// folder; it may be emptied at any time.
#ifndef NIBBLE_APPS_COMMON_QUANTIZED_CACHE_H_
#define NIBBLE_APPS_COMMON_QUANTIZED_CACHE_H_

#include <string>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "quantization/flow.h"
#include "quantization/round_to_nearest.h"

namespace nibble {

// The path of the model at `model_path` as a .nib file, rounded to nearest with
// `options` and the output head kept, quantizing it if it is not in the cache.
// Any number of processes may ask at once: each finds or makes a whole file.
// `progress` is called while contents are read and while weights are rounded,
// and not at all for a model that is there; it may be null.
// Errors are those of QuantizeCheckpoint, and where the cache cannot be written
// they say what to do.
absl::StatusOr<std::string> QuantizeIntoCache(
    const std::string& model_path, const RoundingOptions& options,
    ThreadPool& pool, const QuantizationProgress& progress);

// ${XDG_CACHE_HOME:-~/.cache}/nibble/quantized; NotFound where neither
// XDG_CACHE_HOME nor HOME is set.
absl::StatusOr<std::string> QuantizedCacheFolder();

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_QUANTIZED_CACHE_H_
