// Whole text files and their lines, with limits.
#ifndef NIBBLE_APPS_COMMON_TEXT_FILE_H_
#define NIBBLE_APPS_COMMON_TEXT_FILE_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// All that `path` holds ("-": standard input). A folder, and more than
// `limit_bytes`, are errors that name `path`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path,
                                         int64_t limit_bytes);

// Calls `fn` with each line that is not blank, without its newline, and with
// "path:number" for error messages; stops at the first error. Lines are read
// as they come, so `path` may be endless; a line above `limit_bytes` is an
// error.
absl::Status ForEachLine(const std::string& path, int64_t limit_bytes,
                         absl::FunctionRef<absl::Status(
                             absl::string_view line, absl::string_view where)>
                             fn);

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_TEXT_FILE_H_
