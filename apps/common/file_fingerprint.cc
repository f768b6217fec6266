#include "apps/common/file_fingerprint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "apps/common/content_hash.h"
#include "tensor/io/atomic_file.h"

namespace nibble {
namespace {

constexpr size_t kPieceBytes = 4 << 20;

// File systems stamp times by the kernel's tick, at most 10 ms. A file that was
// written to this recently may change once more under the same stamp.
constexpr int64_t kSettledNs = 100'000'000;

int64_t Nanoseconds(const struct timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

std::string KeyOf(const struct stat& info) {
  return absl::StrCat(info.st_dev, "-", info.st_ino, "-", info.st_size, "-",
                      Nanoseconds(info.st_mtim), "-",
                      Nanoseconds(info.st_ctim));
}

bool IsSettled(const struct stat& info) {
  const int64_t now = absl::GetCurrentTimeNanos();
  return now - Nanoseconds(info.st_mtim) > kSettledNs &&
         now - Nanoseconds(info.st_ctim) > kSettledNs;
}

// A missing or broken memory is none.
std::optional<uint64_t> Recall(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  uint64_t hash = 0;
  if (!std::getline(file, text) || text.size() != 16 ||
      !absl::SimpleHexAtoi(text, &hash)) {
    return std::nullopt;
  }
  return hash;
}

void Remember(const std::string& folder, const std::string& path,
              uint64_t hash) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  if (!file.ok()) return;
  const absl::Status written =
      file->Append(absl::StrCat(absl::Hex(hash, absl::kZeroPad16), "\n"));
  if (written.ok()) file->Commit().IgnoreError();
}

}  // namespace

absl::StatusOr<uint64_t> FileFingerprints::Hash(
    const std::string& path,
    const std::function<void(int64_t done, int64_t total)>& progress) const {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  const absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat before, after;
  if (fstat(fd, &before) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot examine ", path));
  }
  const std::string key = KeyOf(before);
  const std::string memory = absl::StrCat(folder_, "/", key);
  if (const auto hash = Recall(memory); hash.has_value()) return *hash;

  ContentHash hash;
  std::vector<char> piece(kPieceBytes);
  int64_t done = 0;
  while (true) {
    const ssize_t count = read(fd, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
    }
    if (count == 0) break;
    hash.Add(absl::string_view(piece.data(), static_cast<size_t>(count)));
    done += count;
    if (progress) progress(done, before.st_size);
  }
  if (fstat(fd, &after) != 0 || KeyOf(after) != key) {
    return absl::AbortedError(
        absl::StrCat(path, " was written to while it was read; try again"));
  }
  if (IsSettled(after)) Remember(folder_, memory, hash.Result());
  return hash.Result();
}

}  // namespace nibble
