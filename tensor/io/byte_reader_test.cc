#include "tensor/io/byte_reader.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

absl::Span<const std::byte> BytesOf(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

TEST(ByteReaderTest, ReadsLittleEndianAtAnyOffset) {
  const std::string text("\1\2\0\0\0\xff\xff", 7);
  ByteReader reader(BytesOf(text));
  uint8_t small = 0;
  uint32_t word = 0;
  int16_t negative = 0;
  EXPECT_TRUE(reader.Read(&small));
  EXPECT_TRUE(reader.Read(&word));
  EXPECT_TRUE(reader.Read(&negative));
  EXPECT_EQ(small, 1);
  EXPECT_EQ(word, 2u);
  EXPECT_EQ(negative, -1);
  EXPECT_EQ(reader.position(), 7u);
  EXPECT_EQ(reader.remaining(), 0u);
}

TEST(ByteReaderTest, AReadThatDoesNotFitMovesNothing) {
  const std::string text("\1\2\3");
  ByteReader reader(BytesOf(text));
  uint32_t word = 99;
  absl::Span<const std::byte> bytes;
  absl::string_view string;
  EXPECT_FALSE(reader.Read(&word));
  EXPECT_FALSE(reader.ReadBytes(4, &bytes));
  EXPECT_FALSE(reader.ReadBytes(~uint64_t{0}, &bytes));
  EXPECT_FALSE(reader.ReadString(100, &string));
  EXPECT_EQ(word, 99u);
  EXPECT_EQ(reader.position(), 0u);
  EXPECT_TRUE(reader.ReadBytes(3, &bytes));
}

TEST(ByteReaderTest, ReadsStringsUpToTheLimit) {
  // Octal escapes, so that the letters after them stay letters.
  const std::string text("\003\0\0\0\0\0\0\000abcd", 12);
  absl::string_view string;
  ByteReader tight(BytesOf(text));
  EXPECT_FALSE(tight.ReadString(2, &string));
  EXPECT_EQ(tight.position(), 0u);
  ByteReader reader(BytesOf(text));
  EXPECT_TRUE(reader.ReadString(3, &string));
  EXPECT_EQ(string, "abc");
  EXPECT_EQ(reader.remaining(), 1u);
}

TEST(ByteReaderTest, RejectsStringPastTheEnd) {
  const std::string five("\005\0\0\0\0\0\0\000abcd", 12);
  const std::string most = std::string(8, '\xff') + "abcd";
  for (const std::string& text : {five, most}) {
    ByteReader reader(BytesOf(text));
    absl::string_view string;
    EXPECT_FALSE(reader.ReadString(~uint64_t{0}, &string));
    EXPECT_EQ(reader.position(), 0u);
  }
}

}  // namespace
}  // namespace nibble
