#include "apps/common/content_hash.h"

#include <cstdint>
#include <set>
#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

uint64_t HashOf(absl::string_view bytes) {
  ContentHash hash;
  hash.Add(bytes);
  return hash.Result();
}

// Values of the reference implementation.
TEST(ContentHash, IsXxHash64) {
  EXPECT_EQ(HashOf(""), 0xEF46DB3751D8E999u);
  EXPECT_EQ(HashOf("a"), 0xD24EC4F1A98C6E5Bu);
  EXPECT_EQ(HashOf("abc"), 0x44BC2CF5AD770999u);
  EXPECT_EQ(HashOf("Nobody inspects the spammish repetition"),
            0xFBCEA83C8A378BF1u);
}

TEST(ContentHash, PiecesMakeNoDifference) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  for (size_t piece = 1; piece < 100; ++piece) {
    ContentHash hash;
    for (size_t at = 0; at < text.size(); at += piece) {
      hash.Add(absl::string_view(text).substr(at, piece));
    }
    EXPECT_EQ(hash.Result(), HashOf(text)) << piece;
  }
}

TEST(ContentHash, EveryBitCounts) {
  std::string text(100, '\0');
  std::set<uint64_t> seen = {HashOf(text)};
  for (size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      text[i] = static_cast<char>(1 << bit);
      EXPECT_TRUE(seen.insert(HashOf(text)).second) << i << " " << bit;
    }
    text[i] = '\0';
  }
  text.pop_back();
  EXPECT_TRUE(seen.insert(HashOf(text)).second);
}

}  // namespace
}  // namespace nibble
