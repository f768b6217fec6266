#include "tensor/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

int64_t ModifiedNs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

absl::string_view KindOf(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "no regular file";
}

absl::Status CheckMappable(const std::string& path, const struct stat& info) {
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " is ", KindOf(info.st_mode), ", a regular file is needed"));
  }
  if (info.st_size == 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is empty"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(
    const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("empty file name");
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("file name with a NUL byte: ", path.c_str()));
  }
  // O_NONBLOCK: opening a FIFO without a writer must not wait for one.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  absl::Cleanup close_fd = [fd] { close(fd); };

  struct stat info;
  if (fstat(fd, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot examine ", path));
  }
  if (absl::Status status = CheckMappable(path, info); !status.ok()) {
    return status;
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (memory == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
  }
  std::move(close_fd).Cancel();
  return std::shared_ptr<const MappedFile>(new MappedFile(
      path, fd,
      absl::MakeConstSpan(static_cast<const std::byte*>(memory), size),
      ModifiedNs(info)));
}

MappedFile::MappedFile(std::string path, int fd,
                       absl::Span<const std::byte> bytes, int64_t modified_ns)
    : path_(std::move(path)),
      fd_(fd),
      bytes_(bytes),
      modified_ns_(modified_ns) {}

MappedFile::~MappedFile() {
  munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  close(fd_);
}

void MappedFile::Advise(Access access) const {
  int advice = MADV_NORMAL;
  switch (access) {
    case Access::kSequential:
      advice = MADV_SEQUENTIAL;
      break;
    case Access::kWillNeed:
      advice = MADV_WILLNEED;
      break;
    case Access::kRandom:
      advice = MADV_RANDOM;
      break;
  }
  // A hint: failure changes nothing but speed.
  (void)madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), advice);
}

void MappedFile::Release(absl::Span<const std::byte> range) const {
  // As numbers: `range` may be part of another object.
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t start = reinterpret_cast<uintptr_t>(bytes_.data());
  const uintptr_t first = reinterpret_cast<uintptr_t>(range.data());
  const uintptr_t begin = std::max(start, first / page * page);
  const uintptr_t end = std::min(start + bytes_.size(), first + range.size());
  if (begin >= end) return;
  // Pages of a private map that was never written to hold nothing but the file.
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

absl::Status MappedFile::CheckUnchanged() const {
  struct stat info;
  if (fstat(fd_, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot examine ", path_));
  }
  if (static_cast<size_t>(info.st_size) != bytes_.size()) {
    return absl::AbortedError(
        absl::StrCat(path_, " changed from ", bytes_.size(), " to ",
                     info.st_size, " bytes while in use; load it again"));
  }
  if (ModifiedNs(info) != modified_ns_) {
    return absl::AbortedError(
        absl::StrCat(path_, " was written to while in use; load it again"));
  }
  return absl::OkStatus();
}

}  // namespace nibble
