#include "quantization/export/gguf_export.h"

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "quantization/export/export_test_models.h"
#include "quantization/export/gptq_export.h"
#include "quantization/flow.h"
#include "quantization/matrix_rows.h"
#include "quantization/round_to_nearest.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/gguf.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/reference_decoder.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using Row = std::vector<float>;

QuantizationOptions Options(int bits, bool symmetric) {
  QuantizationOptions options;
  options.rounding = {bits, 32, symmetric};
  return options;
}

class GgufExportTest : public ::testing::Test {
 protected:
  GgufExportTest()
      : folder_(testing::ExportTestFolder()),
        model_(folder_ + "/model"),
        out_(folder_ + "/model.gguf") {}

  std::unique_ptr<GgufFile> Export(const QuantizationOptions& options) {
    const auto report = ExportGguf(model_, out_, options, pool_, nullptr);
    EXPECT_THAT(report, IsOk());
    auto file = GgufFile::Open(out_);
    EXPECT_THAT(file, IsOk());
    return file.ok() ? *std::move(file) : nullptr;
  }

  // A row of a stored tensor.
  static Row RowOf(const TensorSource& tensors, const std::string& name,
                   int64_t row) {
    const auto view = tensors.Find(name);
    EXPECT_THAT(view, IsOk());
    Row values(static_cast<size_t>(view->shape.dim(1)));
    EXPECT_THAT(ConvertRowToF32(*view, row, absl::MakeSpan(values)), IsOk());
    return values;
  }

  ThreadPool pool_{2};
  std::string folder_, model_, out_;
};

// Everything at once: names, row orders, biases, norms, rotary settings.
TEST_F(GgufExportTest, LogitsOfAnF16FileAreThoseOfTheF16Checkpoint) {
  for (const char* rope :
       {"", R"("rope_scaling": {"rope_type": "linear", "factor": 4.0})",
        R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32})",
        R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0,
            "original_max_position_embeddings": 32})"}) {
    for (const char* family : {"llama", "mistral", "qwen2"}) {
      testing::TinyModelOptions options = testing::ExportLlama();
      options.model_type = family;
      options.attention_bias = options.mlp_bias = family[0] == 'l';
      options.tied_head = family[0] == 'q';
      options.extra_config = rope;
      ASSERT_THAT(testing::WriteTinyLlama(model_, options), IsOk());
      testing::WriteTokenizer(model_);
      ASSERT_NE(Export(Options(16, false)), nullptr);
      NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint before,
                                  OpenCheckpoint(model_));
      NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint after, OpenCheckpoint(out_));
      const std::vector<int32_t> tokens = {3, 90, 17, 0, 41, 8, 22, 65};
      const auto expected = testing::ReferenceLogits(before, tokens);
      const auto got = testing::ReferenceLogits(after, tokens);
      for (size_t t = 0; t < tokens.size(); ++t) {
        for (size_t v = 0; v < expected[t].size(); ++v) {
          // llama3's divisors are quotients of f32 numbers.
          ASSERT_NEAR(got[t][v], expected[t][v], 1e-5)
              << family << " " << rope << " " << t << " " << v;
        }
      }
    }
  }
}

TEST_F(GgufExportTest, EveryFamilyComesBackWithItsLogits) {
  for (const std::string& family : testing::ExportFamilies()) {
    testing::WriteFamily(family, model_);
    ASSERT_NE(Export(Options(16, false)), nullptr);
    NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint before,
                                OpenCheckpoint(model_));
    NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint after, OpenCheckpoint(out_));
    const std::vector<int32_t> tokens = {3, 90, 17, 0, 41, 8, 22, 65};
    const auto expected = testing::ReferenceLogits(before, tokens);
    const auto got = testing::ReferenceLogits(after, tokens);
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (size_t v = 0; v < expected[t].size(); ++v) {
        ASSERT_NEAR(got[t][v], expected[t][v], 1e-5) << family;
      }
    }
  }
}

TEST_F(GgufExportTest, LlamaRowsOfQAndKAreInterleavedWithinHeads) {
  testing::WriteFamily("llama", model_);
  const auto file = Export(Options(16, false));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint model, OpenCheckpoint(model_));
  const std::string from = "model.layers.1.self_attn.";
  for (const auto& [stored, written, rows] :
       std::vector<std::tuple<std::string, std::string, int64_t>>{
           {"q_proj.weight", "blk.1.attn_q.weight", 64},
           {"k_proj.weight", "blk.1.attn_k.weight", 32}}) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t head = row / 16, j = row % 16 / 2, s = row % 2;
      EXPECT_EQ(RowOf(*file, written, row),
                RowOf(*model.tensors, from + stored, head * 16 + s * 8 + j));
    }
  }
  EXPECT_EQ(RowOf(*file, "blk.1.attn_v.weight", 5),
            RowOf(*model.tensors, from + "v_proj.weight", 5));
}

TEST_F(GgufExportTest, NeoXHasAllQAllKAllV) {
  testing::WriteFamily("gpt_neox", model_);
  const auto file = Export(Options(16, false));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint model, OpenCheckpoint(model_));
  const std::string from = "gpt_neox.layers.1.attention.query_key_value";
  const auto bias = file->Find("blk.1.attn_qkv.bias");
  ASSERT_THAT(bias, IsOk());
  const auto stored_bias = model.tensors->Find(from + ".bias");
  ASSERT_THAT(stored_bias, IsOk());
  for (int64_t row = 0; row < 192; ++row) {
    const int64_t part = row / 64, head = row % 64 / 16, d = row % 16;
    const int64_t source = head * 48 + part * 16 + d;
    EXPECT_EQ(RowOf(*file, "blk.1.attn_qkv.weight", row),
              RowOf(*model.tensors, from + ".weight", source));
    EXPECT_EQ(bias->As<float>()[row], ToFloat(stored_bias->As<F16>()[source]));
  }
  EXPECT_TRUE(file->Contains("blk.0.ffn_norm.bias"));
  EXPECT_TRUE(*file->GetBool("gptneox.use_parallel_residual"));
  EXPECT_EQ(*file->GetString("gptneox.activation"), "gelu");
  EXPECT_EQ(*file->GetUint("gptneox.rope.dimension_count"), 4u);
}

TEST_F(GgufExportTest, FalconsGroupsComeApartAndItsNormsKeepTheirPlaces) {
  testing::WriteFamily("falcon-40b", model_);
  const auto file = Export(Options(16, false));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint model, OpenCheckpoint(model_));
  const std::string layer = "transformer.h.1.";
  for (int64_t row = 0; row < 128; ++row) {
    // 4 heads of q, then k and v of 2 groups; stored as [2][q q k v].
    const int64_t head = row / 16, d = row % 16;
    const int64_t source = head < 4   ? head / 2 * 4 + head % 2
                           : head < 6 ? (head - 4) * 4 + 2
                                      : (head - 6) * 4 + 3;
    EXPECT_EQ(
        RowOf(*file, "blk.1.attn_qkv.weight", row),
        RowOf(*model.tensors, layer + "self_attention.query_key_value.weight",
              source * 16 + d));
  }
  for (const auto& [written, stored] :
       std::vector<std::pair<std::string, std::string>>{
           {"attn_norm", "ln_mlp"}, {"attn_norm_2", "ln_attn"}}) {
    const auto a = file->Find("blk.1." + written + ".weight");
    const auto b = model.tensors->Find(layer + stored + ".weight");
    ASSERT_THAT(a, IsOk());
    ASSERT_THAT(b, IsOk());
    EXPECT_EQ(a->As<float>()[7], ToFloat(b->As<F16>()[7]));
  }
  EXPECT_FALSE(file->Contains("output.weight"));  // tied
}

TEST_F(GgufExportTest, GptJKeepsItsRowsAndTheHeadsBias) {
  testing::WriteFamily("gptj", model_);
  const auto file = Export(Options(16, false));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint model, OpenCheckpoint(model_));
  for (const int64_t row : {0, 1, 17, 63}) {
    EXPECT_EQ(RowOf(*file, "blk.0.attn_q.weight", row),
              RowOf(*model.tensors, "transformer.h.0.attn.q_proj.weight", row));
  }
  EXPECT_TRUE(file->Contains("output.bias"));
  EXPECT_FALSE(file->Contains("blk.0.ffn_norm.weight"));
}

// The codes and scales of round_to_nearest.h, for every family.
TEST_F(GgufExportTest, Q4_0AndQ8_0HoldTheCodesOfRounding) {
  for (const std::string& family : testing::ExportFamilies()) {
    for (const int bits : {4, 8}) {
      testing::WriteFamily(family, model_);
      const auto exact = Export(Options(16, false));
      const std::string rounded = out_ + ".rounded.gguf";
      ASSERT_THAT(
          ExportGguf(model_, rounded, Options(bits, true), pool_, nullptr),
          IsOk());
      NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(rounded));
      const std::string name = "blk.1.ffn_down.weight";
      EXPECT_EQ(*file->TensorTypeName(name), bits == 4 ? "Q4_0" : "Q8_0");
      const CodedMatrix* coded = file->FindCoded(name);
      ASSERT_NE(coded, nullptr) << family;
      const CodedForm& form = coded->form();
      const size_t inputs = static_cast<size_t>(form.inputs);
      std::vector<uint8_t> codes(inputs), wanted(inputs);
      std::vector<float> scales(inputs / 32), wanted_scales(inputs / 32);
      NIBBLE_ASSERT_OK_AND_ASSIGN(
          const PackedLayout layout,
          RoundedLayout({bits, 32, true}, form.outputs, form.inputs));
      for (int64_t row = 0; row < form.outputs; ++row) {
        coded->Read(row, 1,
                    {absl::MakeSpan(codes), absl::MakeSpan(scales), {}});
        RoundRow(RowOf(*exact, name, row), layout,
                 {absl::MakeSpan(wanted), absl::MakeSpan(wanted_scales), {}});
        ASSERT_EQ(codes, wanted) << family << " row " << row;
        ASSERT_EQ(scales, wanted_scales) << family << " row " << row;
      }
    }
  }
}

TEST_F(GgufExportTest, Q4_1IsWithinHalfAStepOfEveryWeight) {
  testing::WriteFamily("llama", model_);
  const auto exact = Export(Options(16, false));
  const std::string name = "blk.0.ffn_up.weight";
  std::vector<Row> rows;
  for (int64_t row = 0; row < 96; ++row) {
    rows.push_back(RowOf(*exact, name, row));
  }
  const auto file = Export(Options(4, false));
  const CodedMatrix* coded = file->FindCoded(name);
  ASSERT_NE(coded, nullptr);
  ASSERT_EQ(coded->form().offset, CodeOffset::kMinimums);
  std::vector<uint8_t> codes(64);
  std::vector<float> scales(2), minimums(2);
  for (int64_t row = 0; row < 96; ++row) {
    coded->Read(row, 1,
                {absl::MakeSpan(codes), absl::MakeSpan(scales),
                 absl::MakeSpan(minimums)});
    for (size_t i = 0; i < 64; ++i) {
      const float scale = scales[i / 32];
      // Half a step, and what f16 takes off scale (15 times) and minimum.
      EXPECT_NEAR(scale * codes[i] + minimums[i / 32], rows[row][i],
                  scale * (0.5f + 16 * 0x1p-11f));
    }
  }
}

TEST_F(GgufExportTest, EmbeddingHeadAndShortRowsStayPrecise) {
  testing::TinyModelOptions llama = testing::ExportLlama();
  llama.ffn = 48;  // no whole blocks
  ASSERT_THAT(testing::WriteTinyLlama(model_, llama), IsOk());
  testing::WriteTokenizer(model_);
  QuantizationOptions options = Options(4, true);
  auto file = Export(options);
  EXPECT_EQ(*file->TensorTypeName("token_embd.weight"), "Q8_0");
  EXPECT_EQ(*file->TensorTypeName("output.weight"), "F16");
  EXPECT_EQ(*file->TensorTypeName("blk.0.ffn_down.weight"), "F16");
  EXPECT_EQ(*file->TensorTypeName("blk.0.ffn_up.weight"), "Q4_0");
  EXPECT_EQ(*file->TensorTypeName("blk.0.attn_norm.weight"), "F32");
  options.keep_float = "layers.0.qkv";
  file = Export(options);
  EXPECT_EQ(*file->TensorTypeName("output.weight"), "Q8_0");
  EXPECT_EQ(*file->TensorTypeName("blk.0.attn_k.weight"), "F16");
  EXPECT_EQ(*file->TensorTypeName("blk.1.attn_k.weight"), "Q4_0");
}

TEST_F(GgufExportTest, TokenizerAndModelAreInTheMetadata) {
  testing::WriteFamily("llama", model_);
  testing::WriteText(model_ + "/chat_template.jinja", "{{ messages }}");
  const auto file = Export(Options(4, true));
  EXPECT_EQ(*file->GetString("general.architecture"), "llama");
  EXPECT_EQ(*file->GetUint("general.file_type"), 2u);
  EXPECT_EQ(*file->GetUint("llama.attention.head_count_kv"), 2u);
  EXPECT_EQ(*file->GetString("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(*file->GetString("tokenizer.ggml.pre"), "gpt-2");
  const auto tokens = *file->GetStringArray("tokenizer.ggml.tokens");
  ASSERT_EQ(tokens.size(), 97u);
  EXPECT_EQ(tokens[26], "ab");
  EXPECT_EQ(tokens[27], "<|end|>");
  EXPECT_EQ(tokens[96], "[PAD96]");
  const auto types = *file->GetIntArray("tokenizer.ggml.token_type");
  EXPECT_EQ(types[26], 1);
  EXPECT_EQ(types[27], 3);
  EXPECT_EQ(types[96], 5);
  EXPECT_EQ(*file->GetString("tokenizer.chat_template"), "{{ messages }}");
}

TEST_F(GgufExportTest, AGgufFileKeepsItsMetadataAndNames) {
  testing::WriteFamily("qwen2", model_);
  const auto first = Export(Options(16, false));
  const std::string again = folder_ + "/again.gguf";
  ASSERT_THAT(ExportGguf(out_, again, Options(8, true), pool_, nullptr),
              IsOk());
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(again));
  EXPECT_EQ(file->names(), first->names());
  for (const std::string& key : first->keys()) {
    if (key == "general.file_type") continue;
    EXPECT_EQ(file->ValueSummary(key), first->ValueSummary(key)) << key;
  }
  EXPECT_EQ(*file->GetUint("general.file_type"), 7u);
  EXPECT_EQ(*file->TensorTypeName("blk.0.attn_q.weight"), "Q8_0");
}

// GPTQ to GGUF without rounding: symmetric codes fit Q4_0, zero points Q4_1 or
// Q8_0, and every weight has the value it had.
TEST_F(GgufExportTest, KeptCodesKeepEveryWeight) {
  for (const std::string& family : testing::ExportFamilies()) {
    for (const bool symmetric : {true, false}) {
      testing::WriteFamily(family, model_);
      const std::string gptq = folder_ + "/" + family + (symmetric ? "s" : "a");
      ASSERT_THAT(
          ExportGptq(model_, gptq, Options(4, symmetric), pool_, nullptr),
          IsOk());
      QuantizationOptions keep;
      keep.keep_codes = true;
      ASSERT_THAT(ExportGguf(gptq, out_, keep, pool_, nullptr), IsOk());
      NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(out_));
      NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint source,
                                  OpenCheckpoint(gptq));
      EXPECT_EQ(*file->TensorTypeName("blk.0.ffn_down.weight") == "Q4_0",
                symmetric);
      NIBBLE_ASSERT_OK_AND_ASSIGN(
          const MatrixRows rows,
          MatrixRows::Find(*source.tensors,
                           source.names.layers[0].down.weight));
      Row values(static_cast<size_t>(rows.inputs()));
      for (int64_t row = 0; row < rows.rows(); ++row) {
        ASSERT_THAT(rows.Read(row, absl::MakeSpan(values)), IsOk());
        ASSERT_EQ(RowOf(*file, "blk.0.ffn_down.weight", row), values)
            << family << " row " << row;
      }
    }
  }
}

// Rounded or kept, in whole matrices or pieces of them.
TEST_F(GgufExportTest, ProgressEndsAtTheBytesOfAllMatrices) {
  testing::WriteFamily("falcon-7b", model_);
  const std::string gptq = folder_ + "/gptq";
  ASSERT_THAT(ExportGptq(model_, gptq, Options(4, true), pool_, nullptr),
              IsOk());
  QuantizationOptions keep;
  keep.keep_codes = true;
  for (const auto& [source, options] :
       std::vector<std::pair<std::string, QuantizationOptions>>{
           {model_, Options(4, true)}, {gptq, keep}}) {
    std::vector<int64_t> done = {0};
    int64_t all = 0;
    const auto report = ExportGguf(source, out_, options, pool_,
                                   [&done, &all](int64_t bytes, int64_t total) {
                                     EXPECT_GE(bytes, done.back());
                                     done.push_back(bytes);
                                     all = total;
                                   });
    ASSERT_THAT(report, IsOk());
    EXPECT_EQ(all, report->stored_bytes) << source;
    EXPECT_EQ(done.back(), all) << source;
    // Embedding and 4 matrices in each of 2 layers, then the last.
    EXPECT_GE(done.size(), 10u) << source;
  }
}

}  // namespace
}  // namespace nibble
