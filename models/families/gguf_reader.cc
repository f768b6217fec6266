#include "models/families/gguf_reader.h"

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "models/config_reader.h"
#include "tensor/io/gguf.h"

namespace nibble {

GgufReader::GgufReader(const GgufFile& file, absl::string_view architecture)
    : file_(file), architecture_(architecture) {}

std::string GgufReader::FullKey(absl::string_view key) const {
  if (absl::StartsWith(key, "general.") ||
      absl::StartsWith(key, "tokenizer.")) {
    return std::string(key);
  }
  return absl::StrCat(architecture_, ".", key);
}

bool GgufReader::Has(absl::string_view key) const {
  return file_.HasKey(FullKey(key));
}

void GgufReader::Fail(absl::string_view key, absl::string_view problem) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(file_.path(), ": ", FullKey(key), " ", problem));
}

int64_t GgufReader::Int(absl::string_view key, IntRange range) {
  if (!Has(key)) {
    Fail(key, absl::StrCat("is missing; it must be an integer from ", range.min,
                           " to ", range.max));
    return range.min;
  }
  return IntOr(key, range.min, range);
}

int64_t GgufReader::IntOr(absl::string_view key, int64_t fallback,
                          IntRange range) {
  if (!Has(key)) return fallback;
  const absl::StatusOr<uint64_t> value = file_.GetUint(FullKey(key));
  if (!value.ok()) {
    if (status_.ok()) status_ = value.status();
    return range.min;
  }
  if (*value > static_cast<uint64_t>(range.max) ||
      static_cast<int64_t>(*value) < range.min) {
    Fail(key, absl::StrCat("is ", *value, "; it must be from ", range.min,
                           " to ", range.max));
    return range.min;
  }
  return static_cast<int64_t>(*value);
}

double GgufReader::FloatOr(absl::string_view key, double fallback,
                           FloatRange range) {
  if (!Has(key)) return fallback;
  const absl::StatusOr<double> value = file_.GetFloat(FullKey(key));
  if (!value.ok()) {
    if (status_.ok()) status_ = value.status();
    return fallback;
  }
  // Written so that NaN fails.
  if (!(*value >= range.min && *value <= range.max)) {
    Fail(key, absl::StrCat("is ", *value, "; it must be from ", range.min,
                           " to ", range.max));
    return fallback;
  }
  return *value;
}

bool GgufReader::BoolOr(absl::string_view key, bool fallback) {
  if (!Has(key)) return fallback;
  const absl::StatusOr<bool> value = file_.GetBool(FullKey(key));
  if (!value.ok()) {
    if (status_.ok()) status_ = value.status();
    return fallback;
  }
  return *value;
}

std::string GgufReader::StringOr(absl::string_view key,
                                 absl::string_view fallback) {
  if (!Has(key)) return std::string(fallback);
  absl::StatusOr<std::string> value = file_.GetString(FullKey(key));
  if (!value.ok()) {
    if (status_.ok()) status_ = value.status();
    return std::string(fallback);
  }
  return *std::move(value);
}

std::optional<int32_t> GgufReader::TokenId(absl::string_view key,
                                           int64_t vocabulary) {
  constexpr int64_t kUnset = 0xFFFFFFFF;
  if (!Has(key)) return std::nullopt;
  const int64_t id = IntOr(key, 0, {0, kUnset});
  if (!status_.ok() || id == kUnset) return std::nullopt;
  if (id >= vocabulary) {
    Fail(key,
         absl::StrCat("is ", id, ", outside the vocabulary of ", vocabulary));
    return std::nullopt;
  }
  return static_cast<int32_t>(id);
}

}  // namespace nibble
