#include "testing/tiny_families.h"

#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "tensor/io/safetensors.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"
#include "testing/tiny_model.h"

namespace nibble::testing {
namespace {

constexpr int64_t kHeadDim = 8;
constexpr int64_t kVocabulary = 97;
constexpr int64_t kLayers = 2;

// Collects the tensors of one form.
class Builder {
 public:
  Builder(std::string name, std::string config, int64_t heads, int64_t groups) {
    family_.name = std::move(name);
    family_.config = std::move(config);
    family_.heads = heads;
    family_.groups = groups;
  }

  int64_t hidden() const { return family_.heads * kHeadDim; }
  // Rows of the fused tensor.
  int64_t qkv() const {
    return (family_.heads + 2 * family_.groups) * kHeadDim;
  }

  void Matrix(const std::string& name, int64_t rows, int64_t cols) {
    family_.tensors[name] = {rows, cols};
  }
  void Vector(const std::string& name, int64_t size) {
    family_.tensors[name] = {size};
  }
  void Norm(const std::string& name) {
    Vector(name + ".weight", hidden());
    Vector(name + ".bias", hidden());
  }
  void Linear(const std::string& name, int64_t rows, int64_t cols, bool bias) {
    Matrix(name + ".weight", rows, cols);
    if (bias) Vector(name + ".bias", rows);
  }

  TinyFamily Done() { return std::move(family_); }

 private:
  TinyFamily family_;
};

TinyFamily GptJ() {
  Builder b("GptJ",
            R"({"model_type": "gptj", "architectures": ["GPTJForCausalLM"],
                "vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4,
                "n_inner": 80, "rotary_dim": 4})",
            4, 0);
  b.Matrix("transformer.wte.weight", kVocabulary, b.hidden());
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = absl::StrCat("transformer.h.", layer, ".");
    b.Norm(prefix + "ln_1");
    for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
      b.Linear(absl::StrCat(prefix, "attn.", name), b.hidden(), b.hidden(),
               false);
    }
    b.Vector(prefix + "attn.masked_bias", 1);
    b.Linear(prefix + "mlp.fc_in", 80, b.hidden(), true);
    b.Linear(prefix + "mlp.fc_out", b.hidden(), 80, true);
  }
  b.Norm("transformer.ln_f");
  b.Linear("lm_head", kVocabulary, b.hidden(), true);
  return b.Done();
}

// `settings` end in a comma.
TinyFamily NeoX(const std::string& name, const std::string& settings,
                bool attention_bias) {
  Builder b(name,
            absl::StrCat("{", settings,
                         R"("model_type": "gpt_neox", "vocab_size": 97,
                   "architectures": ["GPTNeoXForCausalLM"], "hidden_size": 32,
                   "intermediate_size": 80, "num_hidden_layers": 2,
                   "num_attention_heads": 4})"),
            4, 4);
  b.Matrix("gpt_neox.embed_in.weight", kVocabulary, b.hidden());
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = absl::StrCat("gpt_neox.layers.", layer, ".");
    b.Norm(prefix + "input_layernorm");
    b.Norm(prefix + "post_attention_layernorm");
    b.Linear(prefix + "attention.query_key_value", b.qkv(), b.hidden(),
             attention_bias);
    b.Linear(prefix + "attention.dense", b.hidden(), b.hidden(),
             attention_bias);
    b.Vector(prefix + "attention.masked_bias", 1);
    b.Linear(prefix + "mlp.dense_h_to_4h", 80, b.hidden(), true);
    b.Linear(prefix + "mlp.dense_4h_to_h", b.hidden(), 80, true);
  }
  b.Norm("gpt_neox.final_layer_norm");
  b.Matrix("embed_out.weight", kVocabulary, b.hidden());
  return b.Done();
}

struct FalconForm {
  const char* name;
  const char* settings;  // end in a comma
  int64_t heads;
  int64_t groups;
  std::vector<std::string> norms;  // of a layer
  bool bias;
  bool head;  // a tensor of its own
  bool legacy = false;
};

TinyFamily Falcon(const FalconForm& form) {
  const int64_t hidden = form.heads * kHeadDim;
  const char* const names =
      form.legacy
          ? R"("model_type": "RefinedWeb", "architectures": ["RWForCausalLM"],)"
          : R"("model_type": "falcon", "architectures": ["FalconForCausalLM"],
               "num_hidden_layers": 2,)";
  Builder b(form.name,
            absl::StrCat("{", names, form.settings, R"("vocab_size": 97,
                         "ffn_hidden_size": 80, "hidden_size": )",
                         hidden, "}"),
            form.heads, form.groups);
  b.Matrix("transformer.word_embeddings.weight", kVocabulary, hidden);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = absl::StrCat("transformer.h.", layer, ".");
    for (const std::string& norm : form.norms) b.Norm(prefix + norm);
    b.Linear(prefix + "self_attention.query_key_value", b.qkv(), hidden,
             form.bias);
    b.Linear(prefix + "self_attention.dense", hidden, hidden, form.bias);
    b.Linear(prefix + "mlp.dense_h_to_4h", 80, hidden, form.bias);
    b.Linear(prefix + "mlp.dense_4h_to_h", hidden, 80, form.bias);
  }
  b.Norm("transformer.ln_f");
  if (form.head) b.Matrix("lm_head.weight", kVocabulary, hidden);
  return b.Done();
}

const FalconForm kFalconForms[] = {
    {"Falcon7B",
     R"("num_attention_heads": 5,)",
     5,
     1,
     {"input_layernorm"},
     false,
     true},
    {"Falcon40B",
     R"("num_attention_heads": 6, "num_kv_heads": 2,
        "new_decoder_architecture": true,)",
     6,
     2,
     {"ln_attn", "ln_mlp"},
     false,
     false},
    {"Falcon11B",
     R"("num_attention_heads": 4, "num_kv_heads": 2,
        "num_ln_in_parallel_attn": 1, "new_decoder_architecture": true,)",
     4,
     2,
     {"input_layernorm"},
     false,
     true},
    {"FalconRw",
     R"("num_attention_heads": 6, "multi_query": false,
        "parallel_attn": false, "alibi": true, "bias": true,)",
     6,
     6,
     {"input_layernorm", "post_attention_layernorm"},
     true,
     false},
    {"RefinedWeb40B",
     R"("n_layer": 2, "n_head": 4, "n_head_kv": 2, "parallel_attn": true,)",
     4,
     2,
     {"ln_attn", "ln_mlp"},
     false,
     true,
     /*legacy=*/true},
};

// Spread so that activations neither die out nor explode.
std::vector<float> ValuesFor(const std::string& name, const Shape& shape,
                             RandomValues& random) {
  const int64_t count = shape.elements();
  if (shape.rank() == 2) {
    const bool embedding = absl::StrContains(name, "embed_in") ||
                           absl::StrContains(name, "word_embeddings") ||
                           absl::StrContains(name, "wte");
    return random.Normal(count, embedding ? 1.0f : 0.2f);
  }
  if (absl::EndsWith(name, ".weight")) return random.Uniform(count, 0.5f, 1.5f);
  return random.Normal(count, 0.3f);
}

}  // namespace

std::vector<TinyFamily> TinyFamilies() {
  std::vector<TinyFamily> families = {
      GptJ(),
      NeoX("NeoXParallel", R"("rotary_pct": 0.5, "eos_token_id": 0,)", true),
      NeoX("NeoXSequentialWithoutBias",
           R"("use_parallel_residual": false, "attention_bias": false,
              "hidden_act": "gelu_fast", "rope_parameters": {
                "rope_type": "default", "partial_rotary_factor": 1.0},)",
           false)};
  for (const FalconForm& form : kFalconForms) families.push_back(Falcon(form));
  return families;
}

void PrintTo(const TinyFamily& family, std::ostream* out) {
  *out << family.name;
}

std::string TinyFamilyName(const ::testing::TestParamInfo<TinyFamily>& info) {
  return info.param.name;
}

absl::Status WriteTinyFamily(const std::string& dir, const TinyFamily& family,
                             uint64_t seed) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return absl::InternalError(error.message());
  WriteText(dir + "/config.json", family.config);
  RandomValues random(seed);
  std::vector<std::vector<float>> values;
  std::vector<NamedTensor> tensors;
  for (const auto& [name, shape] : family.tensors) {
    values.push_back(ValuesFor(name, shape, random));
    tensors.push_back({name, MakeTensorView<float>(
                                 absl::MakeConstSpan(values.back()), shape)});
  }
  return WriteSafetensors(dir + "/model.safetensors", tensors);
}

}  // namespace nibble::testing
