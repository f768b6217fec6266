// The JSON header of a safetensors file, as a list of tensors.
//
//   auto header = ParseSafetensorsHeader("model.safetensors", json);
//   for (const SafetensorsEntry& entry : header->tensors) ...
//
// Checks everything that the text alone can show: valid JSON of exactly the
// expected form, no name or field twice, whole non-negative numbers that fit 64
// bits. What has to do with the rest of the file (offsets, sizes, dtypes) is
// left to the reader in safetensors.cc.
#ifndef NIBBLE_TENSOR_IO_SAFETENSORS_HEADER_H_
#define NIBBLE_TENSOR_IO_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// The largest header that is read, as in the format's own implementation.
inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // As written: "F32", "BF16", ...
  std::vector<int64_t> shape;  // Outermost first, none negative.
  int64_t begin = 0;           // Bytes, from the end of the header.
  int64_t end = 0;             // One past the last byte; may be < begin.
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> tensors;  // In the order of the text.
  std::map<std::string, std::string> metadata;
};

// `path` is the file's name in messages.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(
    absl::string_view path, absl::string_view json);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_SAFETENSORS_HEADER_H_
