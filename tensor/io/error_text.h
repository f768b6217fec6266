// Quotes text from a file for an error message.
//
//   QuoteForMessage("a\nb")  // "'a\nb'" with the newline escaped
//
// Names in hostile files may hold control characters, invalid UTF-8 or
// megabytes: the result is one line of UTF-8 and at most 500 bytes.
#ifndef NIBBLE_TENSOR_IO_ERROR_TEXT_H_
#define NIBBLE_TENSOR_IO_ERROR_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

std::string QuoteForMessage(absl::string_view text);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_ERROR_TEXT_H_
