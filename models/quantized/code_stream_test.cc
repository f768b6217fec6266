#include "models/quantized/code_stream.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using testing::RandomValues;

TEST(CodeStreamTest, NibblesStandLowestFirst) {
  const std::vector<uint32_t> words = {0x76543210u, 0xFEDCBA98u};
  std::vector<uint8_t> codes(11);
  UnpackCodes(words, 4, absl::MakeSpan(codes));
  EXPECT_THAT(codes, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
}

TEST(CodeStreamTest, ThreeBitCodesLieAcrossWords) {
  // Code 10 is the top two bits of word 0 and the lowest of word 1, code 21 the
  // top bit of word 1 and the two lowest of word 2.
  const std::vector<uint32_t> words = {0x40000000u, 0x80000001u, 0x00000002u};
  std::vector<uint8_t> codes(32);
  UnpackCodes(words, 3, absl::MakeSpan(codes));
  for (size_t i = 0; i < codes.size(); ++i) {
    EXPECT_EQ(codes[i], i == 10 || i == 21 ? 5 : 0) << i;
  }
}

TEST(CodeStreamTest, EveryWidthAndLengthReadsEachBitInItsPlace) {
  RandomValues random(1);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t count : {0, 1, 7, 31, 32, 33, 64, 95, 200}) {
      std::vector<uint32_t> words(CodeWords(count, bits));
      for (uint32_t& word : words) word = static_cast<uint32_t>(random.Bits());
      // A guard behind the codes that must not be written.
      std::vector<uint8_t> codes(static_cast<size_t>(count) + 1, 0xEE);
      UnpackCodes(words, bits, absl::MakeSpan(codes).first(count));
      EXPECT_EQ(codes.back(), 0xEE);
      for (int64_t i = 0; i < count; ++i) {
        uint32_t expected = 0;
        for (int b = 0; b < bits; ++b) {
          const int64_t bit = i * bits + b;
          expected |= (words[bit / 32] >> (bit % 32) & 1) << b;
        }
        ASSERT_EQ(codes[i], expected) << bits << " bits, code " << i;
        ASSERT_EQ(CodeAt([&](int64_t w) { return words[w]; }, bits, i),
                  expected);
      }
    }
  }
}

}  // namespace
}  // namespace nibble
