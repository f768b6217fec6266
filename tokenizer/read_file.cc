#include "tokenizer/read_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// Ten times the largest tokenizer.json in use.
constexpr off_t kMaxFile = off_t{256} << 20;

}  // namespace

absl::StatusOr<std::string> ReadTokenizerFile(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  const auto closer = absl::MakeCleanup([file] { close(file); });
  struct stat info;
  if (fstat(file, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot stat ", path));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not a regular file"));
  }
  if (info.st_size == 0 || info.st_size > kMaxFile) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", info.st_size,
                     " bytes; a tokenizer file has 1 to ", kMaxFile));
  }
  std::string bytes(info.st_size, '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = read(file, &bytes[done], bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
    }
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat(path, " shrank while it was being read"));
    }
    done += got;
  }
  return bytes;
}

}  // namespace nibble
