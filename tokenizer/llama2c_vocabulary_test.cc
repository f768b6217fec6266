#include "tokenizer/llama2c_vocabulary.h"

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using Ids = std::vector<int32_t>;
using ::testing::HasSubstr;

void Append(uint32_t value, std::string* out) {
  for (int i = 0; i < 4; ++i) out->push_back(value >> (8 * i) & 0xFF);
}

void AppendToken(const std::string& text, float score, std::string* out) {
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  Append(bits, out);
  Append(text.size(), out);
  *out += text;
}

std::string SmallFile() {
  std::string out;
  Append(6, &out);
  AppendToken("<unk>", 0, &out);
  AppendToken("\n<s>\n", 0, &out);
  AppendToken("\n</s>\n", 0, &out);
  for (int byte = 0; byte < 256; ++byte) {
    AppendToken(absl::StrFormat("<0x%02X>", byte), 0, &out);
  }
  float score = 0;
  for (const char* piece : {" a", " ", "a", "b"}) {
    AppendToken(piece, --score, &out);
  }
  return out;
}

TEST(Llama2cVocabularyTest, EncodesAndDecodes) {
  auto spec = ParseLlama2cVocabulary(SmallFile(), "tok.bin");
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto tokenizer = Tokenizer::Create(*std::move(spec));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode("a ab!"), Ids({1, 259, 259, 262, 3 + '!'}));
  EXPECT_EQ((*tokenizer)->Decode({1, 259, 259, 262, 3 + '!'}), "a ab!");
}

TEST(Llama2cVocabularyTest, RejectsTruncationAnywhere) {
  const std::string bytes = SmallFile();
  size_t whole = 0;
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto spec = ParseLlama2cVocabulary(bytes.substr(0, size), "tok.bin");
    if (spec.ok()) {
      // Only between two tokens, where nothing shows what is missing.
      ++whole;
      continue;
    }
    EXPECT_THAT(spec.status().message(), HasSubstr("tok.bin: token "));
  }
  EXPECT_EQ(whole, 4u);
}

TEST(Llama2cVocabularyTest, RejectsLengthsPastTheEnd) {
  std::string bytes = SmallFile();
  bytes[4 + 4 + 3] = '\x80';  // the first token's length, now negative
  EXPECT_THAT(ParseLlama2cVocabulary(bytes, "tok.bin").status().message(),
              HasSubstr("token 0 claims"));
}

}  // namespace
}  // namespace nibble
