// The calibration text: a file of plain text, or JSON lines with a text each.
//
//   absl::StatusOr<std::vector<std::string>> texts =
//       ReadCalibrationText("wiki.txt");
//   if (!texts.ok()) return texts.status();
//   std::vector<int32_t> ids = EncodeTexts(*texts, *tokenizer);
//
// A file whose name ends in .jsonl has an object with a member "text" on each
// line; any other file is one text.
#ifndef NIBBLE_QUANTIZATION_CALIBRATION_TEXT_H_
#define NIBBLE_QUANTIZATION_CALIBRATION_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

// What lies behind this is not read: it is some hundred times what 128 windows
// of 512 tokens need.
inline constexpr int64_t kMaxCalibrationBytes = 64 << 20;

// Each text UTF-8 and none of them empty; at least one. InvalidArgument, naming
// the file and where it can the line, and what to do: an empty or binary file,
// bytes that are no UTF-8, a line that is no such object.
absl::StatusOr<std::vector<std::string>> ReadCalibrationText(
    const std::string& path);

// The tokens of all texts, one after the other, without special tokens: what
// looks like one in the text is text.
std::vector<int32_t> EncodeTexts(absl::Span<const std::string> texts,
                                 const Tokenizer& tokenizer);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATION_TEXT_H_
