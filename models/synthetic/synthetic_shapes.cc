#include "models/synthetic/synthetic_shapes.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/elementwise/activation_type.h"
#include "kernels/elementwise/rope.h"

namespace nibble {
namespace {

struct Sizes {
  int64_t layers, hidden, heads, kv_heads, ffn, vocabulary, max_positions;
  int64_t rotary_dims;
};

DecoderConfig ConfigOf(const char* family, const Sizes& sizes) {
  DecoderConfig config;
  config.family = family;
  config.layers = sizes.layers;
  config.hidden = sizes.hidden;
  config.heads = sizes.heads;
  config.kv_heads = sizes.kv_heads;
  config.head_dim = sizes.hidden / sizes.heads;
  config.ffn = sizes.ffn;
  config.vocabulary = sizes.vocabulary;
  config.max_positions = sizes.max_positions;
  config.rope.rotary_dims = sizes.rotary_dims;
  config.rope.max_positions = sizes.max_positions;
  config.windows.assign(static_cast<size_t>(sizes.layers), 0);
  return config;
}

// Pre-norm with LayerNorm, both branches from the same input, no gate.
DecoderConfig ParallelConfig(const char* family, const Sizes& sizes,
                             NormLayout layout, Activation activation) {
  DecoderConfig config = ConfigOf(family, sizes);
  config.norm = NormKind::kLayer;
  config.residual = Residual::kParallel;
  config.norm_layout = layout;
  config.activation = activation;
  config.gated = false;
  return config;
}

DecoderConfig TinyLlama() {
  return ConfigOf("llama", {22, 2048, 32, 4, 5632, 32000, 2048, 64});
}

DecoderConfig Llama2() {
  return ConfigOf("llama", {32, 4096, 32, 32, 11008, 32000, 4096, 128});
}

DecoderConfig GptJ() {
  DecoderConfig config =
      ParallelConfig("gptj", {28, 4096, 16, 16, 16384, 50400, 2048, 64},
                     NormLayout::kShared, Activation::kGeluTanh);
  config.rope.style = RopeStyle::kInterleaved;
  config.mlp_bias = true;
  config.head_bias = true;
  return config;
}

DecoderConfig GptNeoX() {
  DecoderConfig config =
      ParallelConfig("gpt_neox", {44, 6144, 64, 64, 24576, 50432, 2048, 24},
                     NormLayout::kSeparate, Activation::kGeluTanh);
  config.qkv_bias = true;
  config.output_bias = true;
  config.mlp_bias = true;
  return config;
}

DecoderConfig Falcon() {
  DecoderConfig config =
      ParallelConfig("falcon", {32, 4544, 71, 1, 18176, 65024, 2048, 64},
                     NormLayout::kShared, Activation::kGelu);
  config.tied_head = true;
  return config;
}

struct NamedShape {
  const char* name;
  DecoderConfig (*make)();
};

constexpr NamedShape kShapes[] = {
    {"tinyllama-1.1b", TinyLlama}, {"gptj-6b", GptJ},
    {"llama-2-7b", Llama2},        {"falcon-7b", Falcon},
    {"gpt-neox-20b", GptNeoX},
};

}  // namespace

absl::StatusOr<DecoderConfig> SyntheticShape(absl::string_view name) {
  for (const NamedShape& shape : kShapes) {
    if (name == shape.name) return shape.make();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown shape '", name, "': choose one of ",
                   absl::StrJoin(SyntheticShapeNames(), ", ")));
}

std::vector<std::string> SyntheticShapeNames() {
  std::vector<std::string> names;
  for (const NamedShape& shape : kShapes) names.push_back(shape.name);
  return names;
}

int64_t LayerWeightCount(const DecoderConfig& config) {
  return config.hidden * (config.qkv_dim() + config.q_dim() +
                          config.ffn * (config.gated ? 3 : 2));
}

int64_t HeadWeightCount(const DecoderConfig& config) {
  return config.vocabulary * config.hidden;
}

}  // namespace nibble
