// A cursor over bytes that someone else wrote: every read is checked.
//
//   ByteReader reader(bytes);
//   uint32_t version;
//   if (!reader.Read(&version)) return Truncated();
//
// A read that does not fit returns false and moves nothing.
#ifndef NIBBLE_TENSOR_IO_BYTE_READER_H_
#define NIBBLE_TENSOR_IO_BYTE_READER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble {

class ByteReader {
 public:
  explicit ByteReader(absl::Span<const std::byte> bytes) : bytes_(bytes) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }

  // A little-endian number, aligned or not.
  template <class T>
  bool Read(T* value) {
    static_assert(std::is_arithmetic_v<T>);
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
    if (remaining() < sizeof(T)) return false;
    std::memcpy(value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return true;
  }

  bool ReadBytes(uint64_t count, absl::Span<const std::byte>* bytes) {
    if (remaining() < count) return false;
    *bytes = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += static_cast<size_t>(count);
    return true;
  }

  // A u64 length and as many bytes, not copied. Does not read a string longer
  // than `longest`.
  bool ReadString(uint64_t longest, absl::string_view* text) {
    uint64_t length = 0;
    const size_t start = position_;
    absl::Span<const std::byte> bytes;
    if (Read(&length) && length <= longest && ReadBytes(length, &bytes)) {
      *text = absl::string_view(reinterpret_cast<const char*>(bytes.data()),
                                bytes.size());
      return true;
    }
    position_ = start;
    return false;
  }

 private:
  absl::Span<const std::byte> bytes_;
  size_t position_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_BYTE_READER_H_
