#include "models/families/hf_fields.h"

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/config_reader.h"
#include "models/decoder_config.h"
#include "tensor/io/tensor_source.h"

namespace nibble {
namespace {

struct NamedActivation {
  absl::string_view name;
  Activation activation;
};

constexpr NamedActivation kActivations[] = {
    {"gelu", Activation::kGelu},
    {"gelu_python", Activation::kGelu},
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"quick_gelu", Activation::kQuickGelu},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
};

constexpr FloatRange kFactorRange = {1.0, 1e6};
constexpr FloatRange kPositiveRange = {1e-6, 1e6};

// A scaling type needs its factor; there is no sensible default.
float RequiredFactor(ConfigReader& rope, absl::string_view key,
                     FloatRange range) {
  if (!rope.Has(key)) {
    rope.Fail(key, "is missing; this type of rope scaling needs it");
    return 1.0f;
  }
  return static_cast<float>(rope.FloatOr(key, 1.0, range));
}

// The positions that the unscaled model was trained for.
int64_t OriginalPositions(ConfigReader& json, ConfigReader& rope,
                          int64_t fallback) {
  constexpr char kKey[] = "original_max_position_embeddings";
  const IntRange range = {1, kMaxPositions};
  return rope.IntOr(kKey, json.IntOr(kKey, fallback, range), range);
}

void ReadLlama3(ConfigReader& json, ConfigReader& rope, RopeScaling& scaling) {
  scaling.type = RopeScaling::kLlama3;
  scaling.low_freq_factor =
      RequiredFactor(rope, "low_freq_factor", kPositiveRange);
  scaling.high_freq_factor =
      RequiredFactor(rope, "high_freq_factor", kPositiveRange);
  if (rope.status().ok() &&
      scaling.high_freq_factor <= scaling.low_freq_factor) {
    rope.Fail("high_freq_factor", "must be above low_freq_factor");
  }
  if (!rope.Has("original_max_position_embeddings") &&
      !json.Has("original_max_position_embeddings")) {
    rope.Fail("original_max_position_embeddings",
              "is missing; rope type llama3 needs it");
  }
}

// The paper's attention temperature for one scale (arXiv 2309.00071, eq. 22).
double YarnMagnitude(double factor, double scale) {
  return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

void ReadYarn(ConfigReader& rope, RopeScaling& scaling) {
  scaling.type = RopeScaling::kYarn;
  scaling.beta_fast =
      static_cast<float>(rope.FloatOr("beta_fast", 32.0, kPositiveRange));
  scaling.beta_slow =
      static_cast<float>(rope.FloatOr("beta_slow", 1.0, kPositiveRange));
  if (scaling.beta_fast <= scaling.beta_slow) {
    rope.Fail("beta_fast", "must be above beta_slow");
  }
  if (rope.Has("truncate") && !rope.BoolOr("truncate", true)) {
    rope.Fail("truncate", "is false, which is not supported");
  }
  // 0: derived from the factor.
  scaling.attention_factor =
      static_cast<float>(rope.FloatOr("attention_factor", 0.0, {0.0, 1e3}));
  if (!rope.Has("attention_factor") && rope.Has("mscale") &&
      rope.Has("mscale_all_dim")) {
    const double over = rope.FloatOr("mscale", 1.0, {0.0, 1e3});
    const double under = rope.FloatOr("mscale_all_dim", 1.0, {0.0, 1e3});
    if (over > 0.0 && under > 0.0) {
      scaling.attention_factor =
          static_cast<float>(YarnMagnitude(scaling.factor, over) /
                             YarnMagnitude(scaling.factor, under));
    }
  }
}

void ReadScaling(ConfigReader& json, ConfigReader& rope, RopeConfig& result) {
  const std::string type =
      rope.StringOr("rope_type", rope.StringOr("type", "default"));
  RopeScaling& scaling = result.scaling;
  if (type == "default" || type == "none") return;
  if (type != "linear" && type != "dynamic" && type != "llama3" &&
      type != "yarn") {
    rope.Fail(
        "rope_type",
        absl::StrCat("is \"", type,
                     "\", which is not supported; "
                     "supported: default, linear, dynamic, llama3, yarn"));
    return;
  }
  scaling.factor = RequiredFactor(rope, "factor", kFactorRange);
  scaling.original_max_positions =
      OriginalPositions(json, rope, result.max_positions);
  if (type == "linear") {
    scaling.type = RopeScaling::kLinear;
  } else if (type == "dynamic") {
    scaling.type = RopeScaling::kDynamic;
    if (result.rotary_dims <= 2) {
      rope.Fail("rope_type", "dynamic needs more than two rotary dimensions");
    }
  } else if (type == "llama3") {
    ReadLlama3(json, rope, scaling);
  } else {
    ReadYarn(rope, scaling);
  }
}

}  // namespace

absl::string_view PresentKey(const ConfigReader& json,
                             std::initializer_list<absl::string_view> keys) {
  for (const absl::string_view key : keys) {
    if (json.Has(key)) return key;
  }
  return *keys.begin();
}

int64_t ReadHeadDim(ConfigReader& json, const DecoderConfig& config,
                    absl::string_view heads_key) {
  if (config.hidden % config.heads != 0) {
    json.Fail(heads_key,
              absl::StrCat("is ", config.heads,
                           ", which does not divide the hidden size ",
                           config.hidden));
  }
  return config.hidden / config.heads;
}

bool ReadTied(ConfigReader& json, const TensorSource& tensors,
              const std::string& head_name) {
  return json.BoolOr("tie_word_embeddings", !tensors.Contains(head_name));
}

std::optional<Activation> ActivationOf(absl::string_view name) {
  for (const NamedActivation& entry : kActivations) {
    if (entry.name == name) return entry.activation;
  }
  return std::nullopt;
}

std::string ActivationNames() {
  std::vector<absl::string_view> names;
  for (const NamedActivation& entry : kActivations) names.push_back(entry.name);
  return ListOf(names);
}

Activation ReadActivation(ConfigReader& json, absl::string_view key,
                          absl::string_view fallback) {
  const std::string name = json.StringOr(key, fallback);
  if (const std::optional<Activation> found = ActivationOf(name)) return *found;
  json.Fail(key, absl::StrCat("is \"", name,
                              "\", which is not supported; supported: ",
                              ActivationNames()));
  return Activation::kSilu;
}

RopeConfig ReadRope(ConfigReader& json, const RopeFields& fields) {
  RopeConfig result;
  result.style = fields.style;
  result.rotary_dims = fields.rotary_dims;
  result.max_positions = fields.max_positions;
  const bool nested = json.Has("rope_parameters");
  ConfigReader rope = json.Object(nested ? "rope_parameters" : "rope_scaling");
  for (const char* layer_type : {"full_attention", "sliding_attention"}) {
    if (rope.IsObject(layer_type)) {
      rope.Fail(layer_type, "has settings of its own, which is not supported");
    }
  }
  for (ConfigReader* reader : {&json, &rope}) {
    constexpr char kKey[] = "partial_rotary_factor";
    if (reader->FloatOr(kKey, 1.0, {0.0, 1.0}) != 1.0 && !fields.partial) {
      reader->Fail(kKey, "must be 1 for this architecture");
    }
  }
  const double flat_theta =
      json.FloatOr("rope_theta", fields.default_theta, kThetaRange);
  result.theta = rope.FloatOr("rope_theta", flat_theta, kThetaRange);
  ReadScaling(json, rope, result);
  json.Adopt(rope.status());
  return result;
}

void ReadSpecialIds(ConfigReader& json, const DefaultIds& defaults,
                    DecoderConfig& config) {
  const IntRange range = {0, config.vocabulary - 1};
  const auto usable = [&](const std::optional<int32_t>& id) {
    return id.has_value() && *id < config.vocabulary;
  };
  config.bos_id.reset();
  if (json.Has("bos_token_id")) {
    config.bos_id = static_cast<int32_t>(json.Int("bos_token_id", range));
  } else if (!json.IsNull("bos_token_id") && usable(defaults.bos)) {
    config.bos_id = defaults.bos;
  }
  config.eos_ids.clear();
  if (const auto ids = json.IntOrList("eos_token_id", range)) {
    config.eos_ids.assign(ids->begin(), ids->end());
  } else if (!json.IsNull("eos_token_id") && usable(defaults.eos)) {
    config.eos_ids.push_back(*defaults.eos);
  }
}

}  // namespace nibble
