#include "testing/decoder_graphs.h"

#include <string>
#include <utility>
#include <vector>

#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/decoder_config.h"
#include "testing/random_checkpoint.h"

namespace nibble::testing {
namespace {

DecoderConfig NeoxConfig() {
  DecoderConfig config = TinyDecoderConfig();
  config.norm = NormKind::kLayer;
  config.residual = Residual::kParallel;
  config.kv_heads = 4;
  config.rope.rotary_dims = 4;
  config.activation = Activation::kGelu;
  config.gated = false;
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  return config;
}

DecoderConfig GptjConfig() {
  DecoderConfig config = NeoxConfig();
  config.norm_layout = NormLayout::kShared;
  config.rope.style = RopeStyle::kInterleaved;
  config.rope.rotary_dims = 6;
  config.activation = Activation::kGeluTanh;
  config.qkv_bias = config.output_bias = false;
  config.head_bias = true;
  return config;
}

DecoderConfig AlibiConfig() {
  DecoderConfig config = TinyDecoderConfig();
  config.norm = NormKind::kLayer;
  config.heads = 6;
  config.kv_heads = 6;
  config.rope.style = RopeStyle::kNone;
  config.alibi = true;
  config.alibi_scale = 0.25f;
  config.gated = false;
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  config.tied_head = true;
  return config;
}

}  // namespace

void PrintTo(const DecoderGraph& graph, std::ostream* out) {
  *out << graph.name;
}

std::string GraphName(const ::testing::TestParamInfo<DecoderGraph>& info) {
  return info.param.name;
}

std::vector<DecoderGraph> DecoderGraphs() {
  std::vector<DecoderGraph> cases;
  const auto add = [&cases](std::string name, auto change) {
    DecoderConfig config = TinyDecoderConfig();
    change(config);
    cases.push_back({std::move(name), std::move(config)});
  };
  add("Llama", [](DecoderConfig&) {});
  add("HeadsWiderThanHidden", [](DecoderConfig& c) {
    c.head_dim = 14;
    c.rope.rotary_dims = 14;
  });
  add("OneKvHead", [](DecoderConfig& c) { c.kv_heads = 1; });
  add("AllBiases", [](DecoderConfig& c) {
    c.qkv_bias = c.output_bias = c.mlp_bias = c.head_bias = true;
  });
  add("TiedHead", [](DecoderConfig& c) { c.tied_head = true; });
  add("WindowOnOneLayer", [](DecoderConfig& c) { c.windows = {0, 5}; });
  add("InterleavedRope", [](DecoderConfig& c) {
    c.rope.style = RopeStyle::kInterleaved;
    c.rope_divisors = {1.0f, 2.0f, 4.0f, 8.0f};
  });
  add("LinearRope", [](DecoderConfig& c) {
    c.rope.scaling.type = RopeScaling::kLinear;
    c.rope.scaling.factor = 4.0f;
  });
  add("DynamicRopePastItsLength", [](DecoderConfig& c) {
    c.rope.scaling.type = RopeScaling::kDynamic;
    c.rope.scaling.factor = 2.0f;
    c.rope.max_positions = 16;
  });
  add("Llama3Rope", [](DecoderConfig& c) {
    c.rope.scaling.type = RopeScaling::kLlama3;
    c.rope.scaling.factor = 8.0f;
    c.rope.scaling.original_max_positions = 32;
  });
  add("YarnRope", [](DecoderConfig& c) {
    c.rope.scaling.type = RopeScaling::kYarn;
    c.rope.scaling.factor = 4.0f;
    c.rope.scaling.original_max_positions = 32;
  });
  cases.push_back({"ParallelSeparateNorms", NeoxConfig()});
  DecoderConfig sequential = NeoxConfig();
  sequential.residual = Residual::kSequential;
  cases.push_back({"SequentialLayerNorm", sequential});
  cases.push_back({"ParallelSharedNorm", GptjConfig()});
  cases.push_back({"Alibi", AlibiConfig()});
  return cases;
}

}  // namespace nibble::testing
