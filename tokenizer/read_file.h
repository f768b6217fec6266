// Reads a whole tokenizer file.

#ifndef NIBBLE_TOKENIZER_READ_FILE_H_
#define NIBBLE_TOKENIZER_READ_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace nibble {

// Errors name the path: NotFound where there is no such file, and
// InvalidArgument for a directory, a FIFO, an empty file, or more than 256 MiB.
absl::StatusOr<std::string> ReadTokenizerFile(const std::string& path);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_READ_FILE_H_
