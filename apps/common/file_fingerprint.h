// What files hold, as hashes, without reading a file twice.
//
//   FileFingerprints fingerprints(cache_folder + "/hashes");
//   absl::StatusOr<uint64_t> hash = fingerprints.Hash("model.gguf", nullptr);
//
// A file's hash is remembered under its device, inode, size, and times of
// modification and change; a file of which any of these differs is read again.
#ifndef NIBBLE_APPS_COMMON_FILE_FINGERPRINT_H_
#define NIBBLE_APPS_COMMON_FILE_FINGERPRINT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace nibble {

class FileFingerprints {
 public:
  // Remembers in small files in `folder`, which is made when it is needed. A
  // folder that cannot be used costs time and nothing else.
  explicit FileFingerprints(std::string folder) : folder_(std::move(folder)) {}

  // ContentHash of the file. `progress`, which may be null, is given the bytes
  // read so far and the file's size; it is not called for a hash that is
  // remembered. Aborted when the file is written to meanwhile.
  absl::StatusOr<uint64_t> Hash(
      const std::string& path,
      const std::function<void(int64_t done, int64_t total)>& progress) const;

 private:
  const std::string folder_;
};

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_FILE_FINGERPRINT_H_
