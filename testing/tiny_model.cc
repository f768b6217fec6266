#include "testing/tiny_model.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble::testing {
namespace {

// Random tensors of one dtype, kept until they are written.
class TensorSet {
 public:
  TensorSet(DType dtype, uint64_t seed) : dtype_(dtype), random_(seed) {}

  // Values spread so that activations neither die out nor explode.
  void Matrix(const std::string& name, int64_t outputs, int64_t inputs) {
    Add(name, {outputs, inputs}, random_.Normal(outputs * inputs, 0.2f));
  }
  void Norm(const std::string& name, int64_t size) {
    Add(name, {size}, random_.Uniform(size, 0.5f, 1.5f));
  }
  void Bias(const std::string& name, int64_t size) {
    Add(name, {size}, random_.Normal(size, 0.3f));
  }
  void Linear(const std::string& name, int64_t outputs, int64_t inputs,
              bool bias) {
    Matrix(name + ".weight", outputs, inputs);
    if (bias) Bias(name + ".bias", outputs);
  }

  absl::Span<const NamedTensor> tensors() const { return tensors_; }

 private:
  void Add(const std::string& name, const Shape& shape,
           const std::vector<float>& values) {
    if (dtype_ == DType::kF32) {
      Array<float> copy(values.size());
      std::copy(values.begin(), values.end(), copy.begin());
      f32_.push_back(std::move(copy));
      tensors_.push_back(
          {name, MakeTensorView<float>(f32_.back().span(), shape)});
    } else if (dtype_ == DType::kBF16) {
      Array<BF16> narrow(values.size());
      F32ToBF16(values, narrow.span());
      bf16_.push_back(std::move(narrow));
      tensors_.push_back(
          {name, MakeTensorView<BF16>(bf16_.back().span(), shape)});
    } else {
      CHECK(dtype_ == DType::kF16) << DTypeName(dtype_);
      Array<F16> narrow(values.size());
      F32ToF16(values, narrow.span());
      f16_.push_back(std::move(narrow));
      tensors_.push_back(
          {name, MakeTensorView<F16>(f16_.back().span(), shape)});
    }
  }

  DType dtype_;
  RandomValues random_;
  // The arrays' memory stays in place when these grow.
  std::vector<Array<float>> f32_;
  std::vector<Array<BF16>> bf16_;
  std::vector<Array<F16>> f16_;
  std::vector<NamedTensor> tensors_;
};

void AddLayer(const TinyModelOptions& options, int64_t layer,
              TensorSet& tensors) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  const int64_t q_dim = options.heads * options.head_dim;
  const int64_t kv_dim = options.kv_heads * options.head_dim;
  const bool qkv_bias = options.attention_bias || options.model_type == "qwen2";
  tensors.Norm(prefix + "input_layernorm.weight", options.hidden);
  tensors.Linear(attention + "q_proj", q_dim, options.hidden, qkv_bias);
  tensors.Linear(attention + "k_proj", kv_dim, options.hidden, qkv_bias);
  tensors.Linear(attention + "v_proj", kv_dim, options.hidden, qkv_bias);
  tensors.Linear(attention + "o_proj", options.hidden, q_dim,
                 options.attention_bias);
  tensors.Norm(prefix + "post_attention_layernorm.weight", options.hidden);
  tensors.Linear(mlp + "gate_proj", options.ffn, options.hidden,
                 options.mlp_bias);
  tensors.Linear(mlp + "up_proj", options.ffn, options.hidden,
                 options.mlp_bias);
  tensors.Linear(mlp + "down_proj", options.hidden, options.ffn,
                 options.mlp_bias);
}

const char* Flag(bool value) { return value ? "true" : "false"; }

const char* ArchitectureOf(const std::string& model_type) {
  if (model_type == "mistral") return "MistralForCausalLM";
  if (model_type == "qwen2") return "Qwen2ForCausalLM";
  return "LlamaForCausalLM";
}

}  // namespace

std::string TinyLlamaConfig(const TinyModelOptions& options) {
  return absl::StrCat(
      "{\"model_type\": \"", options.model_type, "\", \"architectures\": [\"",
      ArchitectureOf(options.model_type),
      "\"], \"vocab_size\": ", options.vocabulary,
      ", \"hidden_size\": ", options.hidden,
      ", \"intermediate_size\": ", options.ffn,
      ", \"num_hidden_layers\": ", options.layers,
      ", \"num_attention_heads\": ", options.heads,
      ", \"num_key_value_heads\": ", options.kv_heads,
      ", \"head_dim\": ", options.head_dim,
      ", \"max_position_embeddings\": ", options.max_positions,
      ", \"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\"",
      ", \"attention_bias\": ", Flag(options.attention_bias),
      ", \"mlp_bias\": ", Flag(options.mlp_bias),
      ", \"tie_word_embeddings\": ", Flag(options.tied_head),
      ", \"bos_token_id\": 1, \"eos_token_id\": 2",
      options.extra_config.empty() ? "" : ", ", options.extra_config, "}\n");
}

void WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  CHECK(file.good()) << path;
}

absl::Status WriteTinyLlama(const std::string& dir,
                            const TinyModelOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return absl::InternalError(absl::StrCat(dir, ": cannot be made"));
  TensorSet tensors(options.dtype, options.seed);
  tensors.Matrix("model.embed_tokens.weight", options.vocabulary,
                 options.hidden);
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    AddLayer(options, layer, tensors);
  }
  tensors.Norm("model.norm.weight", options.hidden);
  if (!options.tied_head) {
    tensors.Matrix("lm_head.weight", options.vocabulary, options.hidden);
  }
  WriteText(dir + "/config.json", TinyLlamaConfig(options));
  WriteText(dir + "/generation_config.json",
            "{\"bos_token_id\": 1, \"eos_token_id\": 2}\n");
  return WriteSafetensors(dir + "/model.safetensors", tensors.tensors());
}

}  // namespace nibble::testing
