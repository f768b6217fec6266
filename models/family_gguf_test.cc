// GPT-J, GPT-NeoX and Falcon as a Hugging Face folder and as a GGUF file of the
// same weights, written the way llama.cpp's converter orders them; and what is
// refused in such files.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/activation.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/registry.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"
#include "testing/decoder_session.h"
#include "testing/gguf_builder.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"
#include "testing/tiny_families.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TinyFamily;

std::string ArchitectureOf(const DecoderConfig& config) {
  return config.family == "gpt_neox" ? "gptneox" : config.family;
}

// gguf-py's table, for the three families.
std::string GgufName(const std::string& name) {
  return absl::StrReplaceAll(name,
                             {{"gpt_neox.embed_in", "token_embd"},
                              {"gpt_neox.layers.", "blk."},
                              {"gpt_neox.final_layer_norm", "output_norm"},
                              {"embed_out", "output"},
                              {"attention.query_key_value", "attn_qkv"},
                              {"attention.dense", "attn_output"},
                              {"transformer.wte", "token_embd"},
                              {"transformer.word_embeddings", "token_embd"},
                              {"transformer.h.", "blk."},
                              {"transformer.ln_f", "output_norm"},
                              {"lm_head", "output"},
                              {"ln_1", "attn_norm"},
                              {"attn.q_proj", "attn_q"},
                              {"attn.k_proj", "attn_k"},
                              {"attn.v_proj", "attn_v"},
                              {"attn.out_proj", "attn_output"},
                              {"mlp.fc_in", "ffn_up"},
                              {"mlp.fc_out", "ffn_down"},
                              {"post_attention_layernorm", "ffn_norm"},
                              {"input_layernorm", "attn_norm"},
                              {"ln_mlp", "attn_norm"},
                              {"ln_attn", "attn_norm_2"},
                              {"self_attention.query_key_value", "attn_qkv"},
                              {"self_attention.dense", "attn_output"},
                              {"mlp.dense_h_to_4h", "ffn_up"},
                              {"mlp.dense_4h_to_h", "ffn_down"}});
}

// [groups][q.., k, v][8 rows] as all q, all k, all v.
std::vector<float> Ungroup(absl::Span<const float> stored, int64_t heads,
                           int64_t groups, int64_t cols) {
  const size_t block = static_cast<size_t>(8 * cols);
  const int64_t queries = heads / groups;
  std::vector<float> q, k, v;
  for (int64_t i = 0; i < heads + 2 * groups; ++i) {
    const int64_t slot = i % (queries + 2);
    std::vector<float>& to = slot < queries ? q : (slot == queries ? k : v);
    const auto rows = stored.subspan(static_cast<size_t>(i) * block, block);
    to.insert(to.end(), rows.begin(), rows.end());
  }
  q.insert(q.end(), k.begin(), k.end());
  q.insert(q.end(), v.begin(), v.end());
  return q;
}

const char* NameOf(Activation activation) {
  return activation == Activation::kGelu ? "gelu" : "gelu_new";
}

// What a test leaves out or changes.
struct Changes {
  std::string without_key = {};     // without the architecture
  std::string without_tensor = {};  // GGUF name
};

GgufBuilder Metadata(const DecoderConfig& config, const Changes& changes) {
  GgufBuilder gguf;
  const std::string architecture = ArchitectureOf(config);
  gguf.String("general.architecture", architecture);
  const auto add = [&](const std::string& key, int64_t value) {
    if (key == changes.without_key) return;
    gguf.Uint(architecture + "." + key, static_cast<uint32_t>(value));
  };
  add("context_length", config.max_positions);
  add("embedding_length", config.hidden);
  add("block_count", config.layers);
  add("feed_forward_length", config.ffn);
  add("attention.head_count", config.heads);
  if (config.kv_heads != config.heads) {
    add("attention.head_count_kv", config.kv_heads);
  }
  if (!config.alibi && config.rope.rotary_dims != config.head_dim) {
    add("rope.dimension_count", config.rope.rotary_dims);
  }
  if (architecture == "gptneox" &&
      changes.without_key != "use_parallel_residual") {
    gguf.Bool("gptneox.use_parallel_residual",
              config.residual == Residual::kParallel);
  }
  if (architecture == "falcon" && changes.without_key != "tensor_data_layout") {
    gguf.String("falcon.tensor_data_layout", "jploski");
  }
  if (changes.without_key != "activation") {
    gguf.String(architecture + ".activation", NameOf(config.activation));
  }
  return gguf.Float(architecture + ".attention.layer_norm_epsilon",
                    config.norm_eps);
}

// The whole model, as the converter would write it.
GgufBuilder Convert(const Checkpoint& from, const TinyFamily& family,
                    const Changes& changes = {}) {
  GgufBuilder gguf = Metadata(from.config, changes);
  for (const std::string& name : from.tensors->names()) {
    if (absl::EndsWith(name, "masked_bias")) continue;
    const TensorView view = *from.tensors->Find(name);
    const absl::Span<const float> stored = view.As<float>();
    std::vector<float> values(stored.begin(), stored.end());
    if (absl::StrContains(name, "query_key_value")) {
      values = Ungroup(stored, family.heads, family.groups,
                       view.shape.rank() == 2 ? view.shape.dim(1) : 1);
    }
    const std::string gguf_name = GgufName(name);
    if (gguf_name == changes.without_tensor) continue;
    const absl::Span<const int64_t> dims = view.shape.dims();
    gguf.F32(gguf_name, {dims.begin(), dims.end()}, values);
  }
  return gguf;
}

class FamilyGgufTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const {
    return absl::StrCat(::testing::TempDir(), "/family_gguf_test_", name);
  }

  // Writes the folder of a form and opens it.
  Checkpoint Folder(const TinyFamily& family) {
    EXPECT_THAT(testing::WriteTinyFamily(Path(family.name), family, 7), IsOk());
    absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(Path(family.name));
    EXPECT_THAT(checkpoint, IsOk());
    return *std::move(checkpoint);
  }

  absl::StatusOr<Checkpoint> Open(const GgufBuilder& gguf) {
    static int files = 0;
    const std::string path = Path(absl::StrCat(++files, ".gguf"));
    gguf.Write(path);
    return OpenCheckpoint(path);
  }

  std::string Error(const GgufBuilder& gguf) {
    const absl::StatusOr<Checkpoint> checkpoint = Open(gguf);
    EXPECT_FALSE(checkpoint.ok());
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(".gguf"));
    return std::string(checkpoint.status().message());
  }

  std::vector<float> Logits(const Checkpoint& checkpoint) {
    const auto decoder = testing::LoadF32Decoder(checkpoint, pool_);
    testing::DecoderSession session(*decoder, DType::kF32, 32, pool_);
    return session.Append(
        testing::RandomValues(2).Tokens(20, checkpoint.config.vocabulary),
        /*all_logits=*/true);
  }

  ThreadPool pool_{1};
};

TinyFamily Form(const std::string& name) {
  for (const TinyFamily& family : testing::TinyFamilies()) {
    if (family.name == name) return family;
  }
  ADD_FAILURE() << name;
  return {};
}

TEST_F(FamilyGgufTest, ConvertedModelsGiveTheBitsOfTheFolder) {
  int forms = 0;
  for (const TinyFamily& family : testing::TinyFamilies()) {
    if (family.name == "FalconRw") continue;
    const Checkpoint folder = Folder(family);
    const absl::StatusOr<Checkpoint> gguf = Open(Convert(folder, family));
    ASSERT_THAT(gguf, IsOk()) << family.name;
    EXPECT_EQ(gguf->config.family, folder.config.family);
    EXPECT_EQ(gguf->config.norm_layout, folder.config.norm_layout);
    EXPECT_EQ(gguf->config.tied_head, folder.config.tied_head);
    EXPECT_EQ(Logits(*gguf), Logits(folder)) << family.name;
    ++forms;
  }
  EXPECT_EQ(forms, 7);
}

// ggml knows one GELU, and that is what its files mean.
TEST_F(FamilyGgufTest, DefaultsForWhatTheConverterDoesNotWrite) {
  const TinyFamily neox = Form("NeoXParallel");
  const Checkpoint folder = Folder(neox);
  EXPECT_EQ(folder.config.activation, Activation::kGelu);
  EXPECT_EQ(Open(Convert(folder, neox, {"activation"}))->config.activation,
            Activation::kGeluTanh);
  EXPECT_EQ(
      Open(Convert(folder, neox, {"use_parallel_residual"}))->config.residual,
      Residual::kParallel);
  EXPECT_EQ(Open(Convert(folder, neox))->config.rope.theta, 10000.0);
  GgufBuilder theta = Convert(folder, neox);
  theta.Float("gptneox.rope.freq_base", 5000.0f);
  EXPECT_EQ(Open(theta)->config.rope.theta, 5000.0);
  const TinyFamily falcon = Form("Falcon7B");
  EXPECT_THAT(Open(Convert(Folder(falcon), falcon, {"tensor_data_layout"})),
              IsOk());
}

TEST_F(FamilyGgufTest, ReadsSpecialIds) {
  const TinyFamily family = Form("GptJ");
  GgufBuilder gguf = Convert(Folder(family), family);
  gguf.Uint("tokenizer.ggml.bos_token_id", 3)
      .Uint("tokenizer.ggml.eos_token_id", 4);
  const absl::StatusOr<Checkpoint> checkpoint = Open(gguf);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ(checkpoint->config.bos_id, 3);
  EXPECT_THAT(checkpoint->config.eos_ids, ElementsAre(4));
}

TEST_F(FamilyGgufTest, AGptJHeadMayBeTiedButItsBiasIsNeeded) {
  const TinyFamily family = Form("GptJ");
  const Checkpoint folder = Folder(family);
  const auto tied = Open(Convert(folder, family, {"", "output.weight"}));
  ASSERT_THAT(tied, IsOk());
  EXPECT_TRUE(tied->config.tied_head && tied->config.head_bias);
  EXPECT_THAT(Error(Convert(folder, family, {"", "output.bias"})),
              HasSubstr("output.bias"));
}

TEST_F(FamilyGgufTest, RejectsMissingKeysAndTensors) {
  for (const char* form : {"GptJ", "NeoXParallel", "Falcon7B"}) {
    const TinyFamily family = Form(form);
    const Checkpoint folder = Folder(family);
    for (const char* key :
         {"embedding_length", "block_count", "feed_forward_length",
          "attention.head_count", "context_length"}) {
      EXPECT_THAT(Error(Convert(folder, family, {key})),
                  HasSubstr(absl::StrCat(key, " is missing")))
          << form;
    }
    for (const char* tensor :
         {"token_embd.weight", "output_norm.bias", "blk.1.attn_norm.weight",
          "blk.0.attn_output.weight", "blk.1.ffn_down.weight"}) {
      EXPECT_THAT(Error(Convert(folder, family, {"", tensor})),
                  HasSubstr(tensor))
          << form;
    }
  }
}

// A file that was not regrouped has the same shape; one that was made for other
// numbers of heads has not.
TEST_F(FamilyGgufTest, RejectsFusedTensorOfAnotherShape) {
  const TinyFamily family = Form("Falcon40B");
  const Checkpoint folder = Folder(family);
  EXPECT_THAT(Error(Convert(folder, family, {"attention.head_count_kv"})),
              AllOf(HasSubstr("blk.0.attn_qkv.weight"), HasSubstr("[80, 48]"),
                    HasSubstr("[144, 48]")));
}

TEST_F(FamilyGgufTest, RejectsFalconWithBiases) {
  const TinyFamily family = Form("FalconRw");
  EXPECT_THAT(Error(Convert(Folder(family), family)),
              AllOf(HasSubstr("no part of the model"), HasSubstr(".bias")));
}

TEST_F(FamilyGgufTest, RejectsSettingsThatItCannotRun) {
  const TinyFamily falcon = Form("Falcon7B");
  const Checkpoint folder = Folder(falcon);
  GgufBuilder layout = Convert(folder, falcon, {"tensor_data_layout"});
  layout.String("falcon.tensor_data_layout", "interleaved");
  EXPECT_THAT(Error(layout),
              AllOf(HasSubstr("falcon.tensor_data_layout"),
                    HasSubstr("interleaved"), HasSubstr("jploski")));
  GgufBuilder activation = Convert(folder, falcon, {"activation"});
  activation.String("falcon.activation", "relu");
  EXPECT_THAT(Error(activation),
              AllOf(HasSubstr("falcon.activation"), HasSubstr("relu"),
                    HasSubstr("gelu_new")));
  const TinyFamily neox = Form("NeoXParallel");
  GgufBuilder residual = Convert(Folder(neox), neox, {"use_parallel_residual"});
  residual.String("gptneox.use_parallel_residual", "yes");
  EXPECT_THAT(Error(residual), HasSubstr("gptneox.use_parallel_residual"));
}

TEST_F(FamilyGgufTest, RejectsRotaryDimensionsThatDoNotFit) {
  for (const char* form : {"GptJ", "NeoXParallel"}) {
    const TinyFamily family = Form(form);
    const Checkpoint folder = Folder(family);
    const std::string key =
        absl::StrCat(ArchitectureOf(folder.config), ".rope.dimension_count");
    for (const uint32_t value : {0u, 3u, 10u, 0xFFFFFFFFu}) {
      GgufBuilder gguf = Convert(folder, family, {"rope.dimension_count"});
      gguf.Uint(key, value);
      EXPECT_THAT(Error(gguf),
                  ::testing::AnyOf(HasSubstr(key), HasSubstr("dimensions")))
          << value;
    }
  }
}

}  // namespace
}  // namespace nibble
