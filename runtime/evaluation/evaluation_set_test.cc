#include "runtime/evaluation/evaluation_set.h"

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/evaluation/request.h"
#include "runtime/evaluation/task.h"
#include "testing/matchers.h"
#include "tokenizer/test_vocabularies.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using ::nibble::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
// Tokens are bytes; from 256 on, two merges and "<|end|>".
constexpr int32_t kSpaceA = 256;  // " a"
constexpr int32_t kBc = 257;      // "bc"
constexpr int32_t kEnd = 258;

// GPT-2's form; " a" and "bc" are tokens.
nlohmann::json Vocabulary() {
  return ByteLevelJson({{"\xC4\xA0", "a"}, {"b", "c"}});
}

std::unique_ptr<Tokenizer> Plain() { return FromJson(Vocabulary()); }

// Puts "<|end|>" before a text.
std::unique_ptr<Tokenizer> WithBos() {
  nlohmann::json json = Vocabulary();
  json["post_processor"] = nlohmann::json::parse(R"({
      "type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}},
               {"Sequence": {"id": "B", "type_id": 1}}],
      "special_tokens": {"<|end|>":
          {"id": "<|end|>", "ids": [258], "tokens": ["<|end|>"]}}})");
  return FromJson(json);
}

TEST(MakeSequence, ScoresWhatStandsBehindTheTokensOfTheContext) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence sequence,
                              MakeSequence("xy", " abc", *Plain(), 100));
  EXPECT_THAT(sequence.tokens, ElementsAre('x', 'y', kSpaceA, kBc));
  EXPECT_EQ(sequence.first, 2);
  EXPECT_EQ(sequence.scored(), 2);
}

TEST(MakeSequence, MovesTrailingSpaceToTheContinuation) {
  // Alone, "x " would be two tokens, and the first of the continuation "a".
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence sequence,
                              MakeSequence("x ", "a", *Plain(), 100));
  EXPECT_THAT(sequence.tokens, ElementsAre('x', kSpaceA));
  EXPECT_EQ(sequence.first, 1);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence lines,
                              MakeSequence("x \n", "a", *Plain(), 100));
  EXPECT_EQ(lines.first, 1);
  EXPECT_EQ(lines.scored(), 3);
}

TEST(MakeSequence, PutsTheBosFirstWhereTheTokenizerAddsOne) {
  const auto tokenizer = WithBos();
  ASSERT_TRUE(tokenizer->adds_bos());
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence sequence,
                              MakeSequence("xy", " a", *tokenizer, 100));
  EXPECT_THAT(sequence.tokens, ElementsAre(kEnd, 'x', 'y', kSpaceA));
  EXPECT_EQ(sequence.first, 3);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence empty,
                              MakeSequence("", "z", *tokenizer, 100));
  EXPECT_THAT(empty.tokens, ElementsAre(kEnd, 'z'));
  EXPECT_EQ(empty.first, 1);
}

TEST(MakeSequence, NeedsATokenBeforeAnEmptyContext) {
  EXPECT_THAT(MakeSequence("", "z", *Plain(), 100).status(),
              StatusIs(kInvalid, HasSubstr("empty")));
}

TEST(MakeSequence, KeepsTheEndOfWhatDoesNotFit) {
  // Four tokens fit: three that are read and one that is only scored.
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence sequence,
                              MakeSequence("uvwxy", "z!", *Plain(), 3));
  EXPECT_THAT(sequence.tokens, ElementsAre('x', 'y', 'z', '!'));
  EXPECT_EQ(sequence.first, 2);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence whole,
                              MakeSequence("xy", "z!", *Plain(), 3));
  EXPECT_THAT(whole.tokens, ElementsAre('x', 'y', 'z', '!'));
  // The BOS goes too, as in lm-evaluation-harness.
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence bos,
                              MakeSequence("xy", "z!", *WithBos(), 3));
  EXPECT_THAT(bos.tokens, ElementsAre('x', 'y', 'z', '!'));
  EXPECT_EQ(bos.first, 2);
}

TEST(MakeSequence, RefusesContinuationsThatCannotBeScored) {
  EXPECT_THAT(MakeSequence("xy", "", *Plain(), 100).status(),
              StatusIs(kInvalid, HasSubstr("adds no tokens")));
  EXPECT_THAT(MakeSequence("xy", "12345", *Plain(), 4).status(),
              StatusIs(kInvalid, AllOf(HasSubstr("5 tokens"), HasSubstr("4"))));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence fits,
                              MakeSequence("xy", "1234", *Plain(), 4));
  EXPECT_EQ(fits.first, 1);
}

TEST(MakeSequence, SpecialTokensInATextStayText) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const ScoredSequence sequence,
                              MakeSequence("x", "<|end|>", *Plain(), 100));
  EXPECT_EQ(sequence.scored(), 7);
  EXPECT_THAT(sequence.tokens, ::testing::Not(::testing::Contains(kEnd)));
}

class LoadTest : public ::testing::Test {
 protected:
  absl::StatusOr<EvaluationSet> Load(TaskKind kind, const std::string& bytes,
                                     const Tokenizer& tokenizer) {
    const std::string path = ::testing::TempDir() + "/set_file";
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    const TaskSpec spec = {kind, path, std::string(TaskKindName(kind))};
    return LoadEvaluationSet({spec}, tokenizer, options_);
  }

  EvaluationSetOptions options_ = {/*context=*/100, /*window=*/4, /*limit=*/0};
};

std::vector<std::vector<int32_t>> Windows(const EvaluationSet& set) {
  std::vector<std::vector<int32_t>> windows;
  for (const EvaluationItem& item : set.tasks[0].items) {
    EXPECT_EQ(item.sequences.size(), 1u);
    EXPECT_EQ(item.sequences[0].first, 1);
    windows.push_back(item.sequences[0].tokens);
  }
  return windows;
}

TEST_F(LoadTest, CutsATextIntoWindows) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const EvaluationSet set,
      Load(TaskKind::kPerplexity, "0123456789", *Plain()));
  EXPECT_THAT(Windows(set), ElementsAre(ElementsAre('0', '1', '2', '3'),
                                        ElementsAre('4', '5', '6', '7'),
                                        ElementsAre('8', '9')));
  EXPECT_EQ(set.tasks[0].tokens_per_word, 10.0);
}

TEST_F(LoadTest, PutsTheBosBeforeEachWindow) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const EvaluationSet set,
                              Load(TaskKind::kPerplexity, "01234", *WithBos()));
  EXPECT_THAT(Windows(set), ElementsAre(ElementsAre(kEnd, '0', '1', '2', '3'),
                                        ElementsAre(kEnd, '4')));
}

TEST_F(LoadTest, LeavesOutAWindowInWhichNothingIsScored) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const EvaluationSet set,
                              Load(TaskKind::kPerplexity, "01234", *Plain()));
  EXPECT_EQ(set.tasks[0].items.size(), 1u);
  EXPECT_THAT(
      Load(TaskKind::kPerplexity, "0", *Plain()).status(),
      StatusIs(kInvalid, AllOf(HasSubstr("set_file"), HasSubstr("too short"))));
}

TEST_F(LoadTest, LimitsItems) {
  options_.limit = 2;
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const EvaluationSet set,
      Load(TaskKind::kPerplexity, "0123456789", *Plain()));
  EXPECT_EQ(set.tasks[0].items.size(), 2u);
  options_.limit = -1;
  EXPECT_THAT(Load(TaskKind::kPerplexity, "0123456789", *Plain()).status(),
              StatusIs(kInvalid, HasSubstr("limit")));
}

TEST_F(LoadTest, RefusesWindowsThatTheModelCannotRead) {
  // Without BOS the last token is not read, so one more fits.
  for (const auto& [window, ok] : std::vector<std::pair<int64_t, bool>>{
           {0, false}, {1, false}, {2, true}, {101, true}, {102, false}}) {
    options_.window = window;
    EXPECT_EQ(Load(TaskKind::kPerplexity, "0123", *Plain()).ok(), ok) << window;
  }
  for (const auto& [window, ok] : std::vector<std::pair<int64_t, bool>>{
           {0, false}, {1, true}, {100, true}, {101, false}}) {
    options_.window = window;
    EXPECT_EQ(Load(TaskKind::kPerplexity, "0123", *WithBos()).ok(), ok)
        << window;
  }
}

TEST_F(LoadTest, CountsCharactersWithoutTheLeadingSpace) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const EvaluationSet set,
      Load(TaskKind::kPiqa,
           R"({"goal": "g", "sol1": "four", "sol2": "zwölf€", "label": 1})",
           *Plain()));
  const EvaluationItem& item = set.tasks[0].items[0];
  ASSERT_EQ(item.sequences.size(), 2u);
  EXPECT_EQ(item.sequences[0].characters, 4);
  EXPECT_EQ(item.sequences[1].characters, 6);
  EXPECT_EQ(item.gold, 1);
}

TEST_F(LoadTest, NamesTheLineOfARequestThatCannotBeScored) {
  EXPECT_THAT(
      Load(TaskKind::kWinoGrande,
           R"({"sentence": "_ b", "option1": "x", "option2": "", "answer": 1})",
           *Plain())
          .status(),
      StatusIs(kInvalid, AllOf(HasSubstr("set_file:1"), HasSubstr("empty"))));
}

}  // namespace
}  // namespace nibble
