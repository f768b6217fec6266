// A digest of a checkpoint's configuration and of every tensor's name, shape
// and bytes: whether two runs quantize the same model.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_MODEL_DIGEST_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_MODEL_DIGEST_H_

#include <string>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"

namespace nibble {

// Reads all of the file, at the speed of the disk. 16 hexadecimal digits.
absl::StatusOr<std::string> ModelDigest(const Checkpoint& checkpoint,
                                        ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_MODEL_DIGEST_H_
