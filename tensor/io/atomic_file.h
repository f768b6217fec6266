// Writes a file so that readers see the old one or the whole new one.
//
//   absl::StatusOr<AtomicFile> file = AtomicFile::Create("model.safetensors");
//   if (!file.ok()) return file.status();
//   if (auto s = file->Append(header); !s.ok()) return s;
//   if (auto s = file->Append(data); !s.ok()) return s;
//   return file->Commit();
//
// The bytes go to a temporary file in the same folder, which Commit flushes to
// the disk and renames. Without a successful Commit (an error, a full disk, an
// early return) the destructor removes the temporary file, and the old file is
// as it was. A process that is killed leaves the temporary file behind,
// `<path>.tmp-<pid>-<n>`, and the old file intact.
#ifndef NIBBLE_TENSOR_IO_ATOMIC_FILE_H_
#define NIBBLE_TENSOR_IO_ATOMIC_FILE_H_

#include <cstddef>
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

  AtomicFile(AtomicFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::move(other.temporary_)),
        fd_(std::exchange(other.fd_, -1)) {}
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  absl::Status Append(absl::Span<const std::byte> bytes);
  absl::Status Append(absl::string_view text) {
    return Append(absl::MakeConstSpan(
        reinterpret_cast<const std::byte*>(text.data()), text.size()));
  }

  // Makes the file appear under its name. REQUIRES: not called before.
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

  std::string path_;
  std::string temporary_;
  int fd_;  // -1 once committed, failed or moved from.
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_ATOMIC_FILE_H_
