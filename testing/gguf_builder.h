// Builds GGUF v3 files for tests: metadata in any order, tensors of any type
// whose bytes the caller has.
//
//   GgufBuilder gguf;
//   gguf.String("general.architecture", "llama").Uint("llama.block_count", 2);
//   gguf.F32("output_norm.weight", {64}, values);
//   gguf.Write(path);
//
// The format is drawn in tensor/io/gguf.h.
#ifndef NIBBLE_TESTING_GGUF_BUILDER_H_
#define NIBBLE_TESTING_GGUF_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble::testing {

class GgufBuilder {
 public:
  // ggml's numbers for the types that tests write.
  static constexpr uint32_t kTypeF32 = 0;
  static constexpr uint32_t kTypeF16 = 1;
  static constexpr uint32_t kTypeQ8_0 = 8;

  GgufBuilder& String(absl::string_view key, absl::string_view value);
  GgufBuilder& Uint(absl::string_view key, uint32_t value);
  GgufBuilder& Float(absl::string_view key, float value);
  GgufBuilder& Bool(absl::string_view key, bool value);
  GgufBuilder& Strings(absl::string_view key,
                       absl::Span<const std::string> values);
  GgufBuilder& Ints(absl::string_view key, absl::Span<const int32_t> values);
  GgufBuilder& Floats(absl::string_view key, absl::Span<const float> values);

  // Dimensions outermost first, as everywhere in nibble.
  GgufBuilder& F32(absl::string_view name, const std::vector<int64_t>& dims,
                   absl::Span<const float> values);
  GgufBuilder& Tensor(absl::string_view name, const std::vector<int64_t>& dims,
                      uint32_t type, absl::Span<const std::byte> bytes);

  std::string Build() const;
  void Write(const std::string& path) const;

 private:
  void Key(absl::string_view key, uint32_t type);

  uint64_t pairs_ = 0;
  uint64_t tensors_ = 0;
  std::string metadata_;
  std::string directory_;  // of tensors
  std::string data_;
};

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_GGUF_BUILDER_H_
