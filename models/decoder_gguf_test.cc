// One model as a Hugging Face folder and as a GGUF file: the converter's
// permutation of q and k, and block-quantized tensors.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/registry.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"
#include "testing/decoder_session.h"
#include "testing/gguf_builder.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using testing::DecoderSession;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TinyModelOptions;

// The converter's order of rows: neighbours 2j and 2j+1 of a head were rows j
// and j + head_dim/2.
std::vector<float> PermuteHeads(absl::Span<const float> rows, int64_t head_dim,
                                int64_t cols) {
  std::vector<float> result(rows.size());
  const int64_t count = static_cast<int64_t>(rows.size()) / cols;
  for (int64_t row = 0; row < count; ++row) {
    const int64_t head = row / head_dim;
    const int64_t within = row % head_dim;
    const int64_t from =
        head * head_dim + (within % 2) * (head_dim / 2) + within / 2;
    std::memcpy(&result[static_cast<size_t>(row * cols)],
                &rows[static_cast<size_t>(from * cols)],
                static_cast<size_t>(cols) * sizeof(float));
  }
  return result;
}

std::string GgufName(const std::string& name) {
  return absl::StrReplaceAll(name, {{"model.embed_tokens", "token_embd"},
                                    {"model.layers.", "blk."},
                                    {"model.norm", "output_norm"},
                                    {"lm_head", "output"},
                                    {"self_attn.q_proj", "attn_q"},
                                    {"self_attn.k_proj", "attn_k"},
                                    {"self_attn.v_proj", "attn_v"},
                                    {"self_attn.o_proj", "attn_output"},
                                    {"post_attention_layernorm", "ffn_norm"},
                                    {"input_layernorm", "attn_norm"},
                                    {"mlp.gate_proj", "ffn_gate"},
                                    {"mlp.up_proj", "ffn_up"},
                                    {"mlp.down_proj", "ffn_down"}});
}

GgufBuilder Metadata(const std::string& architecture,
                     const TinyModelOptions& options) {
  GgufBuilder gguf;
  const std::string prefix = architecture + ".";
  const auto size = [](int64_t value) { return static_cast<uint32_t>(value); };
  gguf.String("general.architecture", architecture)
      .Uint(prefix + "embedding_length", size(options.hidden))
      .Uint(prefix + "block_count", size(options.layers))
      .Uint(prefix + "feed_forward_length", size(options.ffn))
      .Uint(prefix + "attention.head_count", size(options.heads))
      .Uint(prefix + "attention.head_count_kv", size(options.kv_heads))
      .Uint(prefix + "context_length", size(options.max_positions))
      .Float(prefix + "attention.layer_norm_rms_epsilon", 1e-5f);
  return gguf;
}

class DecoderGgufTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const {
    return absl::StrCat(
        ::testing::TempDir(), "/decoder_gguf_test_",
        ::testing::UnitTest::GetInstance()->current_test_info()->name(), name);
  }

  // Writes the folder, and the same weights as GGUF.
  void WriteBoth(const std::string& architecture,
                 const TinyModelOptions& options) {
    ASSERT_THAT(testing::WriteTinyLlama(Path(""), options), IsOk());
    const auto source = OpenSafetensorsFolder(Path(""));
    ASSERT_THAT(source, IsOk());
    GgufBuilder gguf = Metadata(architecture, options);
    for (const std::string& name : (*source)->names()) {
      const TensorView view = *(*source)->Find(name);
      const absl::Span<const float> stored = view.As<float>();
      std::vector<float> values(stored.begin(), stored.end());
      if (architecture == "llama" && (absl::StrContains(name, "q_proj") ||
                                      absl::StrContains(name, "k_proj"))) {
        values = PermuteHeads(values, options.head_dim,
                              view.shape.rank() == 2 ? view.shape.dim(1) : 1);
      }
      const absl::Span<const int64_t> dims = view.shape.dims();
      gguf.F32(GgufName(name), {dims.begin(), dims.end()}, values);
    }
    gguf.Write(Path(".gguf"));
  }

  std::vector<float> Logits(const std::string& path,
                            absl::Span<const int32_t> tokens) {
    const std::unique_ptr<Decoder> decoder =
        testing::LoadF32Decoder(path, pool_);
    DecoderSession session(*decoder, DType::kF32, 64, pool_);
    return session.Append(tokens, /*all_logits=*/true);
  }

  // Rotating neighbours instead of halves changes the order of a dot product's
  // terms and nothing else.
  void ExpectSameLogits(const std::string& architecture,
                        const TinyModelOptions& options) {
    WriteBoth(architecture, options);
    testing::RandomValues random(2);
    const std::vector<int32_t> tokens = random.Tokens(20, options.vocabulary);
    const std::vector<float> want = Logits(Path(""), tokens);
    EXPECT_THAT(Logits(Path(".gguf"), tokens), testing::AllNear(want, 2e-5f));
  }

  ThreadPool pool_{1};
};

TEST_F(DecoderGgufTest, PermutedLlamaGivesTheLogitsOfTheFolder) {
  ExpectSameLogits("llama", {});
}

TEST_F(DecoderGgufTest, PermutedBiasesGiveTheLogitsOfTheFolder) {
  TinyModelOptions options;
  options.attention_bias = true;
  options.mlp_bias = true;
  options.tied_head = true;
  ExpectSameLogits("llama", options);
}

TEST_F(DecoderGgufTest, Qwen2GivesTheLogitsOfTheFolder) {
  TinyModelOptions options;
  options.model_type = "qwen2";
  ExpectSameLogits("qwen2", options);
}

TEST_F(DecoderGgufTest, QuantizedAndMixedTypesMatchTheReference) {
  // q and v are Q8_0, k is f32: the fused matrix is put together as floats.
  TinyModelOptions options;
  options.tied_head = true;
  GgufBuilder gguf = Metadata("llama", options);
  testing::RandomValues random(3);
  const auto f32 = [&](const std::string& name, std::vector<int64_t> dims,
                       float low, float high) {
    const int64_t count = dims.size() == 2 ? dims[0] * dims[1] : dims[0];
    gguf.F32(name, dims, random.Uniform(count, low, high));
  };
  // A block is an f16 scale and 32 int8; a row of 32 is one block.
  const auto q8 = [&](const std::string& name, int64_t rows, int64_t cols) {
    std::vector<std::byte> bytes;
    for (int64_t block = 0; block < rows * cols / 32; ++block) {
      const F16 scale = ToF16(0.002f);
      bytes.push_back(std::byte(scale.bits & 0xFF));
      bytes.push_back(std::byte(scale.bits >> 8));
      for (int i = 0; i < 32; ++i) {
        bytes.push_back(std::byte(random.Below(256)));
      }
    }
    gguf.Tensor(name, {rows, cols}, GgufBuilder::kTypeQ8_0, bytes);
  };
  q8("token_embd.weight", options.vocabulary, options.hidden);
  f32("output_norm.weight", {options.hidden}, 0.5f, 1.5f);
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    const std::string block = absl::StrCat("blk.", layer, ".");
    f32(block + "attn_norm.weight", {options.hidden}, 0.5f, 1.5f);
    f32(block + "ffn_norm.weight", {options.hidden}, 0.5f, 1.5f);
    q8(block + "attn_q.weight", 32, 32);
    f32(block + "attn_k.weight", {16, 32}, -0.3f, 0.3f);
    q8(block + "attn_v.weight", 16, 32);
    q8(block + "attn_output.weight", 32, 32);
    q8(block + "ffn_gate.weight", options.ffn, 32);
    q8(block + "ffn_up.weight", options.ffn, 32);
    f32(block + "ffn_down.weight", {32, options.ffn}, -0.3f, 0.3f);
  }
  gguf.Write(Path(".gguf"));
  const std::vector<int32_t> tokens = random.Tokens(12, options.vocabulary);
  const std::vector<float> got = Logits(Path(".gguf"), tokens);
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(Path(".gguf"));
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ(checkpoint->format, "gguf");
  std::vector<float> want;
  for (const std::vector<double>& row :
       testing::ReferenceLogits(*checkpoint, tokens)) {
    want.insert(want.end(), row.begin(), row.end());
  }
  EXPECT_THAT(got, testing::AllNear(want, 2e-5f));
}

TEST_F(DecoderGgufTest, RejectsUnknownArchitectureAndListsThoseItKnows) {
  GgufBuilder gguf;
  gguf.String("general.architecture", "rwkv6");
  gguf.Write(Path(".gguf"));
  EXPECT_THAT(
      OpenCheckpoint(Path(".gguf")),
      StatusIs(absl::StatusCode::kUnimplemented,
               AllOf(HasSubstr("rwkv6"),
                     HasSubstr("falcon, gptj, gptneox, llama, qwen2"))));
  GgufBuilder nameless;
  nameless.Write(Path("2.gguf"));
  EXPECT_THAT(
      OpenCheckpoint(Path("2.gguf")),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("general.architecture")));
}

TEST_F(DecoderGgufTest, RejectsMoreBlocksThanTensors) {
  TinyModelOptions options;
  WriteBoth("llama", options);
  const auto source = OpenCheckpoint(Path(".gguf"));
  ASSERT_THAT(source, IsOk());
  options.layers = 3;
  GgufBuilder gguf = Metadata("llama", options);
  for (const std::string& name : source->tensors->names()) {
    const TensorView view = *source->tensors->Find(name);
    const absl::Span<const int64_t> dims = view.shape.dims();
    gguf.F32(name, {dims.begin(), dims.end()}, view.As<float>());
  }
  gguf.Write(Path("3.gguf"));
  EXPECT_THAT(OpenCheckpoint(Path("3.gguf")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("blk.2.")));
}

}  // namespace
}  // namespace nibble
