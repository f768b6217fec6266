#include "models/decoder_config.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/elementwise/rope.h"

namespace nibble {
namespace {

absl::Status Invalid(const std::string& source, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(source, ": ", problem));
}

struct NamedSize {
  const char* name;
  int64_t value;
  int64_t max;
};

absl::Status CheckSizes(const DecoderConfig& config,
                        const std::string& source) {
  const NamedSize sizes[] = {
      {"vocabulary size", config.vocabulary, kMaxVocabulary},
      {"hidden size", config.hidden, kMaxHidden},
      {"number of layers", config.layers, kMaxLayers},
      {"number of attention heads", config.heads, kMaxHeads},
      {"number of key/value heads", config.kv_heads, kMaxHeads},
      {"head dimension", config.head_dim, kMaxHeadDim},
      {"feed-forward size", config.ffn, kMaxFfn},
      {"number of positions", config.max_positions, kMaxPositions},
  };
  for (const NamedSize& size : sizes) {
    if (size.value < 1 || size.value > size.max) {
      return Invalid(source, absl::StrCat("the ", size.name, " is ", size.value,
                                          "; it must be from 1 to ", size.max));
    }
  }
  return absl::OkStatus();
}

struct NamedNumber {
  const char* name;
  double value;
  double min;
  double max;
};

// A NaN is outside every range.
absl::Status CheckNumbers(absl::Span<const NamedNumber> numbers,
                          const std::string& source) {
  for (const NamedNumber& number : numbers) {
    if (number.value >= number.min && number.value <= number.max) continue;
    return Invalid(source, absl::StrCat("the ", number.name, " is ",
                                        number.value, "; it must be from ",
                                        number.min, " to ", number.max));
  }
  return absl::OkStatus();
}

// What RopeTable asks for.
absl::Status CheckRopeScaling(const RopeConfig& rope,
                              const std::string& source) {
  const RopeScaling& scaling = rope.scaling;
  if (scaling.type == RopeScaling::kNone) return absl::OkStatus();
  const absl::Status numbers = CheckNumbers(
      {{"rotary scaling factor", scaling.factor, 1e-6, 1e6},
       {"low frequency factor", scaling.low_freq_factor, 1e-6, 1e6},
       {"high frequency factor", scaling.high_freq_factor, 1e-6, 1e6},
       {"yarn beta_fast", scaling.beta_fast, 1e-6, 1e6},
       {"yarn beta_slow", scaling.beta_slow, 1e-6, 1e6},
       {"rotary attention factor", scaling.attention_factor, 0.0, 1e3},
       {"number of rotary positions", static_cast<double>(rope.max_positions),
        1.0, kMaxPositions},
       {"original number of positions",
        static_cast<double>(scaling.original_max_positions), 0.0,
        kMaxPositions}},
      source);
  if (!numbers.ok()) return numbers;
  if (scaling.type == RopeScaling::kDynamic && rope.rotary_dims <= 2) {
    return Invalid(source,
                   "dynamic rotary scaling needs more than two dimensions");
  }
  if (scaling.type == RopeScaling::kLlama3 &&
      scaling.high_freq_factor <= scaling.low_freq_factor) {
    return Invalid(source,
                   "the high frequency factor of rotary scaling must be above "
                   "the low one");
  }
  return absl::OkStatus();
}

absl::Status CheckRope(const DecoderConfig& config, const std::string& source) {
  if (config.rope.style == RopeStyle::kNone) return absl::OkStatus();
  const int64_t dims = config.rope.rotary_dims;
  if (dims < 2 || dims % 2 != 0 || dims > config.head_dim) {
    return Invalid(
        source,
        absl::StrCat("rotary embedding over ", dims, " of ", config.head_dim,
                     " dimensions of a head; the number must be even "
                     "and at most the head dimension"));
  }
  absl::Status status =
      CheckNumbers({{"rotary base", config.rope.theta, 1.0, 1e18}}, source);
  if (status.ok()) status = CheckRopeScaling(config.rope, source);
  if (!status.ok()) return status;
  if (!config.rope_divisors.empty() &&
      static_cast<int64_t>(config.rope_divisors.size()) != dims / 2) {
    return Invalid(source, absl::StrCat(config.rope_divisors.size(),
                                        " rotary frequency divisors; expected ",
                                        dims / 2));
  }
  for (const float divisor : config.rope_divisors) {
    if (!(divisor > 0.0f && divisor < 1e30f)) {
      return Invalid(source, absl::StrCat("rotary frequency divisor ", divisor,
                                          "; each must be positive"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateDecoderConfig(const DecoderConfig& config,
                                   const std::string& source) {
  absl::Status status = CheckSizes(config, source);
  if (!status.ok()) return status;
  if (config.heads % config.kv_heads != 0) {
    return Invalid(source, absl::StrCat(config.heads,
                                        " attention heads do not divide among ",
                                        config.kv_heads, " key/value heads"));
  }
  status = CheckRope(config, source);
  if (!status.ok()) return status;
  status = CheckNumbers({{"norm epsilon", config.norm_eps, 0.0, 1.0},
                         {"ALiBi scale", config.alibi_scale, -1e6, 1e6}},
                        source);
  if (!status.ok()) return status;
  if (config.norm_layout == NormLayout::kShared &&
      config.residual != Residual::kParallel) {
    return Invalid(source, "one norm for both branches needs parallel ones");
  }
  if (static_cast<int64_t>(config.windows.size()) != config.layers) {
    return Invalid(
        source, absl::StrCat(config.windows.size(), " attention windows for ",
                             config.layers, " layers"));
  }
  for (const int64_t window : config.windows) {
    if (window >= 0) continue;
    return Invalid(source, absl::StrCat("an attention window of ", window,
                                        " tokens; 0 is unlimited"));
  }
  for (const int32_t id : config.eos_ids) {
    if (id < 0 || id >= config.vocabulary) {
      return Invalid(source, absl::StrCat("end-of-text id ", id,
                                          " is outside the vocabulary of ",
                                          config.vocabulary));
    }
  }
  if (config.bos_id &&
      (*config.bos_id < 0 || *config.bos_id >= config.vocabulary)) {
    return Invalid(source, absl::StrCat("beginning-of-text id ", *config.bos_id,
                                        " is outside the vocabulary of ",
                                        config.vocabulary));
  }
  return absl::OkStatus();
}

RopeConfig RopeOf(const DecoderConfig& config) {
  RopeConfig rope = config.rope;
  rope.frequency_divisors = config.rope_divisors;
  return rope;
}

}  // namespace nibble
