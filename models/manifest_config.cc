#include "models/manifest_config.h"

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// One value and its two names. The tables below are the translation, in both
// directions; the compiler does not see a missing row, the round-trip test
// does.
template <class Ours, class Theirs>
struct Pair {
  Ours ours;
  Theirs theirs;
};

using Rope = ModelConfig::Rope;

constexpr Pair<NormKind, ModelConfig::Norm> kNorms[] = {
    {NormKind::kRms, ModelConfig::RMS},
    {NormKind::kLayer, ModelConfig::LAYER},
};
constexpr Pair<Residual, ModelConfig::ResidualKind> kResiduals[] = {
    {Residual::kSequential, ModelConfig::SEQUENTIAL},
    {Residual::kParallel, ModelConfig::PARALLEL},
};
constexpr Pair<NormLayout, ModelConfig::NormSharing> kNormLayouts[] = {
    {NormLayout::kSeparate, ModelConfig::SEPARATE},
    {NormLayout::kShared, ModelConfig::SHARED},
};
constexpr Pair<Activation, ModelConfig::ActivationKind> kActivations[] = {
    {Activation::kSilu, ModelConfig::SILU},
    {Activation::kGelu, ModelConfig::GELU},
    {Activation::kGeluTanh, ModelConfig::GELU_TANH},
    {Activation::kQuickGelu, ModelConfig::QUICK_GELU},
};
constexpr Pair<RopeStyle, Rope::Style> kRopeStyles[] = {
    {RopeStyle::kNone, Rope::NONE},
    {RopeStyle::kHalf, Rope::HALF},
    {RopeStyle::kInterleaved, Rope::INTERLEAVED},
};
constexpr Pair<RopeScaling::Type, Rope::Scaling> kRopeScalings[] = {
    {RopeScaling::kNone, Rope::UNSCALED},
    {RopeScaling::kLinear, Rope::LINEAR},
    {RopeScaling::kDynamic, Rope::DYNAMIC},
    {RopeScaling::kLlama3, Rope::LLAMA3},
    {RopeScaling::kYarn, Rope::YARN},
};

template <class Ours, class Theirs, size_t n>
Theirs Write(const Pair<Ours, Theirs> (&table)[n], Ours value) {
  for (const Pair<Ours, Theirs>& pair : table) {
    if (pair.ours == value) return pair.theirs;
  }
  return Theirs{};  // "unspecified", which is refused on the way in.
}

// Reads fields one by one; the first problem is kept.
class Reader {
 public:
  explicit Reader(const std::string& source) : source_(source) {}

  const absl::Status& status() const { return status_; }

  // A field that must be there.
  template <class T>
  void Required(bool present, const char* field, const T& value, T& result) {
    if (present) {
      result = value;
    } else {
      Fail(field);
    }
  }

  // One of a table's values. An enumerator of a later version reads as absent.
  template <class Ours, class Theirs, size_t n>
  void OneOf(const Pair<Ours, Theirs> (&table)[n], const char* field,
             Theirs value, Ours& result) {
    for (const Pair<Ours, Theirs>& pair : table) {
      if (pair.theirs == value) {
        result = pair.ours;
        return;
      }
    }
    Fail(field);
  }

 private:
  void Fail(const char* field) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrCat(
        source_, ": the manifest's configuration has no \"", field,
        "\", or one that this version does not know; the file is damaged or "
        "was written by a newer version"));
  }

  const std::string& source_;
  absl::Status status_;
};

void WriteRope(const DecoderConfig& config, Rope* rope) {
  const RopeConfig& ours = config.rope;
  rope->set_style(Write(kRopeStyles, ours.style));
  rope->set_rotary_dims(ours.rotary_dims);
  rope->set_theta(ours.theta);
  rope->set_max_positions(ours.max_positions);
  rope->set_scaling(Write(kRopeScalings, ours.scaling.type));
  rope->set_factor(ours.scaling.factor);
  rope->set_low_freq_factor(ours.scaling.low_freq_factor);
  rope->set_high_freq_factor(ours.scaling.high_freq_factor);
  rope->set_beta_fast(ours.scaling.beta_fast);
  rope->set_beta_slow(ours.scaling.beta_slow);
  rope->set_attention_factor(ours.scaling.attention_factor);
  rope->set_original_max_positions(ours.scaling.original_max_positions);
  *rope->mutable_divisors() = {config.rope_divisors.begin(),
                               config.rope_divisors.end()};
}

void ReadRope(const Rope& rope, Reader& reader, DecoderConfig& config) {
  RopeConfig& ours = config.rope;
  RopeScaling& scaling = ours.scaling;
  reader.OneOf(kRopeStyles, "rope.style", rope.style(), ours.style);
  reader.Required(rope.has_rotary_dims(), "rope.rotary_dims",
                  rope.rotary_dims(), ours.rotary_dims);
  reader.Required(rope.has_theta(), "rope.theta", rope.theta(), ours.theta);
  reader.Required(rope.has_max_positions(), "rope.max_positions",
                  rope.max_positions(), ours.max_positions);
  reader.OneOf(kRopeScalings, "rope.scaling", rope.scaling(), scaling.type);
  reader.Required(rope.has_factor(), "rope.factor", rope.factor(),
                  scaling.factor);
  reader.Required(rope.has_low_freq_factor(), "rope.low_freq_factor",
                  rope.low_freq_factor(), scaling.low_freq_factor);
  reader.Required(rope.has_high_freq_factor(), "rope.high_freq_factor",
                  rope.high_freq_factor(), scaling.high_freq_factor);
  reader.Required(rope.has_beta_fast(), "rope.beta_fast", rope.beta_fast(),
                  scaling.beta_fast);
  reader.Required(rope.has_beta_slow(), "rope.beta_slow", rope.beta_slow(),
                  scaling.beta_slow);
  reader.Required(rope.has_attention_factor(), "rope.attention_factor",
                  rope.attention_factor(), scaling.attention_factor);
  reader.Required(rope.has_original_max_positions(),
                  "rope.original_max_positions", rope.original_max_positions(),
                  scaling.original_max_positions);
  config.rope_divisors = {rope.divisors().begin(), rope.divisors().end()};
}

void ReadSizes(const ModelConfig& m, Reader& reader, DecoderConfig& c) {
  reader.Required(m.has_vocabulary(), "vocabulary", m.vocabulary(),
                  c.vocabulary);
  reader.Required(m.has_hidden(), "hidden", m.hidden(), c.hidden);
  reader.Required(m.has_layers(), "layers", m.layers(), c.layers);
  reader.Required(m.has_heads(), "heads", m.heads(), c.heads);
  reader.Required(m.has_kv_heads(), "kv_heads", m.kv_heads(), c.kv_heads);
  reader.Required(m.has_head_dim(), "head_dim", m.head_dim(), c.head_dim);
  reader.Required(m.has_ffn(), "ffn", m.ffn(), c.ffn);
  reader.Required(m.has_max_positions(), "max_positions", m.max_positions(),
                  c.max_positions);
}

void ReadGraph(const ModelConfig& m, Reader& reader, DecoderConfig& c) {
  reader.OneOf(kNorms, "norm", m.norm(), c.norm);
  reader.Required(m.has_norm_eps(), "norm_eps", m.norm_eps(), c.norm_eps);
  reader.OneOf(kResiduals, "residual", m.residual(), c.residual);
  reader.OneOf(kNormLayouts, "norm_layout", m.norm_layout(), c.norm_layout);
  reader.Required(m.has_alibi(), "alibi", m.alibi(), c.alibi);
  reader.Required(m.has_alibi_scale(), "alibi_scale", m.alibi_scale(),
                  c.alibi_scale);
  reader.OneOf(kActivations, "activation", m.activation(), c.activation);
  reader.Required(m.has_gated(), "gated", m.gated(), c.gated);
  reader.Required(m.has_qkv_bias(), "qkv_bias", m.qkv_bias(), c.qkv_bias);
  reader.Required(m.has_output_bias(), "output_bias", m.output_bias(),
                  c.output_bias);
  reader.Required(m.has_mlp_bias(), "mlp_bias", m.mlp_bias(), c.mlp_bias);
  reader.Required(m.has_head_bias(), "head_bias", m.head_bias(), c.head_bias);
  reader.Required(m.has_tied_head(), "tied_head", m.tied_head(), c.tied_head);
}

}  // namespace

void ToManifest(const DecoderConfig& config, ModelConfig* manifest) {
  ModelConfig& m = *manifest;
  m.Clear();
  m.set_family(config.family);
  m.set_vocabulary(config.vocabulary);
  m.set_hidden(config.hidden);
  m.set_layers(config.layers);
  m.set_heads(config.heads);
  m.set_kv_heads(config.kv_heads);
  m.set_head_dim(config.head_dim);
  m.set_ffn(config.ffn);
  m.set_max_positions(config.max_positions);
  m.set_norm(Write(kNorms, config.norm));
  m.set_norm_eps(config.norm_eps);
  m.set_residual(Write(kResiduals, config.residual));
  m.set_norm_layout(Write(kNormLayouts, config.norm_layout));
  WriteRope(config, m.mutable_rope());
  m.set_alibi(config.alibi);
  m.set_alibi_scale(config.alibi_scale);
  m.set_activation(Write(kActivations, config.activation));
  m.set_gated(config.gated);
  m.set_qkv_bias(config.qkv_bias);
  m.set_output_bias(config.output_bias);
  m.set_mlp_bias(config.mlp_bias);
  m.set_head_bias(config.head_bias);
  m.set_tied_head(config.tied_head);
  *m.mutable_windows() = {config.windows.begin(), config.windows.end()};
  if (config.bos_id) m.set_bos_id(*config.bos_id);
  *m.mutable_eos_ids() = {config.eos_ids.begin(), config.eos_ids.end()};
}

absl::StatusOr<DecoderConfig> FromManifest(const ModelConfig& manifest,
                                           const std::string& source) {
  DecoderConfig config;
  Reader reader(source);
  reader.Required(manifest.has_family(), "family", manifest.family(),
                  config.family);
  ReadSizes(manifest, reader, config);
  ReadGraph(manifest, reader, config);
  ReadRope(manifest.rope(), reader, config);
  if (!reader.status().ok()) return reader.status();
  config.windows = {manifest.windows().begin(), manifest.windows().end()};
  if (manifest.has_bos_id()) config.bos_id = manifest.bos_id();
  config.eos_ids = {manifest.eos_ids().begin(), manifest.eos_ids().end()};
  const absl::Status valid = ValidateDecoderConfig(config, source);
  if (!valid.ok()) return valid;
  return config;
}

}  // namespace nibble
