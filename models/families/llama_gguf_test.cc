#include "models/families/llama_gguf.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/rope.h"
#include "models/decoder_config.h"
#include "models/families/family.h"
#include "tensor/io/gguf.h"
#include "testing/gguf_builder.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::StatusIs;

constexpr int64_t kHidden = 16;
constexpr int64_t kVocabulary = 10;

// What a test leaves out, or puts in its own words.
struct Without {
  std::string key;
  bool Keeps(const std::string& other) const { return key != other; }
};

// The smallest metadata that is complete, and an embedding.
GgufBuilder MakeFile(const std::string& architecture = "llama",
                     const Without& without = {}) {
  GgufBuilder gguf;
  gguf.String("general.architecture", architecture);
  const auto add = [&](const std::string& key, uint32_t value) {
    if (without.Keeps(key)) gguf.Uint(architecture + "." + key, value);
  };
  add("embedding_length", kHidden);
  add("block_count", 2);
  add("feed_forward_length", 24);
  add("attention.head_count", 4);
  add("context_length", 128);
  if (without.Keeps("token_embd.weight")) {
    gguf.F32("token_embd.weight", {kVocabulary, kHidden},
             std::vector<float>(kVocabulary * kHidden));
  }
  return gguf;
}

absl::StatusOr<FamilyModel> Read(const GgufBuilder& gguf) {
  static int files = 0;
  const std::string path =
      absl::StrCat(::testing::TempDir(), "/llama_gguf_test_", ++files, ".gguf");
  gguf.Write(path);
  const absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  return ReadLlamaGguf(**file);
}

DecoderConfig Config(const GgufBuilder& gguf) {
  const absl::StatusOr<FamilyModel> model = Read(gguf);
  EXPECT_THAT(model, IsOk());
  return model.ok() ? model->config : DecoderConfig();
}

std::string Error(const GgufBuilder& gguf) {
  const absl::StatusOr<FamilyModel> model = Read(gguf);
  EXPECT_FALSE(model.ok());
  EXPECT_THAT(std::string(model.status().message()), HasSubstr(".gguf"));
  return std::string(model.status().message());
}

TEST(LlamaGgufTest, DefaultsForWhatIsAbsent) {
  const DecoderConfig config = Config(MakeFile());
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.vocabulary, kVocabulary);
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.rope.style, RopeStyle::kInterleaved);
  EXPECT_EQ(config.rope.rotary_dims, 4);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.norm_eps, 1e-6f);
  EXPECT_TRUE(config.tied_head);
  EXPECT_FALSE(config.qkv_bias || config.output_bias || config.mlp_bias);
  EXPECT_THAT(config.windows, Each(0));
  EXPECT_FALSE(config.bos_id.has_value());
  EXPECT_THAT(config.eos_ids, IsEmpty());
}

TEST(LlamaGgufTest, ReadsWhatIsGiven) {
  GgufBuilder gguf = MakeFile();
  gguf.Uint("llama.attention.head_count_kv", 2)
      .Uint("llama.attention.key_length", 6)
      .Uint("llama.attention.value_length", 6)
      .Uint("llama.rope.dimension_count", 6)
      .Uint("llama.attention.sliding_window", 32)
      .Uint("llama.vocab_size", kVocabulary)
      .Float("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .Float("llama.rope.freq_base", 500000.0f)
      .Uint("tokenizer.ggml.bos_token_id", 1)
      .Uint("tokenizer.ggml.eos_token_id", 2)
      .Uint("tokenizer.ggml.eot_token_id", 7)
      .F32("output.weight", {kVocabulary, kHidden},
           std::vector<float>(kVocabulary * kHidden));
  const DecoderConfig config = Config(gguf);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 6);
  EXPECT_EQ(config.norm_eps, 1e-5f);
  EXPECT_EQ(config.rope.theta, 500000.0);
  EXPECT_THAT(config.windows, ElementsAre(32, 32));
  EXPECT_FALSE(config.tied_head);
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_THAT(config.eos_ids, ElementsAre(2, 7));
}

TEST(LlamaGgufTest, Qwen2RotatesHalvesAndHasBiases) {
  GgufBuilder gguf = MakeFile("qwen2");
  gguf.F32("blk.0.attn_q.bias", {kHidden}, std::vector<float>(kHidden));
  const absl::StatusOr<FamilyModel> model = Read(gguf);
  ASSERT_THAT(model, IsOk());
  EXPECT_EQ(model->config.family, "qwen2");
  EXPECT_EQ(model->config.rope.style, RopeStyle::kHalf);
  EXPECT_TRUE(model->config.qkv_bias);
  EXPECT_EQ(model->names.layers[1].qkv.bias[2].tensor, "blk.1.attn_v.bias");
}

TEST(LlamaGgufTest, UnsetTokenIdsAreAbsent) {
  GgufBuilder gguf = MakeFile();
  gguf.Uint("tokenizer.ggml.bos_token_id", 0xFFFFFFFF)
      .Uint("tokenizer.ggml.eos_token_id", 0xFFFFFFFF);
  const DecoderConfig config = Config(gguf);
  EXPECT_FALSE(config.bos_id.has_value());
  EXPECT_THAT(config.eos_ids, IsEmpty());
}

TEST(LlamaGgufTest, ReadsRopeScaling) {
  GgufBuilder linear = MakeFile();
  linear.String("llama.rope.scaling.type", "linear")
      .Float("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(Config(linear).rope.scaling.type, RopeScaling::kLinear);
  EXPECT_EQ(Config(linear).rope.scaling.factor, 4.0f);
  GgufBuilder old_key = MakeFile();
  old_key.Float("llama.rope.scale_linear", 2.0f);
  EXPECT_EQ(Config(old_key).rope.scaling.type, RopeScaling::kLinear);
  EXPECT_EQ(Config(old_key).rope.scaling.factor, 2.0f);
  GgufBuilder yarn = MakeFile();
  yarn.String("llama.rope.scaling.type", "yarn")
      .Float("llama.rope.scaling.factor", 4.0f)
      .Float("llama.rope.scaling.attn_factor", 0.5f)
      .Uint("llama.rope.scaling.original_context_length", 32);
  const RopeScaling scaling = Config(yarn).rope.scaling;
  EXPECT_EQ(scaling.type, RopeScaling::kYarn);
  EXPECT_EQ(scaling.original_max_positions, 32);
  EXPECT_FLOAT_EQ(scaling.attention_factor,
                  0.5f * (1.0f + 0.1f * std::log(4.0f)));
}

TEST(LlamaGgufTest, ReadsFrequencyDivisors) {
  GgufBuilder gguf = MakeFile();
  gguf.F32("rope_freqs.weight", {2}, std::vector<float>{1.0f, 8.0f});
  EXPECT_THAT(Config(gguf).rope_divisors, ElementsAre(1.0f, 8.0f));
}

TEST(LlamaGgufTest, RejectsBadFrequencyDivisors) {
  GgufBuilder three = MakeFile();
  three.F32("rope_freqs.weight", {3}, std::vector<float>{1.0f, 1.0f, 1.0f});
  EXPECT_THAT(Error(three), HasSubstr("expected 2"));
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    GgufBuilder gguf = MakeFile();
    gguf.F32("rope_freqs.weight", {2}, std::vector<float>{1.0f, bad});
    EXPECT_THAT(Error(gguf), HasSubstr("positive"));
  }
  GgufBuilder matrix = MakeFile();
  matrix.F32("rope_freqs.weight", {1, 2}, std::vector<float>{1.0f, 1.0f});
  EXPECT_THAT(Error(matrix), HasSubstr("one dimension"));
}

TEST(HostileGgufTest, RejectsMissingKeys) {
  for (const char* key :
       {"embedding_length", "block_count", "feed_forward_length",
        "attention.head_count", "context_length"}) {
    EXPECT_THAT(Error(MakeFile("llama", {key})),
                HasSubstr(absl::StrCat("llama.", key, " is missing")));
  }
  EXPECT_THAT(Error(MakeFile("llama", {"token_embd.weight"})),
              HasSubstr("token_embd.weight"));
}

TEST(HostileGgufTest, RejectsSizesOutOfRange) {
  for (const char* key :
       {"embedding_length", "block_count", "feed_forward_length",
        "attention.head_count", "context_length"}) {
    for (const uint32_t value : {0u, 0xFFFFFFFFu}) {
      GgufBuilder gguf = MakeFile("llama", {key});
      gguf.Uint(absl::StrCat("llama.", key), value);
      EXPECT_THAT(Error(gguf),
                  AllOf(HasSubstr(key), HasSubstr(absl::StrCat("is ", value))));
    }
  }
}

TEST(HostileGgufTest, RejectsValuesOfTheWrongType) {
  GgufBuilder text = MakeFile("llama", {"block_count"});
  text.String("llama.block_count", "2");
  EXPECT_THAT(Error(text), HasSubstr("llama.block_count"));
  GgufBuilder number = MakeFile();
  number.Uint("llama.rope.freq_base", 10000);
  EXPECT_THAT(Error(number), HasSubstr("llama.rope.freq_base"));
}

TEST(HostileGgufTest, RejectsNumbersThatDoNotFitTogether) {
  GgufBuilder heads = MakeFile("llama", {"attention.head_count"});
  heads.Uint("llama.attention.head_count", 5);
  EXPECT_THAT(Error(heads), HasSubstr("does not divide"));
  GgufBuilder groups = MakeFile();
  groups.Uint("llama.attention.head_count_kv", 3);
  EXPECT_THAT(Error(groups), HasSubstr("do not divide among 3"));
  GgufBuilder rotary = MakeFile();
  rotary.Uint("llama.rope.dimension_count", 3);
  EXPECT_THAT(Error(rotary), HasSubstr("even"));
  GgufBuilder wide = MakeFile();
  wide.Uint("llama.rope.dimension_count", 6);
  EXPECT_THAT(Error(wide), HasSubstr("at most the head dimension"));
  GgufBuilder values = MakeFile();
  values.Uint("llama.attention.value_length", 8);
  EXPECT_THAT(Error(values), HasSubstr("value_length"));
  GgufBuilder vocabulary = MakeFile();
  vocabulary.Uint("llama.vocab_size", 11);
  EXPECT_THAT(Error(vocabulary), HasSubstr("vocab_size"));
}

TEST(HostileGgufTest, RejectsNumbersThatAreNotNumbers) {
  for (const float value :
       {0.0f, -1.0f, 2.0f, std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::infinity()}) {
    GgufBuilder gguf = MakeFile();
    gguf.Float("llama.attention.layer_norm_rms_epsilon", value);
    EXPECT_THAT(Error(gguf), HasSubstr("layer_norm_rms_epsilon")) << value;
  }
  GgufBuilder theta = MakeFile();
  theta.Float("llama.rope.freq_base", std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(Error(theta), HasSubstr("freq_base"));
}

TEST(HostileGgufTest, RejectsSpecialIdOutsideTheVocabulary) {
  GgufBuilder gguf = MakeFile();
  gguf.Uint("tokenizer.ggml.eos_token_id", kVocabulary);
  EXPECT_THAT(Error(gguf), AllOf(HasSubstr("tokenizer.ggml.eos_token_id"),
                                 HasSubstr("vocabulary of 10")));
}

TEST(HostileGgufTest, RejectsWhatItCannotRun) {
  GgufBuilder experts = MakeFile();
  experts.Uint("llama.expert_count", 8);
  EXPECT_THAT(Error(experts), HasSubstr("mixture-of-experts"));
  GgufBuilder longrope = MakeFile();
  longrope.String("llama.rope.scaling.type", "longrope");
  EXPECT_THAT(Error(longrope),
              AllOf(HasSubstr("longrope"), HasSubstr("none, linear, yarn")));
}

TEST(HostileGgufTest, RejectsEmbeddingThatIsNoMatrix) {
  GgufBuilder gguf = MakeFile("llama", {"token_embd.weight"});
  gguf.F32("token_embd.weight", {kVocabulary}, std::vector<float>(kVocabulary));
  EXPECT_THAT(Error(gguf), HasSubstr("token_embd.weight"));
}

}  // namespace
}  // namespace nibble
