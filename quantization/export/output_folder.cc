#include "quantization/export/output_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

absl::Status Failed(absl::string_view what, const std::string& path,
                    const std::error_code& error) {
  return absl::ErrnoToStatus(error.value(),
                             absl::StrCat("cannot ", what, " folder ", path));
}

std::string TemporaryPrefix(const std::string& target) {
  return absl::StrCat(target, ".nibble-tmp-");
}

// The folder, open and locked; -1: locked by another, or it cannot be locked.
// The lock goes with the descriptor, however its process ends.
int Lock(const std::string& folder) {
  const int fd =
      open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

// What killed runs left beside `target`.
void RemoveStale(const std::string& target) {
  const std::string prefix = TemporaryPrefix(target);
  const fs::path parent = fs::path(target).parent_path();
  std::error_code error;
  fs::directory_iterator entry(parent.empty() ? fs::path(".") : parent, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const fs::path& path = entry->path();
    const std::string name = path.filename().string();
    absl::string_view number = name;
    pid_t pid = 0;
    if (!absl::ConsumePrefix(&number, fs::path(prefix).filename().string()) ||
        !absl::SimpleAtoi(number, &pid) || pid <= 0) {
      continue;
    }
    const bool gone = kill(pid, 0) != 0 && errno == ESRCH;
    if (!gone && pid != getpid()) continue;
    const int lock = Lock(path.string());
    if (lock < 0) continue;
    std::error_code ignored;
    fs::remove_all(path, ignored);
    close(lock);
  }
}

}  // namespace

absl::StatusOr<OutputFolder> OutputFolder::Create(const std::string& name) {
  absl::string_view plain = name;
  while (plain.size() > 1 && absl::ConsumeSuffix(&plain, "/")) {
  }
  const std::string target(plain);
  std::error_code error;
  if (fs::exists(target, error) &&
      (!fs::is_directory(target, error) || !fs::is_empty(target, error))) {
    return absl::InvalidArgumentError(
        absl::StrCat(name,
                     ": is there already; give the name of a new folder, or an "
                     "empty one"));
  }
  RemoveStale(target);
  const std::string path = absl::StrCat(TemporaryPrefix(target), getpid());
  if (!fs::create_directory(path, error)) {
    if (!error) error = std::make_error_code(std::errc::file_exists);
    return Failed("make", path, error);
  }
  return OutputFolder(target, path, Lock(path));
}

OutputFolder::~OutputFolder() {
  std::error_code error;
  if (!path_.empty()) fs::remove_all(path_, error);
  if (lock_ >= 0) close(lock_);
}

absl::Status OutputFolder::Commit() {
  std::error_code error;
  fs::rename(path_, name_, error);  // takes the place of an empty folder
  if (error) return Failed("rename to", name_, error);
  path_.clear();
  return absl::OkStatus();
}

}  // namespace nibble
