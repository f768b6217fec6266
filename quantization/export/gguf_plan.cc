#include "quantization/export/gguf_plan.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/elementwise/activation_type.h"
#include "kernels/elementwise/rope.h"
#include "models/decoder_config.h"
#include "models/packed_names.h"

namespace nibble {
namespace {

// What llama.cpp makes of an architecture.
struct Architecture {
  absl::string_view family;  // DecoderConfig::family
  absl::string_view name;    // general.architecture
  bool fused_qkv;
  RopeStyle rope;
  bool gated_silu;  // else plain GELU
  bool needs_bias;  // of q, k, v and the attention's output
  bool may_have_bias;
};

constexpr Architecture kArchitectures[] = {
    {"llama", "llama", false, RopeStyle::kInterleaved, true, false, true},
    {"mistral", "llama", false, RopeStyle::kInterleaved, true, false, true},
    {"qwen2", "qwen2", false, RopeStyle::kHalf, true, false, true},
    {"gpt_neox", "gptneox", true, RopeStyle::kHalf, false, true, true},
    {"gptneox", "gptneox", true, RopeStyle::kHalf, false, true, true},
    {"falcon", "falcon", true, RopeStyle::kHalf, false, false, false},
    {"gptj", "gptj", false, RopeStyle::kInterleaved, false, false, true},
};

int64_t TotalRows(const std::vector<RowRange>& ranges) {
  int64_t rows = 0;
  for (const RowRange& range : ranges) rows += range.rows;
  return rows;
}

// What `arch` cannot express of the model; empty: nothing.
std::string Obstacle(const DecoderConfig& config, const Architecture& arch) {
  if (config.alibi) return "ALiBi";
  if (arch.name == "falcon" && config.residual != Residual::kParallel) {
    return "Falcon layers that are not parallel";
  }
  if (!arch.may_have_bias &&
      (config.qkv_bias || config.output_bias || config.mlp_bias)) {
    return "biases of Falcon";
  }
  const bool gelu = config.activation == Activation::kGelu ||
                    config.activation == Activation::kGeluTanh;
  if (arch.gated_silu ? config.activation != Activation::kSilu : !gelu) {
    return "this activation function";
  }
  if (config.rope.scaling.type == RopeScaling::kDynamic) {
    return "dynamic rotary scaling";
  }
  for (const int64_t window : config.windows) {
    if (window != config.windows[0]) {
      return "attention windows that differ between layers";
    }
  }
  return "";
}

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const Architecture& arch)
      : config_(checkpoint.config),
        source_(checkpoint.names),
        nib_(PackedTensorNames(config_)),
        arch_(arch) {
    permuted_ = arch.rope == RopeStyle::kInterleaved &&
                config_.rope.style == RopeStyle::kHalf;
  }

  GgufPlan Plan() && {
    const bool tied = config_.tied_head;
    Matrix("token_embd.weight", {{source_.embedding, 0, config_.vocabulary}},
           config_.hidden, tied ? nib_.head.weight[0].tensor : kGgufEmbedding);
    for (size_t i = 0; i < source_.layers.size(); ++i) Layer(i);
    Norm("output_norm", source_.final_norm);
    if (!tied) {
      Linear("output", source_.head, config_.hidden,
             nib_.head.weight[0].tensor);
    }
    return {std::string(arch_.name), std::move(parts_)};
  }

 private:
  void Layer(size_t i) {
    const LayerTensors& from = source_.layers[i];
    const LayerTensors& nib = nib_.layers[i];
    const std::string block = absl::StrCat("blk.", i, ".");
    // Falcon's second norm of a layer came later, for the attention.
    const bool two = config_.norm_layout == NormLayout::kSeparate;
    if (two && arch_.name == "falcon") {
      Norm(block + "attn_norm_2", from.attention_norm);
      Norm(block + "attn_norm", from.mlp_norm);
    } else {
      Norm(block + "attn_norm", from.attention_norm);
      if (two) Norm(block + "ffn_norm", from.mlp_norm);
    }
    Qkv(block, from.qkv, nib.qkv.weight[0].tensor);
    Linear(block + "attn_output", from.attention, config_.q_dim(),
           nib.attention.weight[0].tensor);
    if (arch_.needs_bias && from.attention.bias.empty()) {
      Vector(block + "attn_output.bias", {}, config_.hidden);
    }
    if (config_.gated) {
      const LinearTensors gate = Part(from.up, 0, config_.ffn);
      const LinearTensors up = Part(from.up, config_.ffn, config_.ffn);
      Linear(block + "ffn_gate", gate, config_.hidden, nib.up.weight[0].tensor);
      Linear(block + "ffn_up", up, config_.hidden, nib.up.weight[0].tensor);
    } else {
      Linear(block + "ffn_up", from.up, config_.hidden,
             nib.up.weight[0].tensor);
    }
    Linear(block + "ffn_down", from.down, config_.ffn,
           nib.down.weight[0].tensor);
  }

  void Qkv(const std::string& block, const LinearTensors& qkv,
           const std::string& matrix) {
    if (arch_.fused_qkv) {
      Linear(block + "attn_qkv", qkv, config_.hidden, matrix);
      if (arch_.needs_bias && qkv.bias.empty()) {
        Vector(block + "attn_qkv.bias", {}, config_.qkv_dim());
      }
      return;
    }
    const int64_t q = config_.q_dim(), kv = config_.kv_dim();
    const int64_t permuted = permuted_ ? config_.head_dim : 0;
    Linear(block + "attn_q", Part(qkv, 0, q), config_.hidden, matrix, permuted);
    Linear(block + "attn_k", Part(qkv, q, kv), config_.hidden, matrix,
           permuted);
    Linear(block + "attn_v", Part(qkv, q + kv, kv), config_.hidden, matrix);
  }

  // Outputs [first, first + count).
  static LinearTensors Part(const LinearTensors& linear, int64_t first,
                            int64_t count) {
    LinearTensors part;
    part.weight = Cut(linear.weight, first, count);
    part.bias = Cut(linear.bias, first, count);
    return part;
  }

  static std::vector<RowRange> Cut(const std::vector<RowRange>& ranges,
                                   int64_t first, int64_t count) {
    std::vector<RowRange> result;
    int64_t begin = 0;  // of the range
    for (const RowRange& range : ranges) {
      const int64_t from = std::max(first, begin);
      const int64_t to = std::min(first + count, begin + range.rows);
      if (from < to) {
        result.push_back(
            {range.tensor, range.first_row + from - begin, to - from});
      }
      begin += range.rows;
    }
    return result;
  }

  void Norm(const std::string& name, const NormTensors& norm) {
    if (!norm.weight.empty()) {
      Vector(name + ".weight", {{norm.weight, 0, config_.hidden}},
             config_.hidden);
    }
    if (!norm.bias.empty()) {
      Vector(name + ".bias", {{norm.bias, 0, config_.hidden}}, config_.hidden);
    }
  }

  void Linear(const std::string& name, const LinearTensors& linear,
              int64_t inputs, const std::string& matrix,
              int64_t permuted_head_dim = 0) {
    Matrix(name + ".weight", linear.weight, inputs, matrix);
    parts_.back().permuted_head_dim = permuted_head_dim;
    if (linear.bias.empty()) return;
    Vector(name + ".bias", linear.bias, TotalRows(linear.bias));
    parts_.back().permuted_head_dim = permuted_head_dim;
  }

  void Matrix(const std::string& name, std::vector<RowRange> rows,
              int64_t inputs, const std::string& matrix) {
    GgufPart part;
    part.name = name;
    part.shape = {TotalRows(rows), inputs};
    part.rows = std::move(rows);
    part.matrix = matrix;
    parts_.push_back(std::move(part));
  }

  void Vector(const std::string& name, std::vector<RowRange> elements,
              int64_t size) {
    GgufPart part;
    part.name = name;
    part.shape = {size};
    part.rows = std::move(elements);
    parts_.push_back(std::move(part));
  }

  const DecoderConfig& config_;
  const DecoderTensors& source_;
  const DecoderTensors nib_;
  const Architecture& arch_;
  bool permuted_ = false;
  std::vector<GgufPart> parts_;
};

}  // namespace

int64_t GgufPart::WrittenRow(int64_t source) const {
  if (permuted_head_dim == 0) return source;
  const int64_t in_head = source % permuted_head_dim;
  const int64_t half = permuted_head_dim / 2;
  return source - in_head + in_head % half * 2 + in_head / half;
}

absl::StatusOr<GgufPlan> PlanGguf(const Checkpoint& checkpoint) {
  const std::string& family = checkpoint.config.family;
  for (const Architecture& arch : kArchitectures) {
    if (arch.family != family) continue;
    const std::string obstacle = Obstacle(checkpoint.config, arch);
    if (!obstacle.empty()) {
      return absl::UnimplementedError(absl::StrCat(
          checkpoint.path, ": ", obstacle,
          " cannot be written into a GGUF file of architecture ", arch.name));
    }
    return Planner(checkpoint, arch).Plan();
  }
  return absl::UnimplementedError(
      absl::StrCat(checkpoint.path, ": models of the family ", family,
                   " cannot be written into a GGUF file"));
}

}  // namespace nibble
