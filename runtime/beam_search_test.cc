#include "runtime/beam_search.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

// A model whose logits after a text are random numbers, fixed by the text.
class FakeModel {
 public:
  FakeModel(int64_t vocabulary, uint32_t seed)
      : vocabulary_(vocabulary), seed_(seed) {}

  std::vector<float> Logits(const std::vector<int32_t>& text) const {
    std::vector<uint32_t> key(text.begin(), text.end());
    key.push_back(seed_);
    std::seed_seq sequence(key.begin(), key.end());
    std::mt19937 random(sequence);
    std::normal_distribution<float> normal(0, 1.5f);
    std::vector<float> logits(vocabulary_);
    for (float& logit : logits) logit = normal(random);
    return logits;
  }

  std::vector<double> LogProbs(const std::vector<int32_t>& text) const {
    const std::vector<float> logits = Logits(text);
    double sum = 0;
    for (float logit : logits) sum += std::exp(static_cast<double>(logit));
    std::vector<double> result;
    for (float logit : logits) result.push_back(logit - std::log(sum));
    return result;
  }

  int64_t vocabulary() const { return vocabulary_; }

 private:
  int64_t vocabulary_;
  uint32_t seed_;
};

BeamHypothesis Search(const FakeModel& model, const BeamOptions& options) {
  std::vector<std::vector<int32_t>> beams(1);
  const auto step = [&](absl::Span<const int32_t> parents,
                        absl::Span<const int32_t> tokens,
                        MatrixView<float> logits) -> absl::Status {
    std::vector<std::vector<int32_t>> next;
    for (size_t i = 0; i < parents.size(); ++i) {
      next.push_back(beams[parents[i]]);
      next.back().push_back(tokens[i]);
      const std::vector<float> row = model.Logits(next.back());
      std::copy(row.begin(), row.end(), logits.row(i));
    }
    beams = next;
    return absl::OkStatus();
  };
  absl::StatusOr<BeamHypothesis> best =
      BeamSearch(options, model.Logits({}), step);
  EXPECT_TRUE(best.ok()) << best.status();
  return best.value_or(BeamHypothesis());
}

double ScoreOf(double sum, size_t tokens, double length_penalty) {
  return sum / std::pow(static_cast<double>(tokens), length_penalty);
}

// The best of all texts: those that end early, and those of full length.
BeamHypothesis BestOfAll(const FakeModel& model, const BeamOptions& options,
                         std::vector<int32_t> text = {}, double sum = 0) {
  BeamHypothesis best;
  best.score = -std::numeric_limits<double>::infinity();
  const std::vector<double> logprobs = model.LogProbs(text);
  for (int32_t token = 0; token < model.vocabulary(); ++token) {
    std::vector<int32_t> longer = text;
    longer.push_back(token);
    const bool ends =
        std::count(options.end_ids.begin(), options.end_ids.end(), token) > 0;
    BeamHypothesis candidate;
    if (ends || static_cast<int64_t>(longer.size()) == options.max_tokens) {
      candidate.tokens = longer;
      candidate.sum_logprob = sum + logprobs[token];
      candidate.ended = ends;
      candidate.score =
          ScoreOf(candidate.sum_logprob, longer.size(), options.length_penalty);
    } else {
      candidate = BestOfAll(model, options, longer, sum + logprobs[token]);
    }
    if (candidate.score > best.score) best = candidate;
  }
  return best;
}

TEST(BeamSearchTest, WithRoomForAllTextsFindsTheBestOne) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const FakeModel model(4, seed);
    BeamOptions options;
    options.beams = 128;  // above 4^3: nothing is ever dropped
    options.max_tokens = 4;
    options.end_ids = {2};
    options.length_penalty = seed % 3 * 0.75;
    const BeamHypothesis expected = BestOfAll(model, options);
    const BeamHypothesis found = Search(model, options);
    EXPECT_EQ(found.tokens, expected.tokens) << "seed " << seed;
    EXPECT_NEAR(found.score, expected.score, 1e-5);
    EXPECT_NEAR(found.sum_logprob, expected.sum_logprob, 1e-5);
    EXPECT_EQ(found.ended, expected.ended);
  }
}

TEST(BeamSearchTest, OneBeamIsGreedy) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const FakeModel model(50, seed);
    BeamOptions options;
    options.beams = 1;
    options.max_tokens = 12;
    const BeamHypothesis found = Search(model, options);
    std::vector<int32_t> text;
    while (text.size() < 12) {
      const std::vector<float> logits = model.Logits(text);
      text.push_back(static_cast<int32_t>(
          std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    EXPECT_EQ(found.tokens, text) << "seed " << seed;
  }
}

// Hugging Face's rule said slowly: full lists, sorted, nothing incremental.
BeamHypothesis SlowSearch(const FakeModel& model, const BeamOptions& options) {
  struct Text {
    std::vector<int32_t> tokens;
    double sum = 0;
  };
  std::vector<Text> beams(1);
  std::vector<BeamHypothesis> done;
  const auto add = [&](const Text& text, bool ended) {
    BeamHypothesis h;
    h.tokens = text.tokens;
    h.sum_logprob = text.sum;
    h.ended = ended;
    h.score = ScoreOf(text.sum, text.tokens.size(), options.length_penalty);
    done.push_back(h);
    std::stable_sort(
        done.begin(), done.end(),
        [](const auto& a, const auto& b) { return a.score > b.score; });
    if (static_cast<int64_t>(done.size()) > options.beams) done.pop_back();
  };
  for (int64_t length = 1; length <= options.max_tokens; ++length) {
    std::vector<Text> all;
    for (const Text& beam : beams) {
      const std::vector<double> logprobs = model.LogProbs(beam.tokens);
      for (int32_t token = 0; token < model.vocabulary(); ++token) {
        Text longer = beam;
        longer.tokens.push_back(token);
        longer.sum += logprobs[token];
        all.push_back(longer);
      }
    }
    std::stable_sort(all.begin(), all.end(), [](const Text& a, const Text& b) {
      return a.sum > b.sum;
    });
    beams.clear();
    for (size_t rank = 0; rank < all.size(); ++rank) {
      const int32_t last = all[rank].tokens.back();
      const bool ends =
          std::count(options.end_ids.begin(), options.end_ids.end(), last) > 0;
      if (ends) {
        if (static_cast<int64_t>(rank) < options.beams) add(all[rank], true);
      } else if (static_cast<int64_t>(beams.size()) < options.beams) {
        beams.push_back(all[rank]);
      }
    }
    if (static_cast<int64_t>(done.size()) == options.beams &&
        done.back().score >=
            ScoreOf(beams[0].sum, length, options.length_penalty)) {
      break;
    }
  }
  for (const Text& beam : beams) add(beam, false);
  return done[0];
}

TEST(BeamSearchTest, AgreesWithTheRuleSaidSlowly) {
  int ended = 0, stopped_early = 0;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const FakeModel model(9, seed);
    BeamOptions options;
    options.beams = 1 + seed % 5;
    options.max_tokens = 10;
    options.end_ids = {3};
    if (seed % 2 == 0) options.end_ids.push_back(7);
    options.length_penalty = (seed % 4) * 0.5;
    const BeamHypothesis expected = SlowSearch(model, options);
    const BeamHypothesis found = Search(model, options);
    ASSERT_EQ(found.tokens, expected.tokens) << "seed " << seed;
    EXPECT_NEAR(found.score, expected.score, 1e-5);
    ended += found.ended;
    stopped_early += found.tokens.size() < 10;
  }
  EXPECT_GT(ended, 20);
  EXPECT_LT(ended, 200);
  EXPECT_GT(stopped_early, 20);
}

TEST(BeamSearchTest, MoreBeamsFindABetterText) {
  // Token 0 looks best at first and leads into even odds; token 1 is certain.
  const auto logits_after = [](const std::vector<int32_t>& text) {
    std::vector<float> logits(4, 0.0f);
    if (text.empty()) return std::vector<float>{1.0f, 0.9f, -5, -5};
    if (text[0] == 1) logits[2] = 20;
    return logits;
  };
  for (int64_t beams : {1, 2}) {
    BeamOptions options;
    options.beams = beams;
    options.max_tokens = 3;
    std::vector<std::vector<int32_t>> texts(1);
    absl::StatusOr<BeamHypothesis> best = BeamSearch(
        options, logits_after({}),
        [&](absl::Span<const int32_t> parents, absl::Span<const int32_t> tokens,
            MatrixView<float> logits) -> absl::Status {
          std::vector<std::vector<int32_t>> next;
          for (size_t i = 0; i < parents.size(); ++i) {
            next.push_back(texts[parents[i]]);
            next.back().push_back(tokens[i]);
            const std::vector<float> row = logits_after(next.back());
            std::copy(row.begin(), row.end(), logits.row(i));
          }
          texts = next;
          return absl::OkStatus();
        });
    ASSERT_TRUE(best.ok());
    EXPECT_EQ(best->tokens[0], beams == 1 ? 0 : 1);
  }
}

TEST(BeamSearchTest, CancellationKeepsTheBestSoFar) {
  const FakeModel model(20, 1);
  BeamOptions options;
  options.beams = 3;
  options.max_tokens = 50;
  int asked = 0;
  options.cancelled = [&] { return ++asked > 5; };
  const BeamHypothesis found = Search(model, options);
  EXPECT_TRUE(found.cancelled);
  EXPECT_EQ(found.tokens.size(), 6u);
}

TEST(BeamSearchTest, RejectsLogitsThatAreNotNumbers) {
  BeamOptions options;
  options.beams = 2;
  const auto unused = [](absl::Span<const int32_t>, absl::Span<const int32_t>,
                         MatrixView<float>) { return absl::OkStatus(); };
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), kInf}) {
    const std::vector<float> logits = {0, bad, 1};
    EXPECT_EQ(BeamSearch(options, logits, unused).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  const std::vector<float> banned(3, -kInf);
  EXPECT_EQ(BeamSearch(options, banned, unused).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(BeamSearchTest, ReturnsTheErrorOfAStep) {
  BeamOptions options;
  options.beams = 2;
  options.max_tokens = 4;
  const std::vector<float> logits = {0, 1, 2};
  EXPECT_EQ(BeamSearch(options, logits,
                       [](absl::Span<const int32_t>, absl::Span<const int32_t>,
                          MatrixView<float>) {
                         return absl::ResourceExhaustedError("full");
                       })
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(BeamSearchTest, RejectsOptionsOutOfRange) {
  const std::vector<float> logits = {0, 1, 2};
  const auto unused = [](absl::Span<const int32_t>, absl::Span<const int32_t>,
                         MatrixView<float>) { return absl::OkStatus(); };
  for (int64_t beams : {int64_t{0}, int64_t{-1}, kMaxBeams + 1}) {
    BeamOptions options;
    options.beams = beams;
    const absl::Status status = BeamSearch(options, logits, unused).status();
    EXPECT_TRUE(absl::StrContains(status.message(), "num_beams")) << status;
  }
  BeamOptions options;
  options.max_tokens = 0;
  EXPECT_TRUE(absl::StrContains(
      BeamSearch(options, logits, unused).status().message(), "max_tokens"));
  options.max_tokens = 1;
  options.length_penalty = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(
      absl::StrContains(BeamSearch(options, logits, unused).status().message(),
                        "length_penalty"));
}

}  // namespace
}  // namespace nibble
