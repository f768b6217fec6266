// Writes a file so that readers see the old one or the whole new one.
//
//   absl::StatusOr<AtomicFile> file = AtomicFile::Create("model.safetensors");
//   if (!file.ok()) return file.status();
//   if (auto s = file->Append(header); !s.ok()) return s;
//   if (auto s = file->Append(data); !s.ok()) return s;
//   return file->Commit();
//
// The bytes go to a file without a name in the same folder (O_TMPFILE), which
// Commit flushes to the disk and links under the name. Without a successful
// Commit (an error, a full disk, an early return, a process that is killed) the
// system takes the file back, and what stood under the name is as it was. Where
// something stands there already, the new file first gets the name
// `<path>.tmp-<pid>-<n>` and is then renamed: a kill exactly in between leaves
// it behind. Where the file system has no files without names, it has that name
// from the start; the destructor removes it, and only a kill leaves it.
#ifndef NIBBLE_TENSOR_IO_ATOMIC_FILE_H_
#define NIBBLE_TENSOR_IO_ATOMIC_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble {

class AtomicFile {
 public:
  // InvalidArgument when `path` exists and is no regular file: replacing a
  // device or a folder is never meant.
  static absl::StatusOr<AtomicFile> Create(const std::string& path);

  // As Create, with a temporary name from the start: what Create does where it
  // has to, for its test.
  static absl::StatusOr<AtomicFile> CreateNamed(const std::string& path);

  AtomicFile(AtomicFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::move(other.temporary_)),
        fd_(std::exchange(other.fd_, -1)),
        appended_(other.appended_) {}
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  absl::Status Append(absl::Span<const std::byte> bytes);
  absl::Status Append(absl::string_view text) {
    return Append(absl::MakeConstSpan(
        reinterpret_cast<const std::byte*>(text.data()), text.size()));
  }

  // Takes room on the disk for a file of `bytes` in all, so that a full disk is
  // known before the work. ResourceExhausted. File systems that cannot do so
  // are silent.
  absl::Status Reserve(uint64_t bytes);

  // Overwrites what Append wrote. REQUIRES: it is all within that.
  absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> bytes);

  const std::string& path() const { return path_; }

  // Makes the file appear under its name. REQUIRES: not called before.
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

  // Gives the file without a name one; in place of a file that is there, or in
  // temporary_.
  absl::Status Link();

  std::string path_;
  std::string temporary_;  // Empty while the file has no name.
  int fd_;                 // -1 once committed, failed or moved from.
  uint64_t appended_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_ATOMIC_FILE_H_
