#include "runtime/gguf_vocabulary.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/gguf.h"
#include "testing/gguf_builder.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using ::nibble::testing::GgufBuilder;
using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<GgufVocabulary> Read(const GgufBuilder& builder) {
  const std::string path = absl::StrCat(
      ::testing::TempDir(), "/",
      ::testing::UnitTest::GetInstance()->current_test_info()->name(), ".gguf");
  builder.Write(path);
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  return ReadGgufVocabulary(**file);
}

// A vocabulary of four tokens without scores, types and special ids.
GgufBuilder Minimal() {
  GgufBuilder builder;
  builder.String("general.architecture", "llama")
      .String("tokenizer.ggml.model", "llama")
      .Strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a"});
  return builder;
}

TEST(GgufVocabularyTest, ReadsEveryField) {
  GgufBuilder builder;
  builder.String("tokenizer.ggml.model", "gpt2")
      .String("tokenizer.ggml.pre", "llama-bpe")
      .Strings("tokenizer.ggml.tokens", {"a", "b", "ab", "<e>"})
      .Floats("tokenizer.ggml.scores", {0, -1, -2, 0.5f})
      .Ints("tokenizer.ggml.token_type", {1, 1, 1, 3})
      .Strings("tokenizer.ggml.merges", {"a b"})
      .Uint("tokenizer.ggml.bos_token_id", 0)
      .Uint("tokenizer.ggml.eos_token_id", 3)
      .Uint("tokenizer.ggml.unknown_token_id", 1)
      .Bool("tokenizer.ggml.add_bos_token", true)
      .Bool("tokenizer.ggml.add_eos_token", false)
      .Bool("tokenizer.ggml.add_space_prefix", false);
  NIBBLE_ASSERT_OK_AND_ASSIGN(GgufVocabulary vocabulary, Read(builder));
  EXPECT_THAT(vocabulary.source, HasSubstr("ReadsEveryField.gguf"));
  EXPECT_EQ(vocabulary.model, "gpt2");
  EXPECT_EQ(vocabulary.pre, "llama-bpe");
  EXPECT_THAT(vocabulary.tokens, ::testing::ElementsAre("a", "b", "ab", "<e>"));
  EXPECT_THAT(vocabulary.scores, ::testing::ElementsAre(0, -1, -2, 0.5f));
  EXPECT_THAT(vocabulary.token_types, ::testing::ElementsAre(1, 1, 1, 3));
  EXPECT_THAT(vocabulary.merges, ::testing::ElementsAre("a b"));
  EXPECT_EQ(vocabulary.bos_id, 0);
  EXPECT_EQ(vocabulary.eos_id, 3);
  EXPECT_EQ(vocabulary.unknown_id, 1);
  EXPECT_EQ(vocabulary.add_bos, true);
  EXPECT_EQ(vocabulary.add_eos, false);
  EXPECT_EQ(vocabulary.add_space_prefix, false);
}

TEST(GgufVocabularyTest, LeavesAbsentFieldsUnset) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(GgufVocabulary vocabulary, Read(Minimal()));
  EXPECT_EQ(vocabulary.pre, "");
  EXPECT_TRUE(vocabulary.scores.empty());
  EXPECT_TRUE(vocabulary.token_types.empty());
  EXPECT_FALSE(vocabulary.bos_id.has_value());
  EXPECT_FALSE(vocabulary.add_bos.has_value());
}

TEST(GgufVocabularyTest, AllBitsSetMeansNoSuchToken) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      GgufVocabulary vocabulary,
      Read(Minimal().Uint("tokenizer.ggml.bos_token_id", 0xFFFFFFFF)));
  EXPECT_FALSE(vocabulary.bos_id.has_value());
}

TEST(GgufVocabularyTest, FileWithoutVocabularyIsNotFound) {
  GgufBuilder builder;
  builder.String("general.architecture", "llama");
  EXPECT_THAT(Read(builder), StatusIs(absl::StatusCode::kNotFound,
                                      HasSubstr("tokenizer.ggml.tokens")));
}

TEST(GgufVocabularyTest, RejectsModelWithoutTokens) {
  GgufBuilder builder;
  builder.String("tokenizer.ggml.model", "llama");
  EXPECT_THAT(Read(builder), StatusIs(absl::StatusCode::kNotFound,
                                      HasSubstr("tokenizer.ggml.tokens")));
}

TEST(GgufVocabularyTest, RejectsEmptyTokenList) {
  GgufBuilder builder;
  builder.String("tokenizer.ggml.model", "llama")
      .Strings("tokenizer.ggml.tokens", {});
  EXPECT_THAT(Read(builder),
              StatusIs(kInvalid, HasSubstr("tokenizer.ggml.tokens")));
}

TEST(GgufVocabularyTest, RejectsScoresOfAnotherLength) {
  EXPECT_THAT(Read(Minimal().Floats("tokenizer.ggml.scores", {0, 0, 0})),
              StatusIs(kInvalid, AllOf(HasSubstr(".gguf"),
                                       HasSubstr("tokenizer.ggml.scores"))));
}

TEST(GgufVocabularyTest, RejectsTypesOfAnotherLength) {
  EXPECT_THAT(
      Read(Minimal().Ints("tokenizer.ggml.token_type", {1, 1, 1, 1, 1})),
      StatusIs(kInvalid, HasSubstr("tokenizer.ggml.token_type")));
}

TEST(GgufVocabularyTest, RejectsScoresThatAreNotNumbers) {
  for (float score : {std::numeric_limits<float>::quiet_NaN(),
                      -std::numeric_limits<float>::infinity()}) {
    EXPECT_THAT(
        Read(Minimal().Floats("tokenizer.ggml.scores", {0, score, 0, 0})),
        StatusIs(kInvalid, HasSubstr("token 1")));
  }
}

TEST(GgufVocabularyTest, RejectsUnknownTokenTypes) {
  for (int32_t type : {0, 7, -1}) {
    EXPECT_THAT(
        Read(Minimal().Ints("tokenizer.ggml.token_type", {1, 1, type, 1})),
        StatusIs(kInvalid, HasSubstr("token 2")));
  }
}

TEST(GgufVocabularyTest, RejectsSpecialIdsOutsideTheVocabulary) {
  for (const char* name : {"bos", "eos", "unknown"}) {
    const std::string key = absl::StrCat("tokenizer.ggml.", name, "_token_id");
    for (uint32_t id : {4u, 1000000u, 0xFFFFFFFEu}) {
      EXPECT_THAT(Read(Minimal().Uint(key, id)),
                  StatusIs(kInvalid, HasSubstr(key)))
          << id;
    }
    EXPECT_THAT(Read(Minimal().Uint(key, 3)), IsOk());
  }
}

TEST(GgufVocabularyTest, RejectsKeysOfTheWrongType) {
  const std::vector<std::pair<std::string, GgufBuilder>> cases = {
      {"tokenizer.ggml.scores",
       Minimal().Ints("tokenizer.ggml.scores", {1, 2, 3, 4})},
      {"tokenizer.ggml.scores",
       Minimal().String("tokenizer.ggml.scores", "none")},
      {"tokenizer.ggml.token_type",
       Minimal().Floats("tokenizer.ggml.token_type", {1, 1, 1, 1})},
      {"tokenizer.ggml.merges", Minimal().Uint("tokenizer.ggml.merges", 3)},
      {"tokenizer.ggml.pre", Minimal().Bool("tokenizer.ggml.pre", true)},
      {"tokenizer.ggml.bos_token_id",
       Minimal().String("tokenizer.ggml.bos_token_id", "1")},
      {"tokenizer.ggml.add_bos_token",
       Minimal().Uint("tokenizer.ggml.add_bos_token", 1)},
  };
  for (const auto& [key, builder] : cases) {
    EXPECT_THAT(Read(builder), StatusIs(kInvalid, HasSubstr(key)));
  }
  GgufBuilder tokens;
  tokens.String("tokenizer.ggml.model", "llama")
      .Ints("tokenizer.ggml.tokens", {1, 2, 3});
  EXPECT_THAT(Read(tokens),
              StatusIs(kInvalid, HasSubstr("tokenizer.ggml.tokens")));
}

// The vocabularies of four families, as published.
class PublishedVocabularyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(PublishedVocabularyTest, BecomesATokenizer) {
  const auto path = nibble::testing::SharedDataPath(
      absl::StrCat("vocab-gguf/ggml-vocab-", GetParam(), ".gguf"));
  if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
  NIBBLE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<GgufFile> file,
                              GgufFile::Open(*path));
  NIBBLE_ASSERT_OK_AND_ASSIGN(GgufVocabulary vocabulary,
                              ReadGgufVocabulary(*file));
  NIBBLE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<Tokenizer> tokenizer,
                              MakeTokenizer(vocabulary));
  EXPECT_EQ(tokenizer->vocabulary_size(),
            static_cast<int64_t>(vocabulary.tokens.size()));
  const std::string text = "Hello, world! 123 ёж";
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
}

INSTANTIATE_TEST_SUITE_P(Families, PublishedVocabularyTest,
                         ::testing::Values("llama-spm", "falcon", "gpt-2",
                                           "mpt"));

}  // namespace
}  // namespace nibble
