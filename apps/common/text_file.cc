#include "apps/common/text_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

constexpr size_t kChunkBytes = 1 << 16;

// Leaves standard input open.
struct Closer {
  void operator()(std::FILE* file) const {
    if (file != stdin) std::fclose(file);
  }
};
using File = std::unique_ptr<std::FILE, Closer>;

absl::Status SystemError(const std::string& path, int error) {
  return absl::ErrnoToStatus(error,
                             absl::StrCat(path, ": ", std::strerror(error)));
}

absl::StatusOr<File> OpenForReading(const std::string& path) {
  File file(path == "-" ? stdin : std::fopen(path.c_str(), "rb"));
  if (file == nullptr) {
    const int error = errno;
    return absl::NotFoundError(
        absl::StrCat(path, ": cannot open: ", std::strerror(error)));
  }
  struct stat info;
  if (fstat(fileno(file.get()), &info) == 0 && S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is a folder, not a file"));
  }
  return file;
}

absl::Status TooLong(const std::string& what, int64_t limit_bytes) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": longer than the limit of ", limit_bytes, " bytes"));
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path,
                                         int64_t limit_bytes) {
  absl::StatusOr<File> file = OpenForReading(path);
  if (!file.ok()) return file.status();
  std::string text;
  char chunk[kChunkBytes];
  while (const size_t bytes =
             std::fread(chunk, 1, sizeof(chunk), file->get())) {
    text.append(chunk, bytes);
    if (static_cast<int64_t>(text.size()) > limit_bytes) {
      return TooLong(path, limit_bytes);
    }
  }
  if (std::ferror(file->get())) return SystemError(path, errno);
  return text;
}

absl::Status ForEachLine(const std::string& path, int64_t limit_bytes,
                         absl::FunctionRef<absl::Status(
                             absl::string_view line, absl::string_view where)>
                             fn) {
  absl::StatusOr<File> file = OpenForReading(path);
  if (!file.ok()) return file.status();
  std::string line;
  int64_t number = 0;
  const auto finish_line = [&]() -> absl::Status {
    ++number;
    absl::Status status = absl::OkStatus();
    if (!absl::StripAsciiWhitespace(line).empty()) {
      status = fn(line, absl::StrCat(path, ":", number));
    }
    line.clear();
    return status;
  };
  // Character by character through stdio's buffer: a line may hold NUL bytes.
  for (int c; (c = std::getc(file->get())) != EOF;) {
    if (c == '\n') {
      absl::Status status = finish_line();
      if (!status.ok()) return status;
      continue;
    }
    line.push_back(static_cast<char>(c));
    if (static_cast<int64_t>(line.size()) > limit_bytes) {
      return TooLong(absl::StrCat(path, ":", number + 1), limit_bytes);
    }
  }
  if (std::ferror(file->get())) return SystemError(path, errno);
  return line.empty() ? absl::OkStatus() : finish_line();
}

}  // namespace nibble
