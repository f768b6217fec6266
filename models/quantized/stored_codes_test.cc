// Words written by hand, one layout each; that every size and setting is read
// as it was packed is the subject of quantized_folder_test.

#include "models/quantized/stored_codes.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

struct Rows {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<float> offsets;
};

Rows Read(const StoredCodes& matrix, int64_t first, int64_t count) {
  const CodedForm& form = matrix.form();
  Rows rows;
  rows.codes.resize(count * form.inputs);
  rows.scales.resize(count * form.groups());
  rows.offsets.resize(count * form.groups(), -1);
  matrix.Read(first, count,
              {absl::MakeSpan(rows.codes), absl::MakeSpan(rows.scales),
               absl::MakeSpan(rows.offsets)});
  return rows;
}

std::vector<F16> Halves(const std::vector<float>& values) {
  std::vector<F16> halves;
  for (const float value : values) halves.push_back(ToF16(value));
  return halves;
}

// Words are written as unsigned and stored as i32.
TensorView WordView(const std::vector<uint32_t>& words, const Shape& shape) {
  return MakeTensorView<int32_t>(
      {reinterpret_cast<const int32_t*>(words.data()), words.size()}, shape);
}

// Eight outputs of eight inputs, two groups. Output r, input k has code
// (r + k) % 16.
class HandWordsTest : public ::testing::Test {
 protected:
  HandWordsTest() {
    matrix_.outputs = 8;
    matrix_.inputs = 8;
    matrix_.group_size = 4;
  }

  void ExpectCodes(const StoredCodes& codes) {
    for (int64_t row = 0; row < 8; ++row) {
      const Rows rows = Read(codes, row, 1);
      for (int64_t k = 0; k < 8; ++k) EXPECT_EQ(rows.codes[k], row + k);
    }
  }

  ModuleTensors matrix_;
};

TEST_F(HandWordsTest, Gptq) {
  const std::vector<uint32_t> codes = {0x76543210u, 0x87654321u, 0x98765432u,
                                       0xA9876543u, 0xBA987654u, 0xCBA98765u,
                                       0xDCBA9876u, 0xEDCBA987u};
  const std::vector<uint32_t> zeros = {0x76543210u, 0xFEDCBA98u};
  const std::vector<F16> scales =
      Halves({1, 2, 3, 4, 5, 6, 7, -8, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5});
  matrix_.layout = CodeLayout::kGptq;
  matrix_.codes = WordView(codes, {1, 8});
  matrix_.zeros = WordView(zeros, {2, 1});
  matrix_.scales = MakeTensorView<F16>(scales, {2, 8});
  StoredCodes stored(matrix_, nullptr);
  EXPECT_EQ(stored.form().offset, CodeOffset::kZeros);
  EXPECT_EQ(stored.stored_bytes(), 32 + 8 + 32);
  ExpectCodes(stored);
  Rows last = Read(stored, 7, 1);
  EXPECT_THAT(last.scales, ElementsAre(-8, 7.5));
  EXPECT_THAT(last.offsets, ElementsAre(7, 15));
  matrix_.zeros_less_one = true;
  // 0xFEDCBA98 + 0x11111111 carries out of the top nibble, which drops, and so
  // do all the words that a writer made by subtracting 0x11111111.
  last = Read(StoredCodes(matrix_, nullptr), 7, 1);
  EXPECT_THAT(last.offsets, ElementsAre(8, 0));
  stored.SetSymmetric();
  EXPECT_THAT(Read(stored, 7, 1).offsets, Each(-1));  // not written
}

TEST_F(HandWordsTest, BorrowsOfGptqsFirstFormatAreUndone) {
  // Zeros 0, 1, 0, 0, 15, 8, 0, 3 as a word, less 0x11111111.
  const std::vector<uint32_t> zeros = {0x308F0010u - 0x11111111u};
  const std::vector<uint32_t> codes(8);
  const std::vector<float> scales(8, 1.0f);
  matrix_.group_size = 8;
  matrix_.zeros_less_one = true;
  matrix_.codes = WordView(codes, {1, 8});
  matrix_.zeros = WordView(zeros, {1, 1});
  matrix_.scales = MakeTensorView<float>(scales, {1, 8});
  EXPECT_THAT(Read(StoredCodes(matrix_, nullptr), 0, 8).offsets,
              ElementsAre(0, 1, 0, 0, 15, 8, 0, 3));
}

TEST_F(HandWordsTest, AwqGemm) {
  // Input k: outputs 0 2 4 6 1 3 5 7 from the lowest nibble on.
  const std::vector<uint32_t> codes = {0x75316420u, 0x86427531u, 0x97538642u,
                                       0xA8649753u, 0xB975A864u, 0xCA86B975u,
                                       0xDB97CA86u, 0xECA8DB97u};
  const std::vector<uint32_t> zeros = {0x75316420u, 0xFDB9ECA8u};
  const std::vector<float> scales(16, 0.25f);
  matrix_.layout = CodeLayout::kAwqGemm;
  matrix_.codes = WordView(codes, {8, 1});
  matrix_.zeros = WordView(zeros, {2, 1});
  matrix_.scales = MakeTensorView<float>(scales, {2, 8});
  const StoredCodes stored(matrix_, nullptr);
  ExpectCodes(stored);
  EXPECT_THAT(Read(stored, 3, 2).offsets, ElementsAre(3, 11, 4, 12));
}

TEST_F(HandWordsTest, AwqGemv) {
  const std::vector<uint32_t> codes = {0x76543210u, 0x87654321u, 0x98765432u,
                                       0xA9876543u, 0xBA987654u, 0xCBA98765u,
                                       0xDCBA9876u, 0xEDCBA987u};
  // One word of zeros and eight scales a row, of which two are groups'.
  const std::vector<uint32_t> zeros = {0x80, 0x91, 0xA2, 0xB3,
                                       0xC4, 0xD5, 0xE6, 0xF7};
  std::vector<BF16> scales(64);
  for (int row = 0; row < 8; ++row) {
    scales[8 * row] = ToBF16(1.0f + row);
    scales[8 * row + 1] = ToBF16(-1.0f - row);
  }
  matrix_.layout = CodeLayout::kAwqGemv;
  matrix_.codes = WordView(codes, {8, 1});
  matrix_.zeros = WordView(zeros, {8, 1});
  matrix_.scales = MakeTensorView<BF16>(scales, {8, 8});
  const StoredCodes stored(matrix_, nullptr);
  ExpectCodes(stored);
  const Rows rows = Read(stored, 5, 2);
  EXPECT_THAT(rows.scales, ElementsAre(6, -6, 7, -7));
  EXPECT_THAT(rows.offsets, ElementsAre(5, 13, 6, 14));
}

TEST_F(HandWordsTest, CompressedTensors) {
  const std::vector<uint32_t> codes = {0x76543210u, 0x87654321u, 0x98765432u,
                                       0xA9876543u, 0xBA987654u, 0xCBA98765u,
                                       0xDCBA9876u, 0xEDCBA987u};
  const std::vector<uint32_t> zeros = {0x76543210u, 0xFEDCBA98u};
  std::vector<float> scales;
  for (int i = 0; i < 16; ++i) scales.push_back(static_cast<float>(i));
  matrix_.layout = CodeLayout::kCompressedTensors;
  matrix_.codes = WordView(codes, {8, 1});
  matrix_.zeros = WordView(zeros, {1, 2});
  matrix_.scales = MakeTensorView<float>(scales, {8, 2});
  const StoredCodes stored(matrix_, nullptr);
  ExpectCodes(stored);
  const Rows rows = Read(stored, 6, 2);
  EXPECT_THAT(rows.scales, ElementsAre(12, 13, 14, 15));
  EXPECT_THAT(rows.offsets, ElementsAre(6, 14, 7, 15));
}

TEST_F(HandWordsTest, AnInputOrderMovesCodesAndNothingElse) {
  const std::vector<uint32_t> codes(8, 0x76543210u);
  const std::vector<float> scales(16, 1.0f);
  matrix_.codes = WordView(codes, {1, 8});
  matrix_.scales = MakeTensorView<float>(scales, {2, 8});
  matrix_.input_order = {1, 3, 5, 7, 0, 2, 4, 6};
  const StoredCodes stored(matrix_, nullptr);
  EXPECT_EQ(stored.form().offset, CodeOffset::kSymmetric);
  EXPECT_THAT(Read(stored, 2, 1).codes, ElementsAre(1, 3, 5, 7, 0, 2, 4, 6));
  EXPECT_THAT(stored.form().input_order, ElementsAre(1, 3, 5, 7, 0, 2, 4, 6));
}

TEST_F(HandWordsTest, ScalesAreReadWithoutCodesToo) {
  const std::vector<uint32_t> codes(8);
  const std::vector<float> scales(16, 3.0f);
  matrix_.codes = WordView(codes, {1, 8});
  matrix_.scales = MakeTensorView<float>(scales, {2, 8});
  const StoredCodes stored(matrix_, nullptr);
  std::vector<float> read(16);
  stored.Read(0, 8, {{}, absl::MakeSpan(read), {}});
  EXPECT_THAT(read, Each(3.0f));
}

}  // namespace
}  // namespace nibble
