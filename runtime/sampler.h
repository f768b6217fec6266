#ifndef NIBBLE_RUNTIME_SAMPLER_H_
#define NIBBLE_RUNTIME_SAMPLER_H_

// Chooses the next token from logits.
//
//   SamplingOptions options;
//   options.temperature = 0.8;
//   options.top_p = 0.95;
//   options.seed = 7;
//   absl::StatusOr<Sampler> sampler = Sampler::Create(options, vocabulary);
//   sampler->AddPrompt(prompt);
//   absl::StatusOr<int32_t> token = sampler->Sample(absl::MakeSpan(logits));
//
// The steps, in the order of Hugging Face's generate():
//
//   1. logit_bias is added. -infinity bans a token.
//   2. repetition_penalty divides the positive logits, and multiplies the
//      negative ones, of every token of the prompt and of the output
//      (arXiv 1909.05858).
//   3. frequency_penalty is subtracted once per occurrence in the output,
//      presence_penalty once if there is any (as OpenAI's API defines them).
//   4. temperature divides the logits. 0 takes the largest and skips the rest.
//   5. top_k keeps the k largest.
//   6. top_p keeps the fewest of the largest whose probabilities add up to at
//      least p (arXiv 1904.09751); at least one. 0 keeps one.
//   7. min_p drops tokens less probable than min_p times the most probable
//      (arXiv 2407.01082).
//   8. One is drawn in proportion to what is left.
//
// Where logits are equal, the lower id counts as the larger. The same logits,
// history, options and seed give the same token on every machine: the random
// numbers are the standard's mt19937_64, one for each draw, turned into [0, 1)
// by its upper 53 bits, and the exponential is our own. Not thread-safe. Sample
// allocates nothing.

#include <cstdint>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/elementwise/topk.h"

namespace nibble {

struct SamplingOptions {
  double temperature = 0.0;         // >= 0; 0: greedy
  int64_t top_k = 0;                // >= 0; 0: off
  double top_p = 1.0;               // 0..1; 1: off
  double min_p = 0.0;               // 0..1; 0: off
  double repetition_penalty = 1.0;  // > 0; 1: off
  double frequency_penalty = 0.0;   // finite
  double presence_penalty = 0.0;    // finite
  // Token id to what is added to its logit: finite, or -infinity.
  std::map<int32_t, float> logit_bias;
  uint64_t seed = 0;

  // InvalidArgument names the field and what it may be.
  absl::Status Validate(int64_t vocabulary) const;
};

class Sampler {
 public:
  // An error if the options are not valid for `vocabulary`.
  static absl::StatusOr<Sampler> Create(const SamplingOptions& options,
                                        int64_t vocabulary);

  Sampler(Sampler&&) = default;
  Sampler& operator=(Sampler&&) = default;

  // Tokens that only repetition_penalty regards. Ids outside the vocabulary
  // are ignored.
  void AddPrompt(absl::Span<const int32_t> tokens);

  // Chooses a token and counts it as output. `logits` [vocabulary] are left
  // with steps 1 to 3 applied. Logits of -infinity are never chosen.
  // InvalidArgument: a logit is NaN or +infinity, or every token is banned.
  absl::StatusOr<int32_t> Sample(absl::Span<float> logits);

 private:
  Sampler(const SamplingOptions& options, int64_t vocabulary);

  void Adjust(absl::Span<float> logits) const;
  void Collect(absl::Span<const float> logits);
  void Weigh(float largest);
  void KeepTopP();
  void KeepTopPOfSorted(double wanted);
  void KeepTopPOfUnsorted(double wanted);
  void KeepMinP();
  int32_t Draw();
  void MarkSeen(int32_t token);

  SamplingOptions options_;
  int64_t vocabulary_;
  bool penalties_;
  std::mt19937_64 random_;
  // For penalties, else empty.
  std::vector<int32_t> output_count_;  // [vocabulary]
  std::vector<uint8_t> is_seen_;       // [vocabulary]
  std::vector<int32_t> seen_;          // distinct tokens, in order of arrival
  // What may be drawn: the best first after top_k, else by id. `score` is a
  // logit, then a weight: its probability over that of the most probable.
  std::vector<ScoredIndex> candidates_;  // reserved: [top_k] or [vocabulary]
  bool sorted_ = false;
  std::vector<ScoredIndex> boundary_;  // of KeepTopPOfUnsorted
  std::vector<double> mass_;           // of KeepTopPOfUnsorted: [buckets]
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_SAMPLER_H_
