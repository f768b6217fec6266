#include "runtime/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise/softmax.h"
#include "kernels/elementwise/topk.h"
#include "tensor/buffer.h"

namespace nibble {
namespace {

struct Beam {
  std::vector<int32_t> tokens;
  double sum_logprob = 0.0;
};

// A beam with one more token.
struct Continuation {
  double sum_logprob;
  int32_t beam;
  int32_t token;
};

bool Better(const Continuation& a, const Continuation& b) {
  if (a.sum_logprob != b.sum_logprob) return a.sum_logprob > b.sum_logprob;
  if (a.beam != b.beam) return a.beam < b.beam;
  return a.token < b.token;
}

absl::Status CheckOptions(const BeamOptions& options) {
  if (options.beams < 1 || options.beams > kMaxBeams) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_beams is ", options.beams,
                     "; it must be between 1 and ", kMaxBeams));
  }
  if (options.max_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_tokens is ", options.max_tokens, "; it must be at least 1"));
  }
  if (!std::isfinite(options.length_penalty)) {
    return absl::InvalidArgumentError(
        absl::StrCat("length_penalty is ", options.length_penalty,
                     "; it must be a finite number"));
  }
  return absl::OkStatus();
}

class Search {
 public:
  explicit Search(const BeamOptions& options)
      : options_(options),
        // Enough that `beams` of them go on even if every end id is among the
        // best of every beam.
        wanted_(static_cast<int64_t>(
                    std::max<size_t>(2, options.end_ids.size() + 1)) *
                options.beams) {
    beams_.emplace_back();
  }

  // Takes the logits of the present beams, sets ended hypotheses aside and
  // chooses the next beams.
  absl::Status Advance(MatrixView<const float> logits);
  bool Done() const;
  BeamHypothesis Finish(bool cancelled);

  const std::vector<Beam>& beams() const { return beams_; }
  absl::Span<const int32_t> parents() const { return parents_; }
  absl::Span<const int32_t> tokens() const { return tokens_; }
  int64_t length() const { return length_; }

 private:
  absl::Status Rank(MatrixView<const float> logits);
  double Score(double sum_logprob, int64_t tokens) const {
    return sum_logprob /
           std::pow(static_cast<double>(tokens), options_.length_penalty);
  }
  void SetAside(const Beam& beam, bool ended);
  bool Ends(int32_t token) const {
    return std::find(options_.end_ids.begin(), options_.end_ids.end(), token) !=
           options_.end_ids.end();
  }

  const BeamOptions& options_;
  const int64_t wanted_;
  int64_t length_ = 0;
  std::vector<Beam> beams_;
  std::vector<int32_t> parents_, tokens_;  // of beams_
  std::vector<BeamHypothesis> finished_;   // the best first; at most `beams`
  std::vector<Continuation> ranked_;
  std::vector<ScoredIndex> best_of_beam_;
};

absl::Status Search::Rank(MatrixView<const float> logits) {
  ranked_.clear();
  best_of_beam_.resize(std::min(wanted_, logits.cols));
  for (int64_t i = 0; i < logits.rows; ++i) {
    const absl::Span<const float> row(logits.row(i), logits.cols);
    const double log_sum = LogSumExp(row);
    if (!std::isfinite(log_sum)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the logits of beam ", i,
                       " are not numbers, or every token is banned: their "
                       "log-sum-exp is ",
                       log_sum));
    }
    const int64_t found = TopK(row, absl::MakeSpan(best_of_beam_));
    for (int64_t k = 0; k < found; ++k) {
      const ScoredIndex& next = best_of_beam_[k];
      const double logprob = static_cast<double>(next.score) - log_sum;
      if (std::isinf(logprob)) break;  // banned, and all behind it
      ranked_.push_back({beams_[i].sum_logprob + logprob,
                         static_cast<int32_t>(i), next.index});
    }
  }
  std::sort(ranked_.begin(), ranked_.end(), Better);
  if (static_cast<int64_t>(ranked_.size()) > wanted_) ranked_.resize(wanted_);
  return absl::OkStatus();
}

absl::Status Search::Advance(MatrixView<const float> logits) {
  absl::Status status = Rank(logits);
  if (!status.ok()) return status;
  ++length_;
  std::vector<Beam> next;
  parents_.clear();
  tokens_.clear();
  for (size_t rank = 0; rank < ranked_.size(); ++rank) {
    const Continuation& continuation = ranked_[rank];
    const bool ends = Ends(continuation.token);
    if (ends && static_cast<int64_t>(rank) >= options_.beams) continue;
    if (!ends && static_cast<int64_t>(next.size()) == options_.beams) continue;
    Beam beam = beams_[continuation.beam];
    beam.tokens.push_back(continuation.token);
    beam.sum_logprob = continuation.sum_logprob;
    if (ends) {
      SetAside(beam, /*ended=*/true);
      continue;
    }
    next.push_back(std::move(beam));
    parents_.push_back(continuation.beam);
    tokens_.push_back(continuation.token);
  }
  beams_ = std::move(next);
  return absl::OkStatus();
}

void Search::SetAside(const Beam& beam, bool ended) {
  BeamHypothesis hypothesis;
  hypothesis.tokens = beam.tokens;
  hypothesis.sum_logprob = beam.sum_logprob;
  hypothesis.ended = ended;
  hypothesis.score =
      Score(beam.sum_logprob, static_cast<int64_t>(beam.tokens.size()));
  const auto place = std::find_if(finished_.begin(), finished_.end(),
                                  [&](const BeamHypothesis& other) {
                                    return other.score < hypothesis.score;
                                  });
  finished_.insert(place, std::move(hypothesis));
  if (static_cast<int64_t>(finished_.size()) > options_.beams) {
    finished_.pop_back();
  }
}

bool Search::Done() const {
  if (beams_.empty() || length_ >= options_.max_tokens) return true;
  if (static_cast<int64_t>(finished_.size()) < options_.beams) return false;
  // The beams are in order, the best first.
  return finished_.back().score >= Score(beams_[0].sum_logprob, length_);
}

BeamHypothesis Search::Finish(bool cancelled) {
  // Where the search ended because none of them can win, this changes nothing.
  if (length_ > 0) {
    for (const Beam& beam : beams_) SetAside(beam, /*ended=*/false);
  }
  BeamHypothesis best;
  if (!finished_.empty()) best = std::move(finished_.front());
  best.cancelled = cancelled;
  return best;
}

}  // namespace

absl::StatusOr<BeamHypothesis> BeamSearch(const BeamOptions& options,
                                          absl::Span<const float> first_logits,
                                          BeamStep step) {
  absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  Search search(options);
  const int64_t vocabulary = static_cast<int64_t>(first_logits.size());
  status = search.Advance(
      MatrixView<const float>(first_logits.data(), 1, vocabulary));
  Array<float> logits(options.beams * vocabulary);  // [beams, vocabulary]
  while (status.ok() && !search.Done()) {
    if (options.cancelled && options.cancelled()) return search.Finish(true);
    const int64_t rows = static_cast<int64_t>(search.beams().size());
    const MatrixView<float> view(logits.data(), rows, vocabulary);
    status = step(search.parents(), search.tokens(), view);
    if (status.ok()) {
      status = search.Advance(
          MatrixView<const float>(logits.data(), rows, vocabulary));
    }
  }
  if (!status.ok()) return status;
  return search.Finish(/*cancelled=*/false);
}

}  // namespace nibble
