#include "quantization/export/export_test_models.h"

#include <cstdint>
#include <deque>
#include <filesystem>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble::testing {
namespace {

constexpr int64_t kVocabulary = 97, kHidden = 64, kFfn = 256, kLayers = 2;

constexpr char kGptJ[] = R"({"model_type": "gptj",
  "architectures": ["GPTJForCausalLM"], "vocab_size": 97, "n_positions": 64,
  "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8,
  "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
  "bos_token_id": 27, "eos_token_id": 27, "tie_word_embeddings": false})";

constexpr char kNeoX[] = R"({"model_type": "gpt_neox",
  "architectures": ["GPTNeoXForCausalLM"], "vocab_size": 97,
  "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
  "intermediate_size": 256, "hidden_act": "gelu", "rotary_pct": 0.25,
  "rotary_emb_base": 10000, "max_position_embeddings": 64,
  "layer_norm_eps": 1e-5, "use_parallel_residual": true,
  "bos_token_id": 27, "eos_token_id": 27, "tie_word_embeddings": false})";

std::string FalconConfig(bool grouped) {
  return absl::StrCat(R"({"model_type": "falcon",
  "architectures": ["FalconForCausalLM"], "vocab_size": 97,
  "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
  "parallel_attn": true, "bias": false, "alibi": false,
  "layer_norm_epsilon": 1e-5, "bos_token_id": 27, "eos_token_id": 27,
  "tie_word_embeddings": true, "max_position_embeddings": 64, )",
                      grouped ? R"("new_decoder_architecture": true,
  "num_kv_heads": 2, "multi_query": false})"
                              : R"("new_decoder_architecture": false,
  "multi_query": true})");
}

// Random f16 tensors, written together.
class Writer {
 public:
  void Add(const std::string& name, const Shape& shape, float scale = 0.2f,
           float offset = 0.0f) {
    std::vector<F16>& values = values_.emplace_back();
    for (const float value :
         random_.Uniform(shape.elements(), offset - scale, offset + scale)) {
      values.push_back(ToF16(value));
    }
    tensors_.push_back(
        {name, MakeTensorView(absl::MakeConstSpan(values), shape)});
  }
  void Norm(const std::string& name) {
    Add(name + ".weight", {kHidden}, 0.1f, 1.0f);
    Add(name + ".bias", {kHidden}, 0.1f);
  }
  void Linear(const std::string& name, int64_t outputs, int64_t inputs,
              bool bias) {
    Add(name + ".weight", {outputs, inputs});
    if (bias) Add(name + ".bias", {outputs});
  }
  void Write(const std::string& dir, const std::string& config) {
    std::filesystem::create_directories(dir);
    WriteText(dir + "/config.json", config);
    CHECK(WriteSafetensors(dir + "/model.safetensors", tensors_).ok());
  }

 private:
  RandomValues random_{7};
  std::deque<std::vector<F16>> values_;
  std::vector<NamedTensor> tensors_;
};

void WriteGptJ(const std::string& dir) {
  Writer w;
  w.Add("transformer.wte.weight", {kVocabulary, kHidden});
  for (int64_t i = 0; i < kLayers; ++i) {
    const std::string layer = absl::StrCat("transformer.h.", i, ".");
    w.Norm(layer + "ln_1");
    for (const char* name : {"q", "k", "v", "out"}) {
      w.Linear(absl::StrCat(layer, "attn.", name, "_proj"), kHidden, kHidden,
               false);
    }
    w.Linear(layer + "mlp.fc_in", kFfn, kHidden, true);
    w.Linear(layer + "mlp.fc_out", kHidden, kFfn, true);
  }
  w.Norm("transformer.ln_f");
  w.Linear("lm_head", kVocabulary, kHidden, true);
  w.Write(dir, kGptJ);
}

void WriteNeoX(const std::string& dir) {
  Writer w;
  w.Add("gpt_neox.embed_in.weight", {kVocabulary, kHidden});
  for (int64_t i = 0; i < kLayers; ++i) {
    const std::string layer = absl::StrCat("gpt_neox.layers.", i, ".");
    w.Norm(layer + "input_layernorm");
    w.Norm(layer + "post_attention_layernorm");
    w.Linear(layer + "attention.query_key_value", 3 * kHidden, kHidden, true);
    w.Linear(layer + "attention.dense", kHidden, kHidden, true);
    w.Linear(layer + "mlp.dense_h_to_4h", kFfn, kHidden, true);
    w.Linear(layer + "mlp.dense_4h_to_h", kHidden, kFfn, true);
  }
  w.Norm("gpt_neox.final_layer_norm");
  w.Add("embed_out.weight", {kVocabulary, kHidden});
  w.Write(dir, kNeoX);
}

void WriteFalcon(const std::string& dir, bool grouped) {
  Writer w;
  w.Add("transformer.word_embeddings.weight", {kVocabulary, kHidden});
  for (int64_t i = 0; i < kLayers; ++i) {
    const std::string layer = absl::StrCat("transformer.h.", i, ".");
    if (grouped) {
      w.Norm(layer + "ln_attn");
      w.Norm(layer + "ln_mlp");
    } else {
      w.Norm(layer + "input_layernorm");
    }
    w.Linear(layer + "self_attention.query_key_value", grouped ? 128 : 96,
             kHidden, false);
    w.Linear(layer + "self_attention.dense", kHidden, kHidden, false);
    w.Linear(layer + "mlp.dense_h_to_4h", kFfn, kHidden, false);
    w.Linear(layer + "mlp.dense_4h_to_h", kHidden, kFfn, false);
  }
  w.Norm("transformer.ln_f");
  w.Write(dir, FalconConfig(grouped));
}

}  // namespace

std::vector<std::string> ExportFamilies() {
  return {"llama",    "mistral",   "qwen2",     "gptj",
          "gpt_neox", "falcon-7b", "falcon-40b"};
}

TinyModelOptions ExportLlama() {
  TinyModelOptions options;
  options.hidden = kHidden;
  options.head_dim = 16;
  options.ffn = 96;
  options.dtype = DType::kF16;
  return options;
}

void WriteTokenizer(const std::string& dir) {
  std::string vocabulary;
  for (int i = 0; i < 26; ++i) {
    absl::StrAppend(&vocabulary, "\"", std::string(1, 'a' + i), "\": ", i,
                    ", ");
  }
  WriteText(dir + "/tokenizer.json",
            absl::StrCat(R"({"version": "1.0", "added_tokens": [{"id": 27,
    "content": "<|end|>", "single_word": false, "lstrip": false,
    "rstrip": false, "normalized": false, "special": true}],
  "normalizer": null, "pre_tokenizer": {"type": "ByteLevel",
    "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": null, "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {)",
                         vocabulary, R"("ab": 26}, "merges": ["a b"]}})"));
}

void WriteFamily(const std::string& family, const std::string& dir) {
  std::filesystem::create_directories(dir);
  if (family == "gptj") {
    WriteGptJ(dir);
  } else if (family == "gpt_neox") {
    WriteNeoX(dir);
  } else if (family == "falcon-7b" || family == "falcon-40b") {
    WriteFalcon(dir, family == "falcon-40b");
  } else {
    TinyModelOptions options = ExportLlama();
    options.model_type = family;
    CHECK(WriteTinyLlama(dir, options).ok());
  }
  WriteTokenizer(dir);
}

std::string ExportTestFolder() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  const std::string folder = absl::StrCat(
      ::testing::TempDir(), "/", info->test_suite_name(), "_", info->name());
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

}  // namespace nibble::testing
