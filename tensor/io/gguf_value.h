// One metadata value of a GGUF file.
//
//   absl::StatusOr<GgufValue> value = GgufValue::Read(reader);
//   std::optional<absl::string_view> name = value->AsString();
//
// A value keeps its type, its count and a view of its bytes in the file, all
// checked by Read. Conversions give nothing when the value is of another type.
// Strings of an array are found again at each conversion, with the same checks,
// so that a file overwritten in the meantime cannot lead outside it.
#ifndef NIBBLE_TENSOR_IO_GGUF_VALUE_H_
#define NIBBLE_TENSOR_IO_GGUF_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/io/byte_reader.h"

namespace nibble {

// As numbered in the file.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// The longest string that a value may hold. Chat templates, the longest that
// exist, stay under 100 kB.
inline constexpr uint64_t kMaxGgufStringBytes = uint64_t{16} << 20;

class GgufValue {
 public:
  // Reads the type and the value. Errors do not name the key.
  static absl::StatusOr<GgufValue> Read(ByteReader& reader);

  // "u32", "string", "array of f32".
  std::string TypeText() const;

  std::optional<absl::string_view> AsString() const;
  std::optional<bool> AsBool() const;
  std::optional<double> AsFloat() const;
  // Integers of any type. AsUint gives nothing for a negative one.
  std::optional<uint64_t> AsUint() const;

  std::optional<std::vector<absl::string_view>> AsStrings() const;
  std::optional<std::vector<float>> AsFloats() const;
  // Nothing when an element is above the largest int64_t.
  std::optional<std::vector<int64_t>> AsInts() const;

  // One printable line, long ones cut.
  std::string Summary() const;

 private:
  GgufValue() = default;

  // What follows the type.
  absl::Status ReadString(ByteReader& reader);
  absl::Status ReadArray(ByteReader& reader);

  bool IsArray() const { return type_ == GgufType::kArray; }
  // Element i of an array of numbers or bools, or the scalar itself for i = 0.
  std::string ElementText(size_t i) const;

  GgufType type_ = GgufType::kU8;
  GgufType element_type_ = GgufType::kU8;  // Equal to type_ for scalars.
  size_t count_ = 1;
  absl::Span<const std::byte> payload_;  // Without a string's or array's head.
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_GGUF_VALUE_H_
