#include "testing/gguf_builder.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "testing/tiny_model.h"

namespace nibble::testing {
namespace {

constexpr size_t kAlignment = 32;

enum ValueType : uint32_t {
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
};

template <class T>
void Append(T value, std::string& out) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void AppendString(absl::string_view text, std::string& out) {
  Append<uint64_t>(text.size(), out);
  out.append(text.data(), text.size());
}

void Pad(std::string& out) {
  out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
}

}  // namespace

void GgufBuilder::Key(absl::string_view key, uint32_t type) {
  AppendString(key, metadata_);
  Append<uint32_t>(type, metadata_);
  ++pairs_;
}

GgufBuilder& GgufBuilder::String(absl::string_view key,
                                 absl::string_view value) {
  Key(key, kString);
  AppendString(value, metadata_);
  return *this;
}

GgufBuilder& GgufBuilder::Uint(absl::string_view key, uint32_t value) {
  Key(key, kUint32);
  Append<uint32_t>(value, metadata_);
  return *this;
}

GgufBuilder& GgufBuilder::Float(absl::string_view key, float value) {
  Key(key, kFloat32);
  Append<float>(value, metadata_);
  return *this;
}

GgufBuilder& GgufBuilder::Bool(absl::string_view key, bool value) {
  Key(key, kBool);
  Append<uint8_t>(value ? 1 : 0, metadata_);
  return *this;
}

GgufBuilder& GgufBuilder::Strings(absl::string_view key,
                                  absl::Span<const std::string> values) {
  Key(key, kArray);
  Append<uint32_t>(kString, metadata_);
  Append<uint64_t>(values.size(), metadata_);
  for (const std::string& value : values) AppendString(value, metadata_);
  return *this;
}

GgufBuilder& GgufBuilder::Ints(absl::string_view key,
                               absl::Span<const int32_t> values) {
  Key(key, kArray);
  Append<uint32_t>(kInt32, metadata_);
  Append<uint64_t>(values.size(), metadata_);
  for (int32_t value : values) Append<int32_t>(value, metadata_);
  return *this;
}

GgufBuilder& GgufBuilder::Floats(absl::string_view key,
                                 absl::Span<const float> values) {
  Key(key, kArray);
  Append<uint32_t>(kFloat32, metadata_);
  Append<uint64_t>(values.size(), metadata_);
  for (float value : values) Append<float>(value, metadata_);
  return *this;
}

GgufBuilder& GgufBuilder::F32(absl::string_view name,
                              const std::vector<int64_t>& dims,
                              absl::Span<const float> values) {
  return Tensor(
      name, dims, kTypeF32,
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                          values.size() * sizeof(float)));
}

GgufBuilder& GgufBuilder::Tensor(absl::string_view name,
                                 const std::vector<int64_t>& dims,
                                 uint32_t type,
                                 absl::Span<const std::byte> bytes) {
  Pad(data_);
  AppendString(name, directory_);
  Append<uint32_t>(static_cast<uint32_t>(dims.size()), directory_);
  for (size_t i = dims.size(); i > 0; --i) {
    Append<uint64_t>(static_cast<uint64_t>(dims[i - 1]), directory_);
  }
  Append<uint32_t>(type, directory_);
  Append<uint64_t>(data_.size(), directory_);
  data_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  ++tensors_;
  return *this;
}

std::string GgufBuilder::Build() const {
  std::string file = "GGUF";
  Append<uint32_t>(3, file);
  Append<uint64_t>(tensors_, file);
  Append<uint64_t>(pairs_, file);
  file += metadata_;
  file += directory_;
  Pad(file);
  return file + data_;
}

void GgufBuilder::Write(const std::string& path) const {
  WriteText(path, Build());
}

}  // namespace nibble::testing
