// Builds tensor files for tests, sound ones and broken ones.
//
//   std::string bytes = RawGguf()
//                           .String("general.architecture", "llama")
//                           .Tensor("a", {32, 2}, 2, std::string(36, '\0'))
//                           .Build();
//   AlignedBytes aligned(bytes);
//   auto file = GgufFile::Parse("a.gguf", aligned.span());
#ifndef NIBBLE_TENSOR_IO_TEST_FILES_H_
#define NIBBLE_TENSOR_IO_TEST_FILES_H_

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/buffer.h"

namespace nibble::testing {

// The bytes of a number as they stand in a file.
template <class T>
std::string LittleEndian(T value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

// A copy that starts at a multiple of 64, as a mapped file does, and ends where
// the bytes end, so that a sanitizer sees a read past them.
class AlignedBytes {
 public:
  explicit AlignedBytes(absl::string_view bytes);
  absl::Span<const std::byte> span() const {
    return absl::MakeConstSpan(buffer_.data(), buffer_.size());
  }

 private:
  AlignedBuffer buffer_;
};

// A fresh folder for the running test, under the test's own temporary folder.
std::string MakeTestFolder();

void WriteFile(const std::string& path, absl::string_view bytes);
std::string ReadFile(const std::string& path);

// The header's length, the header, the data.
std::string SafetensorsBytes(absl::string_view json, absl::string_view data);

// A GGUF file field by field, true or not. To write a sound one for a model,
// see testing/gguf_builder.h.
class RawGguf {
 public:
  explicit RawGguf(uint32_t version = 3) : version_(version) {}

  // Types and payloads as the format numbers and lays them out.
  RawGguf& Pair(absl::string_view key, uint32_t type,
                absl::string_view payload);
  RawGguf& String(absl::string_view key, absl::string_view value);
  RawGguf& U32(absl::string_view key, uint32_t value);
  RawGguf& F32(absl::string_view key, float value);
  RawGguf& Bool(absl::string_view key, bool value);
  RawGguf& Strings(absl::string_view key,
                   const std::vector<std::string>& values);
  template <class T>
  RawGguf& Numbers(absl::string_view key, uint32_t type,
                   const std::vector<T>& values) {
    std::string payload =
        LittleEndian(type) + LittleEndian<uint64_t>(values.size());
    for (T value : values) payload += LittleEndian(value);
    return Pair(key, kArray, payload);
  }

  // `dims` innermost first, as in the file. The tensor goes behind those added
  // before it, at the next multiple of the alignment.
  RawGguf& Tensor(absl::string_view name, std::vector<uint64_t> dims,
                  uint32_t type, absl::string_view data);
  // Only the record.
  RawGguf& TensorAt(absl::string_view name, std::vector<uint64_t> dims,
                    uint32_t type, uint64_t offset);

  // Also writes the key general.alignment.
  RawGguf& Alignment(uint32_t alignment);

  // What the header says instead of the truth.
  RawGguf& ClaimTensors(uint64_t count);
  RawGguf& ClaimPairs(uint64_t count);

  std::string Build() const;

  static constexpr uint32_t kString = 8, kArray = 9;

 private:
  uint32_t version_;
  uint32_t alignment_ = 32;
  uint64_t pair_count_ = 0, tensor_count_ = 0;
  std::optional<uint64_t> claimed_pairs_, claimed_tensors_;
  std::string pairs_, tensors_, data_;
};

}  // namespace nibble::testing

#endif  // NIBBLE_TENSOR_IO_TEST_FILES_H_
