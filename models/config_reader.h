// Reads one JSON object of settings, checking every value's type and range.
//
//   auto reader = ConfigReader::ReadFile("model/config.json");
//   if (!reader.ok()) return reader.status();
//   int64_t hidden = reader->Int("hidden_size", {1, 65536});
//   double eps = reader->FloatOr("rms_norm_eps", 1e-6, {1e-12, 1});
//   if (!reader->status().ok()) return reader->status();
//
// The first problem is kept and every later read goes on with a harmless
// value, so that a family's file reads as a list of fields. A message names
// the file, the key, the value found and what would be right. JSON null counts
// as absent, except where a method says otherwise.
#ifndef NIBBLE_MODELS_CONFIG_READER_H_
#define NIBBLE_MODELS_CONFIG_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "nlohmann/json_fwd.hpp"

namespace nibble {

struct IntRange {
  int64_t min = 0;
  int64_t max = 0;
};

struct FloatRange {
  double min = 0;
  double max = 0;
};

class ConfigReader {
 public:
  // `source` is the file's name for messages. The text must be one JSON object.
  static absl::StatusOr<ConfigReader> Parse(absl::string_view text,
                                            std::string source);
  // Files above 16 MiB are refused: published ones are below 1 MiB.
  static absl::StatusOr<ConfigReader> ReadFile(const std::string& path);

  ConfigReader(ConfigReader&&) noexcept;
  ConfigReader& operator=(ConfigReader&&) noexcept;
  ~ConfigReader();

  bool Has(absl::string_view key) const;     // present and not null
  bool IsNull(absl::string_view key) const;  // present and null
  bool IsObject(absl::string_view key) const;

  // A missing key is a problem for Int and none for the -Or forms. On any
  // problem the result is within `range`, or the fallback.
  int64_t Int(absl::string_view key, IntRange range);
  int64_t IntOr(absl::string_view key, int64_t fallback, IntRange range);
  double FloatOr(absl::string_view key, double fallback, FloatRange range);
  bool BoolOr(absl::string_view key, bool fallback);
  std::string StringOr(absl::string_view key, absl::string_view fallback);
  // Empty when absent.
  std::vector<std::string> StringList(absl::string_view key);
  // Every key, null or not, sorted.
  std::vector<std::string> Keys() const;
  // One integer or a list of them; nullopt when absent or null.
  std::optional<std::vector<int64_t>> IntOrList(absl::string_view key,
                                                IntRange range);
  // The nested object, with its own status; an empty one when absent. A value
  // of another type is a problem of this reader.
  ConfigReader Object(absl::string_view key);

  // Records a problem found by the caller; the first one stays.
  void Fail(absl::string_view key, absl::string_view problem);
  void Adopt(const absl::Status& status);

  const absl::Status& status() const { return status_; }
  const std::string& source() const { return source_; }

 private:
  ConfigReader(std::unique_ptr<nlohmann::json> object, std::string source);
  const nlohmann::json* Find(absl::string_view key) const;
  void WrongType(absl::string_view key, absl::string_view expected);

  std::unique_ptr<nlohmann::json> object_;
  std::string source_;
  absl::Status status_;
};

// "a, b, c": for messages that list what is supported.
std::string ListOf(absl::Span<const absl::string_view> names);

}  // namespace nibble

#endif  // NIBBLE_MODELS_CONFIG_READER_H_
