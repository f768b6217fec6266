#include "models/config_reader.h"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"

namespace nibble {
namespace {

using nlohmann::json;

constexpr std::uintmax_t kMaxFileBytes = std::uintmax_t{16} << 20;

// The value as text for a message, cut so that a hostile file cannot fill the
// screen.
std::string Excerpt(const json& value) {
  constexpr size_t kMaxExcerpt = 40;
  if (value.is_structured()) {
    return value.is_array() ? "an array" : "an object";
  }
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true,
                                json::error_handler_t::replace);
  if (text.size() > kMaxExcerpt) text = text.substr(0, kMaxExcerpt) + "...";
  return value.is_string() ? absl::StrCat("the string ", text) : text;
}

// Any JSON integer that fits int64; nullopt for other types and beyond.
std::optional<int64_t> AsInt(const json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t wide = value.get<uint64_t>();
    if (wide > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return std::nullopt;
    }
    return static_cast<int64_t>(wide);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  return std::nullopt;
}

std::string Wanted(IntRange range) {
  return absl::StrCat("an integer from ", range.min, " to ", range.max);
}

}  // namespace

ConfigReader::ConfigReader(std::unique_ptr<json> object, std::string source)
    : object_(std::move(object)), source_(std::move(source)) {}
ConfigReader::ConfigReader(ConfigReader&&) noexcept = default;
ConfigReader& ConfigReader::operator=(ConfigReader&&) noexcept = default;
ConfigReader::~ConfigReader() = default;

absl::StatusOr<ConfigReader> ConfigReader::Parse(absl::string_view text,
                                                 std::string source) {
  auto parsed = std::make_unique<json>(json::parse(
      text.begin(), text.end(), /*cb=*/nullptr, /*allow_exceptions=*/false));
  if (parsed->is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": not valid JSON"));
  }
  if (!parsed->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": must hold one JSON object"));
  }
  return ConfigReader(std::move(parsed), std::move(source));
}

absl::StatusOr<ConfigReader> ConfigReader::ReadFile(const std::string& path) {
  std::error_code error;
  const auto type = std::filesystem::status(path, error).type();
  if (type == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  }
  // Opening a FIFO would wait for a writer.
  if (error || type != std::filesystem::file_type::regular) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a regular file"));
  }
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error || bytes > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": too large, the limit is ", kMaxFileBytes, " bytes"));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(bytes), '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    return absl::PermissionDeniedError(absl::StrCat(path, ": cannot be read"));
  }
  return Parse(text, path);
}

const json* ConfigReader::Find(absl::string_view key) const {
  const auto found = object_->find(std::string(key));
  return found == object_->end() ? nullptr : &*found;
}

bool ConfigReader::Has(absl::string_view key) const {
  const json* value = Find(key);
  return value != nullptr && !value->is_null();
}

bool ConfigReader::IsNull(absl::string_view key) const {
  const json* value = Find(key);
  return value != nullptr && value->is_null();
}

bool ConfigReader::IsObject(absl::string_view key) const {
  const json* value = Find(key);
  return value != nullptr && value->is_object();
}

void ConfigReader::Fail(absl::string_view key, absl::string_view problem) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(source_, ": \"", key, "\" ", problem));
}

void ConfigReader::Adopt(const absl::Status& status) {
  if (status_.ok()) status_ = status;
}

void ConfigReader::WrongType(absl::string_view key,
                             absl::string_view expected) {
  Fail(key,
       absl::StrCat("is ", Excerpt(*Find(key)), "; it must be ", expected));
}

int64_t ConfigReader::Int(absl::string_view key, IntRange range) {
  if (!Has(key)) {
    Fail(key, absl::StrCat("is missing; it must be ", Wanted(range)));
    return range.min;
  }
  return IntOr(key, range.min, range);
}

int64_t ConfigReader::IntOr(absl::string_view key, int64_t fallback,
                            IntRange range) {
  if (!Has(key)) return fallback;
  const std::optional<int64_t> value = AsInt(*Find(key));
  if (!value || *value < range.min || *value > range.max) {
    WrongType(key, Wanted(range));
    return range.min;
  }
  return *value;
}

double ConfigReader::FloatOr(absl::string_view key, double fallback,
                             FloatRange range) {
  if (!Has(key)) return fallback;
  const json& value = *Find(key);
  const double number = value.is_number()
                            ? value.get<double>()
                            : std::numeric_limits<double>::quiet_NaN();
  // Written so that NaN fails.
  if (!(number >= range.min && number <= range.max)) {
    WrongType(key,
              absl::StrCat("a number from ", range.min, " to ", range.max));
    return fallback;
  }
  return number;
}

bool ConfigReader::BoolOr(absl::string_view key, bool fallback) {
  if (!Has(key)) return fallback;
  const json& value = *Find(key);
  if (!value.is_boolean()) {
    WrongType(key, "true or false");
    return fallback;
  }
  return value.get<bool>();
}

std::string ConfigReader::StringOr(absl::string_view key,
                                   absl::string_view fallback) {
  if (!Has(key)) return std::string(fallback);
  const json& value = *Find(key);
  if (!value.is_string()) {
    WrongType(key, "a string");
    return std::string(fallback);
  }
  return value.get<std::string>();
}

std::vector<std::string> ConfigReader::StringList(absl::string_view key) {
  std::vector<std::string> result;
  if (!Has(key)) return result;
  const json& value = *Find(key);
  if (!value.is_array()) {
    WrongType(key, "a list of strings");
    return result;
  }
  for (const json& element : value) {
    if (!element.is_string()) {
      Fail(key, absl::StrCat("holds ", Excerpt(element),
                             "; it must be a list of strings"));
      return {};
    }
    result.push_back(element.get<std::string>());
  }
  return result;
}

std::vector<std::string> ConfigReader::Keys() const {
  std::vector<std::string> keys;
  for (const auto& member : object_->items()) keys.push_back(member.key());
  return keys;
}

std::optional<std::vector<int64_t>> ConfigReader::IntOrList(
    absl::string_view key, IntRange range) {
  if (!Has(key)) return std::nullopt;
  const json& value = *Find(key);
  if (!value.is_array()) return std::vector<int64_t>{Int(key, range)};
  std::vector<int64_t> result;
  for (const json& element : value) {
    const std::optional<int64_t> number = AsInt(element);
    if (!number || *number < range.min || *number > range.max) {
      Fail(key, absl::StrCat("holds ", Excerpt(element), "; each must be ",
                             Wanted(range)));
      return std::nullopt;
    }
    result.push_back(*number);
  }
  return result;
}

ConfigReader ConfigReader::Object(absl::string_view key) {
  auto object = std::make_unique<json>(json::object());
  if (Has(key)) {
    if (IsObject(key)) {
      *object = *Find(key);
    } else {
      WrongType(key, "an object or null");
    }
  }
  return ConfigReader(std::move(object), absl::StrCat(source_, ": in \"",
                                                      key.substr(0, 60), "\""));
}

std::string ListOf(absl::Span<const absl::string_view> names) {
  return absl::StrJoin(names, ", ");
}

}  // namespace nibble
