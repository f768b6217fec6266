#include "tensor/io/gguf_value.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tensor/io/error_text.h"

namespace nibble {
namespace {

constexpr uint32_t kTypeCount = 13;
constexpr absl::string_view kTypeNames[kTypeCount] = {
    "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
    "bool", "string", "array", "u64", "i64", "f64"};
// Bytes of one value; 0 where it varies.
constexpr size_t kTypeBytes[kTypeCount] = {1, 1, 2, 2, 4, 4, 4,
                                           1, 0, 0, 8, 8, 8};

absl::string_view NameOf(GgufType type) {
  return kTypeNames[static_cast<uint32_t>(type)];
}

size_t BytesOf(GgufType type) {
  return kTypeBytes[static_cast<uint32_t>(type)];
}

absl::StatusOr<GgufType> ReadType(ByteReader& reader) {
  uint32_t type = 0;
  if (!reader.Read(&type)) {
    return absl::InvalidArgumentError("the file ends before its type");
  }
  if (type >= kTypeCount) {
    return absl::InvalidArgumentError(
        absl::StrCat("is of unknown type ", type));
  }
  return static_cast<GgufType>(type);
}

absl::Status PastTheEnd(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " goes past the end of the file"));
}

// Walks `count` strings. False when one does not fit.
template <class Function>
bool ForEachString(ByteReader& reader, size_t count, Function function) {
  for (size_t i = 0; i < count; ++i) {
    absl::string_view text;
    if (!reader.ReadString(kMaxGgufStringBytes, &text)) return false;
    function(text);
  }
  return true;
}

template <class T>
T LoadAs(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// Calls function(T) with one number of the type. False for no number.
template <class Function>
bool VisitNumber(GgufType type, const std::byte* at, Function function) {
  switch (type) {
    case GgufType::kU8:
      function(LoadAs<uint8_t>(at));
      return true;
    case GgufType::kI8:
      function(LoadAs<int8_t>(at));
      return true;
    case GgufType::kU16:
      function(LoadAs<uint16_t>(at));
      return true;
    case GgufType::kI16:
      function(LoadAs<int16_t>(at));
      return true;
    case GgufType::kU32:
      function(LoadAs<uint32_t>(at));
      return true;
    case GgufType::kI32:
      function(LoadAs<int32_t>(at));
      return true;
    case GgufType::kU64:
      function(LoadAs<uint64_t>(at));
      return true;
    case GgufType::kI64:
      function(LoadAs<int64_t>(at));
      return true;
    case GgufType::kF32:
      function(LoadAs<float>(at));
      return true;
    case GgufType::kF64:
      function(LoadAs<double>(at));
      return true;
    case GgufType::kBool:
    case GgufType::kString:
    case GgufType::kArray:
      return false;
  }
  return false;
}

bool IsInteger(GgufType type) {
  const std::byte zeros[8] = {};
  bool integer = false;
  VisitNumber(type, zeros, [&](auto value) {
    integer = std::is_integral_v<decltype(value)>;
  });
  return integer;
}

// The integer at `at`, when it is one and fits Int.
template <class Int>
std::optional<Int> LoadInteger(GgufType type, const std::byte* at) {
  std::optional<Int> result;
  VisitNumber(type, at, [&](auto value) {
    using T = decltype(value);
    if constexpr (std::is_integral_v<T>) {
      const bool negative = std::is_signed_v<T> && value < T{0};
      if (negative) {
        if (std::is_signed_v<Int>) result = static_cast<Int>(value);
      } else if (static_cast<uint64_t>(value) <=
                 static_cast<uint64_t>(std::numeric_limits<Int>::max())) {
        result = static_cast<Int>(value);
      }
    }
  });
  return result;
}

std::optional<double> LoadFloat(GgufType type, const std::byte* at) {
  if (type == GgufType::kF32) return LoadAs<float>(at);
  if (type == GgufType::kF64) return LoadAs<double>(at);
  return std::nullopt;
}

}  // namespace

absl::StatusOr<GgufValue> GgufValue::Read(ByteReader& reader) {
  const absl::StatusOr<GgufType> type = ReadType(reader);
  if (!type.ok()) return type.status();
  GgufValue value;
  value.type_ = value.element_type_ = *type;
  absl::Status status;
  if (*type == GgufType::kString) {
    status = value.ReadString(reader);
  } else if (*type == GgufType::kArray) {
    status = value.ReadArray(reader);
  } else if (!reader.ReadBytes(BytesOf(*type), &value.payload_)) {
    status = PastTheEnd("its value");
  }
  if (!status.ok()) return status;
  return value;
}

absl::Status GgufValue::ReadString(ByteReader& reader) {
  uint64_t length = 0;
  if (!reader.Read(&length)) return PastTheEnd("its string");
  if (length > reader.remaining()) {
    return PastTheEnd(absl::StrCat("its string of ", length, " bytes"));
  }
  if (length > kMaxGgufStringBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("is a string of ", length, " bytes, above the limit of ",
                     kMaxGgufStringBytes));
  }
  reader.ReadBytes(length, &payload_);  // Fits: just checked.
  return absl::OkStatus();
}

absl::Status GgufValue::ReadArray(ByteReader& reader) {
  const absl::StatusOr<GgufType> element = ReadType(reader);
  if (!element.ok()) return element.status();
  if (*element == GgufType::kArray) {
    return absl::InvalidArgumentError(
        "is an array of arrays, which is not supported");
  }
  element_type_ = *element;
  uint64_t count = 0;
  if (!reader.Read(&count)) return PastTheEnd("its array");
  const std::string text =
      absl::StrCat("its array of ", count, " ", NameOf(*element), " values");
  const bool strings = *element == GgufType::kString;
  // A string takes at least its length's bytes.
  const size_t least = strings ? sizeof(uint64_t) : BytesOf(*element);
  if (count > reader.remaining() / least) return PastTheEnd(text);
  count_ = static_cast<size_t>(count);
  ByteReader walk = reader;
  if (strings && !ForEachString(walk, count_, [](absl::string_view) {})) {
    return absl::InvalidArgumentError(absl::StrCat(
        text, " holds one that goes past the end of the file or is above ",
        kMaxGgufStringBytes, " bytes"));
  }
  reader.ReadBytes(
      strings ? walk.position() - reader.position() : count * least, &payload_);
  return absl::OkStatus();
}

std::string GgufValue::TypeText() const {
  if (!IsArray()) return std::string(NameOf(type_));
  return absl::StrCat("array of ", NameOf(element_type_));
}

std::optional<absl::string_view> GgufValue::AsString() const {
  if (type_ != GgufType::kString) return std::nullopt;
  return absl::string_view(reinterpret_cast<const char*>(payload_.data()),
                           payload_.size());
}

std::optional<bool> GgufValue::AsBool() const {
  if (type_ != GgufType::kBool) return std::nullopt;
  return LoadAs<uint8_t>(payload_.data()) != 0;
}

std::optional<double> GgufValue::AsFloat() const {
  return LoadFloat(type_, payload_.data());
}

std::optional<uint64_t> GgufValue::AsUint() const {
  return LoadInteger<uint64_t>(type_, payload_.data());
}

std::optional<std::vector<absl::string_view>> GgufValue::AsStrings() const {
  if (!IsArray() || element_type_ != GgufType::kString) return std::nullopt;
  std::vector<absl::string_view> strings;
  strings.reserve(count_);
  ByteReader reader(payload_);
  if (!ForEachString(reader, count_, [&](absl::string_view text) {
        strings.push_back(text);
      })) {
    return std::nullopt;
  }
  return strings;
}

std::optional<std::vector<float>> GgufValue::AsFloats() const {
  if (!IsArray()) return std::nullopt;
  std::vector<float> values;
  const size_t stride = BytesOf(element_type_);
  if (element_type_ != GgufType::kF32 && element_type_ != GgufType::kF64) {
    return std::nullopt;
  }
  values.reserve(count_);
  for (size_t i = 0; i < count_; ++i) {
    values.push_back(static_cast<float>(
        *LoadFloat(element_type_, payload_.data() + i * stride)));
  }
  return values;
}

std::optional<std::vector<int64_t>> GgufValue::AsInts() const {
  if (!IsArray()) return std::nullopt;
  std::vector<int64_t> values;
  const size_t stride = BytesOf(element_type_);
  if (!IsInteger(element_type_)) return std::nullopt;
  values.reserve(count_);
  for (size_t i = 0; i < count_; ++i) {
    const std::optional<int64_t> value =
        LoadInteger<int64_t>(element_type_, payload_.data() + i * stride);
    if (!value.has_value()) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

std::string GgufValue::ElementText(size_t i) const {
  const std::byte* at = payload_.data() + i * BytesOf(element_type_);
  if (element_type_ == GgufType::kBool) {
    return LoadAs<uint8_t>(at) != 0 ? "true" : "false";
  }
  std::string text;
  // +value: a uint8_t is a number here, not a character.
  VisitNumber(element_type_, at,
              [&](auto value) { text = absl::StrCat(+value); });
  return text;
}

std::string GgufValue::Summary() const {
  if (type_ == GgufType::kString) return QuoteForMessage(*AsString());
  if (!IsArray()) return ElementText(0);
  constexpr size_t kShown = 4;
  std::string text = absl::StrCat("[", count_, " ", NameOf(element_type_), "]");
  const size_t shown = std::min(count_, kShown);
  const char* separator = " ";
  if (element_type_ == GgufType::kString) {
    ByteReader reader(payload_);
    ForEachString(reader, shown, [&](absl::string_view element) {
      absl::StrAppend(&text, separator, QuoteForMessage(element));
      separator = ", ";
    });
  } else {
    for (size_t i = 0; i < shown; ++i) {
      absl::StrAppend(&text, separator, ElementText(i));
      separator = ", ";
    }
  }
  if (shown < count_) absl::StrAppend(&text, ", ...");
  return text;
}

}  // namespace nibble
