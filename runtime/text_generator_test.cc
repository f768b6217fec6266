#include "runtime/text_generator.h"

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/beam_search.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

// The model that comes with the project: real text from a real tokenizer.
class TextGeneratorTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    EngineOptions options;
    options.model_path =
        std::filesystem::path(
            nibble::testing::RunfilePath("apps/bundled_model/config.json"))
            .parent_path()
            .string();
    absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Open(options);
    ASSERT_THAT(engine, IsOk());
    ASSERT_NE((*engine)->tokenizer(), nullptr);
    engine_ = engine->release();
  }
  static void TearDownTestSuite() { delete engine_; }

  static std::vector<int32_t> Prompt(absl::string_view text = "The prince") {
    return engine_->tokenizer()->Encode(text);
  }

  static GenerateOptions Greedy(int64_t max_tokens = 40) {
    GenerateOptions options;
    options.max_tokens = max_tokens;
    options.ignore_eos = true;
    return options;
  }

  static Generation Run(const GenerateOptions& options,
                        const TextCallback& on_text = nullptr) {
    absl::StatusOr<Generation> result =
        Generate(*engine_, Prompt(), options, on_text);
    EXPECT_THAT(result, IsOk());
    return result.value_or(Generation());
  }

  static absl::Status ErrorOf(const GenerateOptions& options) {
    return Generate(*engine_, Prompt(), options).status();
  }

  static Engine* engine_;
};

Engine* TextGeneratorTest::engine_ = nullptr;

TEST_F(TextGeneratorTest, GreedyTextIsThatOfStepwiseDecoding) {
  const Generation result = Run(Greedy());
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
  std::vector<float> logits(engine_->vocabulary());
  ASSERT_THAT(engine_->Prefill(*sequence, Prompt(), absl::MakeSpan(logits)),
              IsOk());
  std::vector<int32_t> ids;
  while (ids.size() < 40) {
    ids.push_back(static_cast<int32_t>(
        std::max_element(logits.begin(), logits.end()) - logits.begin()));
    ASSERT_THAT(engine_->Decode(*sequence, ids.back(), absl::MakeSpan(logits)),
                IsOk());
  }
  EXPECT_EQ(result.token_ids, ids);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.timings.decode_steps, 39);
  EXPECT_GT(result.timings.prefill, absl::ZeroDuration());
  EXPECT_GT(result.timings.decode, absl::ZeroDuration());

  // The text is what the ids add to the prompt's.
  std::vector<int32_t> all = Prompt();
  all.insert(all.end(), ids.begin(), ids.end());
  EXPECT_EQ("The prince" + result.text, engine_->tokenizer()->Decode(all));
}

TEST_F(TextGeneratorTest, StreamedPiecesMakeUpTheText) {
  std::string streamed;
  int pieces = 0;
  const Generation result = Run(Greedy(), [&](absl::string_view text) {
    EXPECT_FALSE(text.empty());
    absl::StrAppend(&streamed, text);
    ++pieces;
    return true;
  });
  EXPECT_EQ(streamed, result.text);
  EXPECT_GT(pieces, 10);
}

// Cuts the text at every place and length: many of the strings span tokens.
TEST_F(TextGeneratorTest, NothingOfAStopStringIsEverShown) {
  const std::string whole = Run(Greedy(24)).text;
  for (size_t begin = 0; begin + 12 < whole.size(); begin += 5) {
    for (size_t length : {1, 4, 11}) {
      const std::string stop = whole.substr(begin, length);
      GenerateOptions options = Greedy(24);
      options.stop = {"never found", stop, stop + "#"};
      std::string streamed;
      const Generation result = Run(options, [&](absl::string_view text) {
        absl::StrAppend(&streamed, text);
        return true;
      });
      const std::string expected = whole.substr(0, whole.find(stop));
      ASSERT_EQ(result.text, expected) << "stop '" << stop << "'";
      EXPECT_EQ(streamed, expected);
      EXPECT_EQ(result.finish_reason, FinishReason::kStop);
      EXPECT_FALSE(result.cancelled);
    }
  }
}

TEST_F(TextGeneratorTest, HeldBackTextIsShownAtTheEnd) {
  const std::string whole = Run(Greedy()).text;
  GenerateOptions options = Greedy();
  options.stop = {whole.substr(whole.size() - 6) + "#"};
  const Generation result = Run(options);
  EXPECT_EQ(result.text, whole);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

TEST_F(TextGeneratorTest, StopsAtAnEndOfTextToken) {
  GenerateOptions options = Greedy();
  ASSERT_FALSE(engine_->eos_ids().empty());
  const int32_t eos = engine_->eos_ids()[0];
  options.sampling.logit_bias[eos] = 1000;
  options.ignore_eos = false;
  Generation result = Run(options);
  EXPECT_THAT(result.token_ids, ::testing::ElementsAre(eos));
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);

  options.ignore_eos = true;
  result = Run(options);
  EXPECT_EQ(result.token_ids, std::vector<int32_t>(40, eos));
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

TEST_F(TextGeneratorTest, StopsAtATokenThatTheCallerNames) {
  const Generation whole = Run(Greedy());
  GenerateOptions options = Greedy();
  options.ignore_eos = false;
  options.stop_token_ids = {whole.token_ids[7]};
  const Generation result = Run(options);
  ASSERT_LE(result.token_ids.size(), 8u);
  EXPECT_EQ(result.token_ids.back(), whole.token_ids[7]);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_TRUE(absl::StartsWith(whole.text, result.text));
}

TEST_F(TextGeneratorTest, OneTokenIsOneToken) {
  const Generation result = Run(Greedy(1));
  EXPECT_EQ(result.token_ids.size(), 1u);
  EXPECT_EQ(result.timings.decode_steps, 0);
}

TEST_F(TextGeneratorTest, CallbackEndsTheGeneration) {
  const std::string whole = Run(Greedy()).text;
  int calls = 0;
  const Generation result =
      Run(Greedy(), [&](absl::string_view) { return ++calls < 3; });
  EXPECT_EQ(calls, 3);
  EXPECT_LT(result.token_ids.size(), 10u);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_TRUE(absl::StartsWith(whole, result.text));
  EXPECT_FALSE(result.text.empty());
}

TEST_F(TextGeneratorTest, CancellationKeepsWhatWasMade) {
  const Generation whole = Run(Greedy());
  std::atomic<bool> cancel = false;
  GenerateOptions options = Greedy();
  options.cancel = &cancel;
  int calls = 0;
  const Generation result = Run(options, [&](absl::string_view) {
    if (++calls == 5) cancel = true;
    return true;
  });
  EXPECT_TRUE(result.cancelled);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_TRUE(absl::StartsWith(whole.text, result.text));
  EXPECT_GE(result.token_ids.size(), 5u);
  EXPECT_LT(result.token_ids.size(), 40u);
}

TEST_F(TextGeneratorTest, CancelledBeforeTheStartGivesNothing) {
  const std::atomic<bool> cancel = true;
  GenerateOptions options = Greedy();
  options.cancel = &cancel;
  const Generation result = Run(options);
  EXPECT_TRUE(result.cancelled);
  EXPECT_TRUE(result.token_ids.empty());
}

TEST_F(TextGeneratorTest, SamplingFollowsTheSeed) {
  GenerateOptions options = Greedy();
  options.sampling.temperature = 1.2;
  options.sampling.top_p = 0.95;
  options.sampling.seed = 1;
  const std::vector<int32_t> first = Run(options).token_ids;
  EXPECT_EQ(Run(options).token_ids, first);
  options.sampling.seed = 2;
  EXPECT_NE(Run(options).token_ids, first);
}

TEST_F(TextGeneratorTest, EndsWhereTheContextIsFull) {
  std::vector<int32_t> prompt(engine_->context() - 3, 300);
  absl::StatusOr<Generation> result = Generate(*engine_, prompt, Greedy(100));
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->token_ids.size(), 4u);  // the last one is not read
  EXPECT_EQ(result->finish_reason, FinishReason::kLength);

  prompt.resize(engine_->context(), 300);
  result = Generate(*engine_, prompt, Greedy(100));
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->token_ids.size(), 1u);

  prompt.push_back(300);
  EXPECT_THAT(Generate(*engine_, prompt, Greedy(100)),
              StatusIs(kInvalid, HasSubstr("context")));
}

TEST_F(TextGeneratorTest, RejectsPromptsThatCannotBeRead) {
  EXPECT_THAT(Generate(*engine_, {}, Greedy()),
              StatusIs(kInvalid, HasSubstr("empty")));
  EXPECT_THAT(Generate(*engine_, {1, -5}, Greedy()),
              StatusIs(kInvalid, HasSubstr("-5")));
  EXPECT_THAT(Generate(*engine_, {1, 4096}, Greedy()),
              StatusIs(kInvalid, HasSubstr("4096")));
}

TEST_F(TextGeneratorTest, RejectsOptionsOutOfRange) {
  for (int64_t max_tokens : {int64_t{0}, int64_t{-1}}) {
    EXPECT_THAT(ErrorOf(Greedy(max_tokens)),
                StatusIs(kInvalid, HasSubstr("max_tokens")));
  }
  GenerateOptions options = Greedy();
  options.stop = {"a", ""};
  EXPECT_THAT(ErrorOf(options), StatusIs(kInvalid, HasSubstr("stop")));
  options = Greedy();
  options.stop_token_ids = {4096};
  EXPECT_THAT(ErrorOf(options),
              StatusIs(kInvalid, HasSubstr("stop_token_ids")));
  options = Greedy();
  options.sampling.top_p = 2;
  EXPECT_THAT(ErrorOf(options), StatusIs(kInvalid, HasSubstr("top_p")));
  for (int64_t beams : {int64_t{0}, int64_t{-4}, kMaxBeams + 1}) {
    options = Greedy();
    options.num_beams = beams;
    EXPECT_THAT(ErrorOf(options), StatusIs(kInvalid, HasSubstr("num_beams")));
  }
}

TEST_F(TextGeneratorTest, HugeMaxTokensIsBoundedByTheContext) {
  GenerateOptions options = Greedy(std::numeric_limits<int64_t>::max());
  const std::vector<int32_t> prompt(engine_->context() - 1, 300);
  absl::StatusOr<Generation> result = Generate(*engine_, prompt, options);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->token_ids.size(), 2u);
}

TEST_F(TextGeneratorTest, BeamSearchRejectsWhatItDoesNotDo) {
  GenerateOptions options = Greedy();
  options.num_beams = 2;
  options.sampling.temperature = 1;
  EXPECT_THAT(ErrorOf(options), StatusIs(kInvalid, HasSubstr("temperature")));
  options.sampling.temperature = 0;
  options.sampling.repetition_penalty = 1.1;
  EXPECT_THAT(ErrorOf(options), StatusIs(kInvalid, HasSubstr("num_beams")));
}

// Forked sequences that share pages against beams that are read anew.
TEST_F(TextGeneratorTest, BeamsAreThoseOfASearchThatReadsEveryTextAnew) {
  GenerateOptions options = Greedy(16);
  options.num_beams = 3;
  options.ignore_eos = false;
  options.stop_token_ids = {13};  // the newline: texts that end early
  const Generation found = Run(options);

  BeamOptions beam_options;
  beam_options.beams = 3;
  beam_options.max_tokens = 16;
  beam_options.end_ids = {engine_->eos_ids()[0], 13};
  const int64_t vocabulary = engine_->vocabulary();
  const auto read = [&](const std::vector<int32_t>& text, float* row) {
    auto sequence = engine_->NewSequence();
    EXPECT_THAT(sequence, IsOk());
    return engine_->Prefill(**sequence, text, absl::MakeSpan(row, vocabulary));
  };
  std::vector<std::vector<int32_t>> texts = {Prompt()};
  std::vector<float> first(vocabulary);
  ASSERT_THAT(read(texts[0], first.data()), IsOk());
  absl::StatusOr<BeamHypothesis> expected = BeamSearch(
      beam_options, first,
      [&](absl::Span<const int32_t> parents, absl::Span<const int32_t> tokens,
          MatrixView<float> logits) -> absl::Status {
        std::vector<std::vector<int32_t>> next;
        for (size_t i = 0; i < parents.size(); ++i) {
          next.push_back(texts[parents[i]]);
          next.back().push_back(tokens[i]);
          absl::Status status = read(next.back(), logits.row(i));
          if (!status.ok()) return status;
        }
        texts = std::move(next);
        return absl::OkStatus();
      });
  ASSERT_THAT(expected, IsOk());
  EXPECT_EQ(found.token_ids, expected->tokens);
  EXPECT_EQ(engine_->kv_pool().blocks_in_use(), 0);
}

TEST_F(TextGeneratorTest, OneBeamMoreIsNotWorse) {
  const auto sum_of = [&](const std::vector<int32_t>& ids) {
    auto sequence = engine_->NewSequence();
    EXPECT_THAT(sequence, IsOk());
    std::vector<float> logits(engine_->vocabulary());
    EXPECT_THAT(engine_->Prefill(**sequence, Prompt(), absl::MakeSpan(logits)),
                IsOk());
    double sum = 0;
    for (int32_t id : ids) {
      double total = 0;
      for (float logit : logits) total += std::exp(double{logit});
      sum += logits[id] - std::log(total);
      EXPECT_THAT(engine_->Decode(**sequence, id, absl::MakeSpan(logits)),
                  IsOk());
    }
    return sum;
  };
  GenerateOptions options = Greedy(20);
  const double greedy = sum_of(Run(options).token_ids);
  options.num_beams = 4;
  const Generation beams = Run(options);
  EXPECT_EQ(beams.token_ids.size(), 20u);
  EXPECT_GT(sum_of(beams.token_ids), greedy);
}

TEST_F(TextGeneratorTest, BeamTextEndsAtAStopString) {
  GenerateOptions options = Greedy(20);
  options.num_beams = 2;
  const std::string whole = Run(options).text;
  options.stop = {whole.substr(10, 4)};
  const Generation result = Run(options);
  EXPECT_EQ(result.text, whole.substr(0, whole.find(options.stop[0])));
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
}

TEST(TextGeneratorWithoutTokenizerTest, GivesIdsAndNoText) {
  const std::string folder = ::testing::TempDir() + "/generator_model";
  ASSERT_THAT(nibble::testing::WriteTinyLlama(
                  folder, nibble::testing::TinyModelOptions()),
              IsOk());
  EngineOptions engine_options;
  engine_options.model_path = folder;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(engine_options));
  GenerateOptions options;
  options.max_tokens = 10;
  options.ignore_eos = true;
  NIBBLE_ASSERT_OK_AND_ASSIGN(Generation result,
                              Generate(*engine, {1, 2, 3}, options));
  EXPECT_EQ(result.token_ids.size(), 10u);
  EXPECT_EQ(result.text, "");
  options.stop = {"x"};
  EXPECT_THAT(Generate(*engine, {1, 2, 3}, options),
              StatusIs(kInvalid, HasSubstr("tokenizer")));
}

}  // namespace
}  // namespace nibble
