// The token windows that calibration runs the model on, drawn from a text.
//
//   CalibrationOptions options;            // 128 windows of 512 tokens
//   if (tokenizer.adds_bos()) options.bos = tokenizer.bos_id();
//   absl::StatusOr<CalibrationWindows> windows = ChooseWindows(ids, options);
//   if (!windows.ok()) return windows.status();
//   windows->windows[3];                   // [512]
//   windows->digest;                       // of all of them
//
// The text is cut into windows without overlap, and `samples` of them are drawn
// without replacement, by seed alone: the same on every machine.
#ifndef NIBBLE_QUANTIZATION_CALIBRATION_WINDOWS_H_
#define NIBBLE_QUANTIZATION_CALIBRATION_WINDOWS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nibble {

struct CalibrationOptions {
  int64_t samples = 128;
  int64_t length = 512;  // tokens of a window, BOS among them
  uint64_t seed = 1;
  std::optional<int32_t> bos;  // the first token of each window
};

struct CalibrationWindows {
  int64_t length = 0;
  std::vector<std::vector<int32_t>> windows;  // [samples], each [length]
  int64_t text_tokens = 0;                    // of the whole text
  std::string digest;                         // 16 hexadecimal digits

  int64_t tokens() const {
    return length * static_cast<int64_t>(windows.size());
  }
};

// As many windows as there are where the text has fewer than `samples`.
// InvalidArgument: samples or length out of range (length at least 2), or a
// text that is shorter than one window, saying how much is needed.
absl::StatusOr<CalibrationWindows> ChooseWindows(
    absl::Span<const int32_t> text, const CalibrationOptions& options);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATION_WINDOWS_H_
