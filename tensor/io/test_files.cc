#include "tensor/io/test_files.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"

namespace nibble::testing {
namespace {

std::string GgufString(absl::string_view text) {
  return absl::StrCat(LittleEndian<uint64_t>(text.size()), text);
}

void Pad(std::string& bytes, size_t alignment) {
  bytes.append((alignment - bytes.size() % alignment) % alignment, '\0');
}

}  // namespace

AlignedBytes::AlignedBytes(absl::string_view bytes) : buffer_(bytes.size()) {
  if (!bytes.empty()) std::memcpy(buffer_.data(), bytes.data(), bytes.size());
}

std::string MakeTestFolder() {
  const ::testing::TestInfo* test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  const std::string name = absl::StrReplaceAll(
      absl::StrCat(test->test_suite_name(), "_", test->name()), {{"/", "_"}});
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path;
}

void WriteFile(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  ASSERT_TRUE(file.good()) << path;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string SafetensorsBytes(absl::string_view json, absl::string_view data) {
  return absl::StrCat(LittleEndian<uint64_t>(json.size()), json, data);
}

RawGguf& RawGguf::Pair(absl::string_view key, uint32_t type,
                       absl::string_view payload) {
  absl::StrAppend(&pairs_, GgufString(key), LittleEndian(type), payload);
  ++pair_count_;
  return *this;
}

RawGguf& RawGguf::String(absl::string_view key, absl::string_view value) {
  return Pair(key, kString, GgufString(value));
}

RawGguf& RawGguf::U32(absl::string_view key, uint32_t value) {
  return Pair(key, 4, LittleEndian(value));
}

RawGguf& RawGguf::F32(absl::string_view key, float value) {
  return Pair(key, 6, LittleEndian(value));
}

RawGguf& RawGguf::Bool(absl::string_view key, bool value) {
  return Pair(key, 7,
              value ? absl::string_view("\1", 1) : absl::string_view("\0", 1));
}

RawGguf& RawGguf::Strings(absl::string_view key,
                          const std::vector<std::string>& values) {
  std::string payload =
      LittleEndian(kString) + LittleEndian<uint64_t>(values.size());
  for (const std::string& value : values) payload += GgufString(value);
  return Pair(key, kArray, payload);
}

RawGguf& RawGguf::Tensor(absl::string_view name, std::vector<uint64_t> dims,
                         uint32_t type, absl::string_view data) {
  Pad(data_, alignment_);
  TensorAt(name, std::move(dims), type, data_.size());
  absl::StrAppend(&data_, data);
  return *this;
}

RawGguf& RawGguf::TensorAt(absl::string_view name, std::vector<uint64_t> dims,
                           uint32_t type, uint64_t offset) {
  absl::StrAppend(&tensors_, GgufString(name),
                  LittleEndian(static_cast<uint32_t>(dims.size())));
  for (uint64_t dim : dims) tensors_ += LittleEndian(dim);
  absl::StrAppend(&tensors_, LittleEndian(type), LittleEndian(offset));
  ++tensor_count_;
  return *this;
}

RawGguf& RawGguf::Alignment(uint32_t alignment) {
  alignment_ = alignment;
  return U32("general.alignment", alignment);
}

RawGguf& RawGguf::ClaimTensors(uint64_t count) {
  claimed_tensors_ = count;
  return *this;
}

RawGguf& RawGguf::ClaimPairs(uint64_t count) {
  claimed_pairs_ = count;
  return *this;
}

std::string RawGguf::Build() const {
  std::string bytes = absl::StrCat(
      "GGUF", LittleEndian(version_),
      LittleEndian(claimed_tensors_.value_or(tensor_count_)),
      LittleEndian(claimed_pairs_.value_or(pair_count_)), pairs_, tensors_);
  if (tensor_count_ > 0) {
    Pad(bytes, alignment_ == 0 ? 1 : alignment_);
    bytes += data_;
  }
  return bytes;
}

}  // namespace nibble::testing
