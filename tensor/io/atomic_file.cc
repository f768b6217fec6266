#include "tensor/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// Linux writes at most 2 GiB less one page in one call.
constexpr size_t kLargestWrite = size_t{1} << 30;

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Flushes the folder's entry for a new name. Best effort: some file systems
// cannot, and the file itself is already safe.
void SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  (void)fsync(fd);
  close(fd);
}

absl::Status WriteError(const std::string& path, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", path));
}

absl::Status CheckReplaceable(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot write ", path, ": it exists and is no regular file"));
  }
  return absl::OkStatus();
}

// Apart from other processes and from other writers in this one.
std::string TemporaryName(const std::string& path) {
  static std::atomic<int> counter{0};
  return absl::StrCat(path, ".tmp-", getpid(), "-", counter.fetch_add(1));
}

// How the system names an open file, with a name or without.
std::string DescriptorPath(int fd) {
  return absl::StrCat("/proc/self/fd/", fd);
}

// -1 where the file system has no such files, or Commit could not link one.
int OpenWithoutName(const std::string& folder) {
  const int fd = open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  if (fd < 0) return -1;
  if (access(DescriptorPath(fd).c_str(), F_OK) == 0) return fd;
  close(fd);
  return -1;
}

}  // namespace

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  absl::Status status = CheckReplaceable(path);
  if (!status.ok()) return status;
  const int fd = OpenWithoutName(FolderOf(path));
  return fd < 0 ? CreateNamed(path) : AtomicFile(path, "", fd);
}

absl::StatusOr<AtomicFile> AtomicFile::CreateNamed(const std::string& path) {
  absl::Status status = CheckReplaceable(path);
  if (!status.ok()) return status;
  const std::string temporary = TemporaryName(path);
  const int fd =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return WriteError(temporary, errno);
  return AtomicFile(path, temporary, fd);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status AtomicFile::Reserve(uint64_t bytes) {
  CHECK_GE(fd_, 0);
  int result;
  do {
    result = fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
    const int error = errno;
    return WriteError(absl::StrCat(path_, ", which takes ", bytes, " bytes"),
                      error);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Append(absl::Span<const std::byte> bytes) {
  CHECK_GE(fd_, 0);
  while (!bytes.empty()) {
    const ssize_t written =
        write(fd_, bytes.data(), std::min(bytes.size(), kLargestWrite));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return WriteError(path_, written < 0 ? errno : ENOSPC);
    bytes.remove_prefix(static_cast<size_t>(written));
    appended_ += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::WriteAt(uint64_t offset,
                                 absl::Span<const std::byte> bytes) {
  CHECK_GE(fd_, 0);
  CHECK(offset <= appended_ && bytes.size() <= appended_ - offset);
  while (!bytes.empty()) {
    const ssize_t written =
        pwrite(fd_, bytes.data(), std::min(bytes.size(), kLargestWrite),
               static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return WriteError(path_, written < 0 ? errno : ENOSPC);
    bytes.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Link() {
  const std::string descriptor = DescriptorPath(fd_);
  std::string name = path_;
  while (linkat(AT_FDCWD, descriptor.c_str(), AT_FDCWD, name.c_str(),
                AT_SYMLINK_FOLLOW) != 0) {
    if (errno != EEXIST) return WriteError(name, errno);
    name = TemporaryName(path_);
  }
  if (name != path_) temporary_ = std::move(name);
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  CHECK_GE(fd_, 0);
  if (fsync(fd_) != 0) return WriteError(path_, errno);
  if (temporary_.empty()) {
    if (absl::Status status = Link(); !status.ok()) return status;
  }
  if (!temporary_.empty() && rename(temporary_.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot replace ", path_));
  }
  // Under its name: the data is safe whatever close says, and there is nothing
  // left to remove.
  close(std::exchange(fd_, -1));
  SyncFolder(FolderOf(path_));
  return absl::OkStatus();
}

}  // namespace nibble
