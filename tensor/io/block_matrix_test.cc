// Blocks read as codes, one element at a time by the drawings in
// tensor/block_format.h. (That the values are those of kernels/convert is a
// test of models/coded_gather.)
#include "tensor/io/block_matrix.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/gguf.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

using testing::AlignedBytes;
using testing::LittleEndian;
using testing::RawGguf;

constexpr uint32_t kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ8_0 = 8, kQ4_K = 12;
constexpr int64_t kRows = 3, kInputs = 64, kGroups = 2;

float ScaleOf(int64_t block) { return 0.25f * static_cast<float>(block - 2); }
float MinimumOf(int64_t block) { return -1.5f * static_cast<float>(block); }
uint8_t CodeOf(int64_t row, int64_t input, int values) {
  return static_cast<uint8_t>((row * 7 + input * 5 + input / 32) % values);
}

// A matrix [kRows, kInputs] of the numbers above.
std::string Blocks(uint32_t type) {
  std::string bytes;
  for (int64_t block = 0; block < kRows * kGroups; ++block) {
    const int64_t row = block / kGroups, first = block % kGroups * 32;
    bytes += LittleEndian(ToF16(ScaleOf(block)).bits);
    if (type == kQ4_1) bytes += LittleEndian(ToF16(MinimumOf(block)).bits);
    for (int64_t i = 0; i < (type == kQ8_0 ? 32 : 16); ++i) {
      const int byte = type == kQ8_0 ? CodeOf(row, first + i, 256) - 128
                                     : CodeOf(row, first + i, 16) |
                                           CodeOf(row, first + 16 + i, 16) << 4;
      bytes.push_back(static_cast<char>(byte));
    }
  }
  return bytes;
}

std::unique_ptr<GgufFile> Parse(const AlignedBytes& bytes) {
  auto file = GgufFile::Parse("test.gguf", bytes.span());
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

class BlockMatrixTest : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Types, BlockMatrixTest,
                         ::testing::Values(kQ4_0, kQ4_1, kQ8_0));

TEST_P(BlockMatrixTest, ReadsCodesScalesAndMinimums) {
  const std::string blocks = Blocks(GetParam());
  const AlignedBytes bytes(
      RawGguf().Tensor("w", {kInputs, kRows}, GetParam(), blocks).Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  const CodedMatrix* w = file->FindCoded("w");
  ASSERT_NE(w, nullptr);
  const CodedForm& form = w->form();
  EXPECT_EQ(form.outputs, kRows);
  EXPECT_EQ(form.inputs, kInputs);
  EXPECT_EQ(form.bits, GetParam() == kQ8_0 ? 8 : 4);
  EXPECT_EQ(form.group_size, 32);
  EXPECT_EQ(form.offset, GetParam() == kQ4_1 ? CodeOffset::kMinimums
                                             : CodeOffset::kSymmetric);
  EXPECT_TRUE(form.input_order.empty());
  EXPECT_EQ(w->stored_bytes(), static_cast<int64_t>(blocks.size()));

  for (int64_t first = 0; first < kRows; ++first) {
    for (int64_t rows = 0; rows <= kRows - first; ++rows) {
      std::vector<uint8_t> codes(rows * kInputs);
      std::vector<float> scales(rows * kGroups), offsets(rows * kGroups);
      w->Read(first, rows,
              {absl::MakeSpan(codes), absl::MakeSpan(scales),
               absl::MakeSpan(offsets)});
      for (int64_t i = 0; i < rows * kInputs; ++i) {
        ASSERT_EQ(codes[i], CodeOf(first + i / kInputs, i % kInputs,
                                   GetParam() == kQ8_0 ? 256 : 16))
            << i;
      }
      for (int64_t i = 0; i < rows * kGroups; ++i) {
        EXPECT_EQ(scales[i], ScaleOf(first * kGroups + i));
        if (GetParam() != kQ4_1) continue;
        EXPECT_EQ(offsets[i], MinimumOf(first * kGroups + i));
      }
    }
  }
}

TEST_P(BlockMatrixTest, ReadsScalesWithoutCodes) {
  const AlignedBytes bytes(
      RawGguf()
          .Tensor("w", {kInputs, kRows}, GetParam(), Blocks(GetParam()))
          .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  std::vector<float> scales(kGroups), offsets(kGroups);
  file->FindCoded("w")->Read(
      1, 1, {{}, absl::MakeSpan(scales), absl::MakeSpan(offsets)});
  EXPECT_EQ(scales[0], ScaleOf(kGroups));
  EXPECT_EQ(scales[1], ScaleOf(kGroups + 1));
}

TEST(BlockMatrixOfFileTest, SuperBlocksHaveEightGroups) {
  // d = 2, dmin = 0.5; scale(j) = 10 + j, min(j) = 50 - j.
  std::string blocks;
  for (int64_t row = 0; row < 2; ++row) {
    blocks += LittleEndian(ToF16(2.0f).bits) + LittleEndian(ToF16(0.5f).bits);
    std::string scales(12, '\0');
    for (int j = 0; j < 8; ++j) {
      const int scale = 10 + j, minimum = 50 - j;
      if (j < 4) {
        scales[j] |= static_cast<char>(scale);
        scales[j + 4] |= static_cast<char>(minimum);
      } else {
        scales[j + 4] = static_cast<char>(scale % 16 | minimum % 16 << 4);
        scales[j - 4] |= static_cast<char>(scale / 16 << 6);
        scales[j] |= static_cast<char>(minimum / 16 << 6);
      }
    }
    blocks += scales;
    for (int i = 0; i < 128; ++i) {
      const int64_t low = i / 32 * 64 + i % 32;
      blocks.push_back(static_cast<char>(CodeOf(row, low, 16) |
                                         CodeOf(row, low + 32, 16) << 4));
    }
  }
  const AlignedBytes bytes(
      RawGguf().Tensor("w", {256, 2}, kQ4_K, blocks).Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  const CodedMatrix* w = file->FindCoded("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->form().offset, CodeOffset::kMinimums);
  EXPECT_EQ(w->form().groups(), 8);
  for (int64_t row = 0; row < 2; ++row) {
    std::vector<uint8_t> codes(256);
    std::vector<float> scales(8), minimums(8);
    w->Read(row, 1,
            {absl::MakeSpan(codes), absl::MakeSpan(scales),
             absl::MakeSpan(minimums)});
    for (int j = 0; j < 8; ++j) {
      EXPECT_EQ(scales[j], 2.0f * static_cast<float>(10 + j));
      EXPECT_EQ(minimums[j], -0.5f * static_cast<float>(50 - j));
    }
    for (int64_t i = 0; i < 256; ++i) ASSERT_EQ(codes[i], CodeOf(row, i, 16));
  }
}

TEST(BlockMatrixOfFileTest, OnlyMatricesOfTheseTypesHaveCodes) {
  const AlignedBytes bytes(
      RawGguf()
          .Tensor("f32", {2, 2}, 0, std::string(16, 'x'))
          .Tensor("q5_0", {32, 2}, kQ5_0, std::string(44, 'x'))
          .Tensor("row", {32}, kQ4_0, std::string(18, 'x'))
          .Tensor("cube", {32, 2, 2}, kQ4_0, std::string(72, 'x'))
          .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  for (const char* name : {"f32", "q5_0", "row", "cube", "absent"}) {
    EXPECT_EQ(file->FindCoded(name), nullptr) << name;
  }
}

}  // namespace
}  // namespace nibble
