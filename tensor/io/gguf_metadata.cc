// The typed getters of GgufFile.
#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "tensor/io/error_text.h"
#include "tensor/io/gguf.h"
namespace nibble {

absl::StatusOr<const GgufValue*> GgufFile::FindKey(
    absl::string_view key) const {
  const auto at = values_.find(key);
  if (at == values_.end()) {
    return absl::NotFoundError(
        absl::StrCat(path_, ": there is no metadata ", QuoteForMessage(key)));
  }
  return &at->second;
}

// Finds the key and converts its value; `wanted` describes what it should be.
template <class Convert>
auto GgufFile::Get(absl::string_view key, absl::string_view wanted,
                   Convert convert) const
    -> absl::StatusOr<
        typename decltype(convert(std::declval<GgufValue>()))::value_type> {
  absl::StatusOr<const GgufValue*> value = FindKey(key);
  if (!value.ok()) return value.status();
  auto converted = convert(**value);
  if (!converted.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": metadata ", QuoteForMessage(key), " is ", (*value)->Summary(),
        " (", (*value)->TypeText(), "), but ", wanted, " is needed"));
  }
  return *std::move(converted);
}

absl::StatusOr<std::string> GgufFile::GetString(absl::string_view key) const {
  return Get(key, "a string", [](const GgufValue& value) {
    const std::optional<absl::string_view> text = value.AsString();
    return text ? std::optional<std::string>(*text) : std::nullopt;
  });
}

absl::StatusOr<uint64_t> GgufFile::GetUint(absl::string_view key) const {
  return Get(key, "a whole number >= 0",
             [](const GgufValue& value) { return value.AsUint(); });
}

absl::StatusOr<double> GgufFile::GetFloat(absl::string_view key) const {
  return Get(key, "a floating-point number",
             [](const GgufValue& value) { return value.AsFloat(); });
}

absl::StatusOr<bool> GgufFile::GetBool(absl::string_view key) const {
  return Get(key, "a bool",
             [](const GgufValue& value) { return value.AsBool(); });
}

absl::StatusOr<std::vector<absl::string_view>> GgufFile::GetStringViews(
    absl::string_view key) const {
  return Get(key, "an array of strings",
             [](const GgufValue& value) { return value.AsStrings(); });
}

absl::StatusOr<std::vector<std::string>> GgufFile::GetStringArray(
    absl::string_view key) const {
  absl::StatusOr<std::vector<absl::string_view>> views = GetStringViews(key);
  if (!views.ok()) return views.status();
  return std::vector<std::string>(views->begin(), views->end());
}

absl::StatusOr<std::vector<float>> GgufFile::GetFloatArray(
    absl::string_view key) const {
  return Get(key, "an array of floating-point numbers",
             [](const GgufValue& value) { return value.AsFloats(); });
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetIntArray(
    absl::string_view key) const {
  return Get(key, "an array of integers within 64 bits",
             [](const GgufValue& value) { return value.AsInts(); });
}

std::string GgufFile::MetadataBytes() const {
  // Behind the magic and the version stands the count of tensors.
  constexpr size_t kCountOffset = 8;
  std::string bytes(reinterpret_cast<const char*>(head_.data()), head_.size());
  std::fill_n(bytes.begin() + kCountOffset, sizeof(uint64_t), '\0');
  return bytes;
}

std::string GgufFile::ValueSummary(absl::string_view key) const {
  const auto at = values_.find(key);
  return at == values_.end() ? "" : at->second.Summary();
}

}  // namespace nibble
