// A read-only memory map of a whole file.
//
//   auto file = MappedFile::Open("model.safetensors");
//   if (!file.ok()) return file.status();
//   absl::Span<const std::byte> bytes = (*file)->bytes();
//
// Only regular, non-empty files open. A missing file, a directory, a FIFO or
// device, a loop of symbolic links, a file without permission and an empty file
// each give an error that names the path; none of them blocks.
//
// What is promised when the file changes while it is mapped:
//   - Replaced by rename (as package managers and this project's own writers
//     do): nothing happens, the map keeps showing the old file.
//   - Overwritten in place: readers may see old or new bytes. Lengths and
//     offsets that a reader checked are kept outside the map, so that the
//     values can be wrong but no access leaves the map.
//   - Truncated: touching a page past the new end ends the process with SIGBUS.
//     No portable program can prevent this short of copying the file.
// CheckUnchanged() tells the last two cases apart from health; call it after a
// long load.
#ifndef NIBBLE_TENSOR_MAPPED_FILE_H_
#define NIBBLE_TENSOR_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nibble {

class MappedFile {
 public:
  // How the bytes will be read, a hint for the kernel's read-ahead.
  enum class Access {
    kSequential,  // Once, front to back.
    kWillNeed,    // All of it, soon: start reading now.
    kRandom,      // Here and there.
  };

  // NotFound, PermissionDenied or InvalidArgument, as above.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(
      const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }

  // The file as it was when opened; starts at a page boundary.
  absl::Span<const std::byte> bytes() const { return bytes_; }

  void Advise(Access access) const;

  // Takes the pages that hold `range` out of this process's memory, for readers
  // of files larger than that. They come back when they are read again. What of
  // `range` lies outside the file is left alone.
  void Release(absl::Span<const std::byte> range) const;

  // Aborted when the file's size or modification time is no longer what it was
  // at Open.
  absl::Status CheckUnchanged() const;

 private:
  MappedFile(std::string path, int fd, absl::Span<const std::byte> bytes,
             int64_t modified_ns);

  std::string path_;
  int fd_;
  absl::Span<const std::byte> bytes_;
  int64_t modified_ns_;
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_MAPPED_FILE_H_
