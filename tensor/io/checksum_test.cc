#include "tensor/io/checksum.h"

#include <random>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

absl::Span<const std::byte> Bytes(absl::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

// The definition, bit by bit: the reflected polynomial 0x1EDC6F41.
uint32_t Reference(absl::Span<const std::byte> bytes) {
  uint32_t crc = ~uint32_t{0};
  for (const std::byte byte : bytes) {
    crc ^= static_cast<uint32_t>(byte);
    for (int i = 0; i < 8; ++i) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    }
  }
  return ~crc;
}

std::vector<std::byte> RandomBytes(size_t count) {
  std::mt19937 random(1);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(Crc32cTest, PublishedValues) {
  EXPECT_EQ(Crc32c({}), 0u);
  EXPECT_EQ(Crc32c(Bytes("123456789")), 0xE3069283u);
  EXPECT_EQ(Crc32c(Bytes(std::string(32, '\0'))), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(Bytes(std::string(32, '\xFF'))), 0x62A8AB43u);
}

// Lengths around the blocks that are summed side by side, and starts that are
// not aligned.
TEST(Crc32cTest, EqualsTheDefinition) {
  constexpr size_t kBlock = 3 * 32768;
  const std::vector<std::byte> bytes = RandomBytes(2 * kBlock + 100);
  for (const size_t length :
       {size_t{1}, size_t{7}, size_t{8}, size_t{63}, size_t{1000}, kBlock - 1,
        kBlock, kBlock + 1, 2 * kBlock, 2 * kBlock + 90}) {
    for (const size_t start : {0, 1, 9}) {
      const auto part = absl::MakeConstSpan(bytes).subspan(start, length);
      EXPECT_EQ(Crc32c(part), Reference(part)) << length << " from " << start;
    }
  }
}

TEST(Crc32cTest, PiecesGiveTheSameAsTheWhole) {
  const std::vector<std::byte> bytes = RandomBytes(300'000);
  const auto whole = absl::MakeConstSpan(bytes);
  const uint32_t expected = Crc32c(whole);
  for (const size_t cut :
       {size_t{0}, size_t{1}, size_t{100'000}, whole.size()}) {
    const auto first = whole.first(cut), second = whole.subspan(cut);
    EXPECT_EQ(ExtendCrc32c(Crc32c(first), second), expected);
    EXPECT_EQ(ConcatCrc32c(Crc32c(first), Crc32c(second), second.size()),
              expected);
  }
}

}  // namespace
}  // namespace nibble
