#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// exp(x) for x <= 0, to about 1e-11: far finer than the f32 that it becomes.
// Made of additions and multiplications only (and compiled without contracting
// them), so that every machine computes the same bits. x = n ln 2 + r with
// |r| <= ln 2 / 2; the polynomial is the Taylor series of exp(r), whose first
// dropped term is below 0.347^10 / 10! = 7e-12.
double Exp(double x) {
  constexpr double kSmallest = -110.0;  // exp(-110) is 0 as a float
  if (!(x > kSmallest)) return 0.0;
  constexpr double kLog2E = 1.4426950408889634;
  constexpr double kLn2High = 0.6931471803691238;  // 32 bits: n * it is exact
  constexpr double kLn2Low = 1.9082149292705877e-10;
  const int n = static_cast<int>(x * kLog2E - 0.5);  // x <= 0: rounds
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double p = 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const uint64_t bits = static_cast<uint64_t>(1023 + n) << 52;
  double power;
  std::memcpy(&power, &bits, sizeof(power));
  return p * power;
}

uint32_t Bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

// Weights, which are in [0, 1], by size: bucket 0 holds the largest. The bits
// of a positive float grow with it, so the upper ones are a logarithmic scale:
// 16 buckets for each factor of two. A bucket then holds a few thousand tokens
// of a large vocabulary, and only one bucket is ever sorted.
constexpr int kBucketShift = 23 - 4;
constexpr uint32_t kOneBits = 0x3F800000;
constexpr int kBuckets = (kOneBits >> kBucketShift) + 1;

int Bucket(float weight) {
  return static_cast<int>((kOneBits - Bits(weight)) >> kBucketShift);
}

bool Better(const ScoredIndex& a, const ScoredIndex& b) {
  return a.score > b.score || (a.score == b.score && a.index < b.index);
}

absl::Status FieldError(absl::string_view field, double value,
                        absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it must be ", wanted));
}

absl::Status CheckBias(const std::map<int32_t, float>& bias,
                       int64_t vocabulary) {
  for (const auto& [token, value] : bias) {
    if (token < 0 || token >= vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("logit_bias: there is no token ", token,
                       " in the vocabulary of ", vocabulary));
    }
    if (std::isnan(value) || value == kInfinity) {
      return absl::InvalidArgumentError(absl::StrCat(
          "logit_bias of token ", token, " is ", value,
          "; it must be a finite number, or -inf to ban the token"));
    }
  }
  return absl::OkStatus();
}

// The first logit that no softmax can take.
absl::Status BadLogit(absl::Span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] < kInfinity) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the logit of token ", i, " is ", logits[i],
        ": the model's weights, or a logit_bias, are out of range"));
  }
  return absl::InvalidArgumentError(
      "every token is banned: all logits are -inf; relax logit_bias");
}

}  // namespace

absl::Status SamplingOptions::Validate(int64_t vocabulary) const {
  // Written so that NaN fails each test.
  if (!(temperature >= 0 && std::isfinite(temperature))) {
    return FieldError("temperature", temperature, "0 (greedy) or above");
  }
  if (top_k < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "top_k is ", top_k, "; it must be 0 (all tokens) or above"));
  }
  if (!(top_p >= 0 && top_p <= 1)) {
    return FieldError("top_p", top_p, "between 0 and 1");
  }
  if (!(min_p >= 0 && min_p <= 1)) {
    return FieldError("min_p", min_p, "between 0 and 1");
  }
  if (!(repetition_penalty > 0 && std::isfinite(repetition_penalty))) {
    return FieldError("repetition_penalty", repetition_penalty,
                      "above 0 (1 changes nothing)");
  }
  if (!std::isfinite(frequency_penalty)) {
    return FieldError("frequency_penalty", frequency_penalty,
                      "a finite number (0 changes nothing)");
  }
  if (!std::isfinite(presence_penalty)) {
    return FieldError("presence_penalty", presence_penalty,
                      "a finite number (0 changes nothing)");
  }
  return CheckBias(logit_bias, vocabulary);
}

absl::StatusOr<Sampler> Sampler::Create(const SamplingOptions& options,
                                        int64_t vocabulary) {
  CHECK_GT(vocabulary, 0);
  CHECK_LE(vocabulary, std::numeric_limits<int32_t>::max());
  absl::Status status = options.Validate(vocabulary);
  if (!status.ok()) return status;
  return Sampler(options, vocabulary);
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocabulary)
    : options_(options),
      vocabulary_(vocabulary),
      penalties_(options.repetition_penalty != 1 ||
                 options.frequency_penalty != 0 ||
                 options.presence_penalty != 0),
      random_(options.seed) {
  if (penalties_) {
    output_count_.resize(vocabulary);
    is_seen_.resize(vocabulary);
    seen_.reserve(vocabulary);
  }
  if (options_.top_k >= vocabulary) options_.top_k = 0;
  if (options_.temperature == 0) return;
  sorted_ = options_.top_k > 0;
  candidates_.reserve(sorted_ ? options_.top_k : vocabulary);
  if (!sorted_ && options_.top_p < 1) {
    boundary_.reserve(vocabulary);
    mass_.resize(kBuckets);
  }
}

void Sampler::MarkSeen(int32_t token) {
  if (is_seen_[token]) return;
  is_seen_[token] = 1;
  seen_.push_back(token);
}

void Sampler::AddPrompt(absl::Span<const int32_t> tokens) {
  if (!penalties_) return;
  for (int32_t token : tokens) {
    if (token >= 0 && token < vocabulary_) MarkSeen(token);
  }
}

absl::StatusOr<int32_t> Sampler::Sample(absl::Span<float> logits) {
  CHECK_EQ(static_cast<int64_t>(logits.size()), vocabulary_);
  Adjust(logits);

  // NaN compares false with everything, so it counts as too large.
  int64_t too_large = 0;
  for (float logit : logits) too_large += !(logit < kInfinity);
  const int64_t best = ArgMax(logits);
  if (too_large > 0 || best < 0 || logits[best] == -kInfinity) {
    return BadLogit(logits);
  }

  int32_t token = static_cast<int32_t>(best);
  if (options_.temperature > 0) {
    Collect(logits);
    Weigh(logits[best]);
    if (options_.top_p < 1) KeepTopP();
    if (options_.min_p > 0) KeepMinP();
    token = Draw();
  }
  if (penalties_) {
    MarkSeen(token);
    ++output_count_[token];
  }
  return token;
}

// Steps 1 to 3.
void Sampler::Adjust(absl::Span<float> logits) const {
  for (const auto& [token, bias] : options_.logit_bias) logits[token] += bias;
  const double repetition = options_.repetition_penalty;
  for (int32_t token : seen_) {
    double logit = logits[token];
    logit = logit > 0 ? logit / repetition : logit * repetition;
    logit -= options_.frequency_penalty * output_count_[token];
    if (output_count_[token] > 0) logit -= options_.presence_penalty;
    logits[token] = static_cast<float>(logit);
  }
}

// Fills candidates_ with what step 5 leaves, and their logits.
void Sampler::Collect(absl::Span<const float> logits) {
  candidates_.clear();
  if (sorted_) {
    candidates_.resize(options_.top_k);
    candidates_.resize(TopK(logits, absl::MakeSpan(candidates_)));
    return;
  }
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates_.push_back({logits[i], static_cast<int32_t>(i)});
  }
}

void Sampler::Weigh(float largest) {
  const double temperature = options_.temperature;
  for (ScoredIndex& candidate : candidates_) {
    const double below = static_cast<double>(candidate.score) - largest;
    candidate.score = static_cast<float>(Exp(below / temperature));
  }
}

void Sampler::KeepTopP() {
  double total = 0;
  for (const ScoredIndex& candidate : candidates_) total += candidate.score;
  const double wanted = options_.top_p * total;
  if (sorted_) {
    KeepTopPOfSorted(wanted);
  } else {
    KeepTopPOfUnsorted(wanted);
  }
}

void Sampler::KeepTopPOfSorted(double wanted) {
  double mass = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    mass += candidates_[i].score;
    if (mass >= wanted) {
      candidates_.resize(i + 1);
      return;
    }
  }
}

// Finds the bucket in which the mass reaches `wanted`, sorts that one to find
// the last token to keep, and drops what is behind it.
void Sampler::KeepTopPOfUnsorted(double wanted) {
  std::fill(mass_.begin(), mass_.end(), 0.0);
  for (const ScoredIndex& candidate : candidates_) {
    mass_[Bucket(candidate.score)] += candidate.score;
  }
  double mass = 0;
  int bucket = 0;
  while (bucket < kBuckets - 1 && mass + mass_[bucket] < wanted) {
    mass += mass_[bucket++];
  }
  boundary_.clear();
  for (const ScoredIndex& candidate : candidates_) {
    if (Bucket(candidate.score) == bucket) boundary_.push_back(candidate);
  }
  std::sort(boundary_.begin(), boundary_.end(), Better);
  if (boundary_.empty()) return;
  ScoredIndex last = boundary_.back();
  for (const ScoredIndex& candidate : boundary_) {
    mass += candidate.score;
    if (mass >= wanted) {
      last = candidate;
      break;
    }
  }
  const auto worse = [&](const ScoredIndex& candidate) {
    return Better(last, candidate);
  };
  candidates_.erase(
      std::remove_if(candidates_.begin(), candidates_.end(), worse),
      candidates_.end());
}

void Sampler::KeepMinP() {
  // The most probable token weighs 1.
  const float least = static_cast<float>(options_.min_p);
  const auto improbable = [&](const ScoredIndex& candidate) {
    return candidate.score < least;
  };
  candidates_.erase(
      std::remove_if(candidates_.begin(), candidates_.end(), improbable),
      candidates_.end());
}

int32_t Sampler::Draw() {
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
  double total = 0;
  for (const ScoredIndex& candidate : candidates_) total += candidate.score;
  const double target = uniform * total;
  double mass = 0;
  int32_t chosen = -1;
  for (const ScoredIndex& candidate : candidates_) {
    if (candidate.score <= 0) continue;
    chosen = candidate.index;
    mass += candidate.score;
    if (mass > target) break;
  }
  CHECK_GE(chosen, 0);  // the most probable token weighs 1
  return chosen;
}

}  // namespace nibble
