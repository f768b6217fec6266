// Reads the metadata of one architecture from a GGUF file, checking types and
// ranges. It is to GGUF what ConfigReader is to config.json: the first problem
// is kept, later reads go on with a harmless value.
//
//   GgufReader reader(file, "llama");
//   int64_t layers = reader.Int("block_count", {1, kMaxLayers});
//   if (!reader.status().ok()) return reader.status();
//
// Keys are given without the architecture: "block_count" stands for
// "llama.block_count". A key that holds "general." or "tokenizer." at its start
// is taken as it is.
#ifndef NIBBLE_MODELS_FAMILIES_GGUF_READER_H_
#define NIBBLE_MODELS_FAMILIES_GGUF_READER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "models/config_reader.h"
#include "tensor/io/gguf.h"

namespace nibble {

class GgufReader {
 public:
  // `file` must outlive the reader.
  GgufReader(const GgufFile& file, absl::string_view architecture);

  bool Has(absl::string_view key) const;
  // A missing key is a problem for Int and none for the -Or forms.
  int64_t Int(absl::string_view key, IntRange range);
  int64_t IntOr(absl::string_view key, int64_t fallback, IntRange range);
  double FloatOr(absl::string_view key, double fallback, FloatRange range);
  bool BoolOr(absl::string_view key, bool fallback);
  std::string StringOr(absl::string_view key, absl::string_view fallback);
  // A token id; nullopt when absent or 0xFFFFFFFF, which means "not set".
  std::optional<int32_t> TokenId(absl::string_view key, int64_t vocabulary);

  void Fail(absl::string_view key, absl::string_view problem);
  const absl::Status& status() const { return status_; }

 private:
  std::string FullKey(absl::string_view key) const;

  const GgufFile& file_;
  std::string architecture_;
  absl::Status status_;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_GGUF_READER_H_
