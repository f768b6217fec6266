#include "models/manifest_config.h"

#include <cmath>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/decoder_config.h"
#include "tensor/io/packed_manifest.pb.h"
#include "testing/matchers.h"
#include "testing/random_checkpoint.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TinyDecoderConfig;

void ExpectEqualRope(const RopeConfig& a, const RopeConfig& b) {
  EXPECT_EQ(a.style, b.style);
  EXPECT_EQ(a.rotary_dims, b.rotary_dims);
  EXPECT_EQ(a.theta, b.theta);
  EXPECT_EQ(a.max_positions, b.max_positions);
  EXPECT_EQ(a.scaling.type, b.scaling.type);
  EXPECT_EQ(a.scaling.factor, b.scaling.factor);
  EXPECT_EQ(a.scaling.low_freq_factor, b.scaling.low_freq_factor);
  EXPECT_EQ(a.scaling.high_freq_factor, b.scaling.high_freq_factor);
  EXPECT_EQ(a.scaling.beta_fast, b.scaling.beta_fast);
  EXPECT_EQ(a.scaling.beta_slow, b.scaling.beta_slow);
  EXPECT_EQ(a.scaling.attention_factor, b.scaling.attention_factor);
  EXPECT_EQ(a.scaling.original_max_positions, b.scaling.original_max_positions);
}

void ExpectEqual(const DecoderConfig& a, const DecoderConfig& b) {
  EXPECT_EQ(a.family, b.family);
  EXPECT_EQ(a.vocabulary, b.vocabulary);
  EXPECT_EQ(a.hidden, b.hidden);
  EXPECT_EQ(a.layers, b.layers);
  EXPECT_EQ(a.heads, b.heads);
  EXPECT_EQ(a.kv_heads, b.kv_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.ffn, b.ffn);
  EXPECT_EQ(a.max_positions, b.max_positions);
  EXPECT_EQ(a.norm, b.norm);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.residual, b.residual);
  EXPECT_EQ(a.norm_layout, b.norm_layout);
  ExpectEqualRope(a.rope, b.rope);
  EXPECT_EQ(a.rope_divisors, b.rope_divisors);
  EXPECT_EQ(a.alibi, b.alibi);
  EXPECT_EQ(a.alibi_scale, b.alibi_scale);
  EXPECT_EQ(a.activation, b.activation);
  EXPECT_EQ(a.gated, b.gated);
  EXPECT_EQ(a.qkv_bias, b.qkv_bias);
  EXPECT_EQ(a.output_bias, b.output_bias);
  EXPECT_EQ(a.mlp_bias, b.mlp_bias);
  EXPECT_EQ(a.head_bias, b.head_bias);
  EXPECT_EQ(a.tied_head, b.tied_head);
  EXPECT_EQ(a.windows, b.windows);
  EXPECT_EQ(a.bos_id, b.bos_id);
  EXPECT_EQ(a.eos_ids, b.eos_ids);
}

void ExpectRoundTrip(const DecoderConfig& config) {
  ModelConfig written;
  ToManifest(config, &written);
  ModelConfig stored;
  ASSERT_TRUE(stored.ParseFromString(written.SerializeAsString()));
  const absl::StatusOr<DecoderConfig> read = FromManifest(stored, "x.nib");
  ASSERT_THAT(read, IsOk());
  ExpectEqual(*read, config);
}

// No field has its default value.
DecoderConfig UnusualConfig() {
  DecoderConfig config = TinyDecoderConfig();
  config.family = "unusual";
  config.norm = NormKind::kLayer;
  config.norm_eps = 3e-6f;
  config.residual = Residual::kParallel;
  config.norm_layout = NormLayout::kShared;
  config.rope.style = RopeStyle::kInterleaved;
  config.rope.rotary_dims = 6;
  config.rope.theta = 500000.25;
  config.rope.max_positions = 48;
  config.rope.scaling = {
      RopeScaling::kYarn, 4.0f, 1.5f, 3.5f, 30.0f, 2.0f, 1.1f, 24};
  config.rope_divisors = {1.0f, 2.5f, 8.0f};
  config.alibi = true;
  config.alibi_scale = 0.125f;
  config.activation = Activation::kQuickGelu;
  config.gated = false;
  config.qkv_bias = config.output_bias = true;
  config.mlp_bias = config.head_bias = config.tied_head = true;
  config.windows = {0, 7};
  config.bos_id = 5;
  config.eos_ids = {6, 96};
  return config;
}

TEST(ManifestConfigTest, EveryFieldSurvivesTheRoundTrip) {
  ExpectRoundTrip(TinyDecoderConfig());
  ExpectRoundTrip(UnusualConfig());
}

TEST(ManifestConfigTest, EveryVariantSurvivesTheRoundTrip) {
  for (const Activation activation :
       {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
        Activation::kQuickGelu}) {
    DecoderConfig config = TinyDecoderConfig();
    config.activation = activation;
    ExpectRoundTrip(config);
  }
  for (const RopeStyle style :
       {RopeStyle::kNone, RopeStyle::kHalf, RopeStyle::kInterleaved}) {
    DecoderConfig config = TinyDecoderConfig();
    config.rope.style = style;
    ExpectRoundTrip(config);
  }
  for (const RopeScaling::Type type :
       {RopeScaling::kNone, RopeScaling::kLinear, RopeScaling::kDynamic,
        RopeScaling::kLlama3, RopeScaling::kYarn}) {
    DecoderConfig config = TinyDecoderConfig();
    config.rope.scaling.type = type;
    ExpectRoundTrip(config);
  }
  for (const Residual residual : {Residual::kSequential, Residual::kParallel}) {
    DecoderConfig config = TinyDecoderConfig();
    config.residual = residual;
    ExpectRoundTrip(config);
  }
}

TEST(ManifestConfigTest, RejectsAMissingFieldByName) {
  ModelConfig complete;
  ToManifest(UnusualConfig(), &complete);
  struct Case {
    const char* field;
    void (*clear)(ModelConfig&);
  };
  const Case cases[] = {
      {"\"family\"", [](ModelConfig& m) { m.clear_family(); }},
      {"\"vocabulary\"", [](ModelConfig& m) { m.clear_vocabulary(); }},
      {"\"hidden\"", [](ModelConfig& m) { m.clear_hidden(); }},
      {"\"layers\"", [](ModelConfig& m) { m.clear_layers(); }},
      {"\"heads\"", [](ModelConfig& m) { m.clear_heads(); }},
      {"\"kv_heads\"", [](ModelConfig& m) { m.clear_kv_heads(); }},
      {"\"head_dim\"", [](ModelConfig& m) { m.clear_head_dim(); }},
      {"\"ffn\"", [](ModelConfig& m) { m.clear_ffn(); }},
      {"\"max_positions\"", [](ModelConfig& m) { m.clear_max_positions(); }},
      {"\"norm\"", [](ModelConfig& m) { m.clear_norm(); }},
      {"\"norm_eps\"", [](ModelConfig& m) { m.clear_norm_eps(); }},
      {"\"residual\"", [](ModelConfig& m) { m.clear_residual(); }},
      {"\"norm_layout\"", [](ModelConfig& m) { m.clear_norm_layout(); }},
      {"\"alibi\"", [](ModelConfig& m) { m.clear_alibi(); }},
      {"\"activation\"", [](ModelConfig& m) { m.clear_activation(); }},
      {"\"gated\"", [](ModelConfig& m) { m.clear_gated(); }},
      {"\"tied_head\"", [](ModelConfig& m) { m.clear_tied_head(); }},
      {"\"rope.style\"", [](ModelConfig& m) { m.clear_rope(); }},
      {"\"rope.theta\"",
       [](ModelConfig& m) { m.mutable_rope()->clear_theta(); }},
  };
  for (const Case& broken : cases) {
    ModelConfig damaged = complete;
    broken.clear(damaged);
    EXPECT_THAT(FromManifest(damaged, "x.nib"),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("x.nib"), HasSubstr(broken.field))));
  }
}

// Writes a configuration with one change and expects its refusal.
void ExpectRefused(absl::FunctionRef<void(ModelConfig&)> change,
                   const std::string& message) {
  ModelConfig damaged;
  ToManifest(TinyDecoderConfig(), &damaged);
  damaged.mutable_rope()->set_scaling(ModelConfig::Rope::LLAMA3);
  ASSERT_THAT(FromManifest(damaged, "x.nib"), IsOk());
  change(damaged);
  EXPECT_THAT(FromManifest(damaged, "x.nib"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("x.nib"), HasSubstr(message))));
}

TEST(ManifestConfigTest, RejectsNumbersThatDoNotFitTogether) {
  ExpectRefused([](auto& m) { m.set_hidden(-1); }, "hidden size");
  ExpectRefused([](auto& m) { m.set_hidden(INT64_MAX); }, "hidden size");
  ExpectRefused([](auto& m) { m.set_kv_heads(3); }, "divide");
  ExpectRefused([](auto& m) { m.mutable_rope()->set_rotary_dims(7); },
                "rotary");
  ExpectRefused([](auto& m) { m.mutable_rope()->set_theta(NAN); },
                "rotary base");
  ExpectRefused([](auto& m) { m.mutable_rope()->set_factor(0.0f); },
                "scaling factor");
  ExpectRefused([](auto& m) { m.mutable_rope()->set_high_freq_factor(0.5f); },
                "high frequency factor");
  ExpectRefused([](auto& m) { m.mutable_rope()->set_max_positions(0); },
                "rotary positions");
  ExpectRefused([](auto& m) { m.set_norm_eps(-1e-5f); }, "norm epsilon");
  ExpectRefused([](auto& m) { m.set_norm_eps(NAN); }, "norm epsilon");
  ExpectRefused([](auto& m) { m.set_alibi_scale(INFINITY); }, "ALiBi");
  ExpectRefused([](auto& m) { m.add_windows(3); }, "windows");
  ExpectRefused([](auto& m) { m.set_windows(0, -4); }, "-4");
  ExpectRefused([](auto& m) { m.set_bos_id(97); }, "97");
  ExpectRefused([](auto& m) { m.add_eos_ids(-1); }, "-1");
}

}  // namespace
}  // namespace nibble
