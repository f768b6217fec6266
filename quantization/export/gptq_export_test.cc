#include "quantization/export/gptq_export.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "nlohmann/json.hpp"
#include "quantization/export/export_test_models.h"
#include "quantization/flow.h"
#include "quantization/flow_test_fixture.h"
#include "quantization/matrix_rows.h"
#include "quantization/round_to_nearest.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/safetensors.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using Json = nlohmann::json;

QuantizationOptions Options(int bits, int64_t group_size, bool symmetric) {
  QuantizationOptions options;
  options.rounding = {bits, group_size, symmetric};
  return options;
}

// Names of the matrices of the layers, each once.
std::vector<std::string> MatricesOf(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  absl::flat_hash_set<std::string> seen;
  for (const LayerTensors& layer : checkpoint.names.layers) {
    for (const LinearTensors* linear :
         {&layer.qkv, &layer.attention, &layer.up, &layer.down}) {
      for (const RowRange& range : linear->weight) {
        if (seen.insert(range.tensor).second) names.push_back(range.tensor);
      }
    }
  }
  return names;
}

struct Codes {
  std::vector<uint8_t> codes;
  std::vector<float> scales, zeros;
};

Codes ReadRow(const CodedMatrix& matrix, int64_t row) {
  const CodedForm& form = matrix.form();
  Codes result;
  result.codes.resize(static_cast<size_t>(form.inputs));
  result.scales.resize(static_cast<size_t>(form.groups()));
  const bool zeros = form.offset == CodeOffset::kZeros;
  if (zeros) result.zeros.resize(result.scales.size());
  matrix.Read(row, 1,
              {absl::MakeSpan(result.codes), absl::MakeSpan(result.scales),
               absl::MakeSpan(result.zeros)});
  return result;
}

// What a .nib file of the same options holds.
Codes RoundedRow(const MatrixRows& rows, int64_t row,
                 const PackedLayout& layout) {
  std::vector<float> values(static_cast<size_t>(rows.inputs()));
  EXPECT_THAT(rows.Read(row, absl::MakeSpan(values)), IsOk());
  Codes result;
  result.codes.resize(values.size());
  result.scales.resize(static_cast<size_t>(layout.groups()));
  std::vector<uint8_t> zeros(layout.has_zeros() ? result.scales.size() : 0);
  RoundRow(values, layout,
           {absl::MakeSpan(result.codes), absl::MakeSpan(result.scales),
            absl::MakeSpan(zeros)});
  result.zeros.assign(zeros.begin(), zeros.end());
  return result;
}

class GptqExportTest : public ::testing::Test {
 protected:
  GptqExportTest()
      : folder_(testing::ExportTestFolder()),
        model_(folder_ + "/model"),
        out_(folder_ + "/out") {}

  void ExpectRounded(const std::string& family,
                     const RoundingOptions& rounding) {
    NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint model, OpenCheckpoint(model_));
    NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint made, OpenCheckpoint(out_));
    for (const std::string& name : MatricesOf(model)) {
      const CodedMatrix* coded = made.tensors->FindCoded(name);
      ASSERT_NE(coded, nullptr) << family << " " << name;
      const CodedForm& form = coded->form();
      NIBBLE_ASSERT_OK_AND_ASSIGN(
          const MatrixRows rows,
          MatrixRows::Find(*model.tensors, {{name, 0, form.outputs}}));
      NIBBLE_ASSERT_OK_AND_ASSIGN(
          const PackedLayout layout,
          RoundedLayout(rounding, form.outputs, form.inputs));
      for (int64_t row = 0; row < form.outputs; ++row) {
        const Codes got = ReadRow(*coded, row);
        const Codes wanted = RoundedRow(rows, row, layout);
        ASSERT_EQ(got.codes, wanted.codes) << family << " " << name;
        ASSERT_EQ(got.scales, wanted.scales) << family << " " << name;
        ASSERT_EQ(got.zeros, wanted.zeros) << family << " " << name;
      }
    }
  }

  ThreadPool pool_{2};
  std::string folder_, model_, out_;
};

TEST_F(GptqExportTest, HoldsTheCodesOfANibFileInEveryFamily) {
  for (const std::string& family : testing::ExportFamilies()) {
    testing::WriteFamily(family, model_);
    for (const QuantizationOptions& options :
         {Options(4, 32, true), Options(4, 32, false), Options(8, 32, true),
          Options(4, kWholeRow, false)}) {
      std::filesystem::remove_all(out_);
      ASSERT_THAT(ExportGptq(model_, out_, options, pool_, nullptr), IsOk())
          << family;
      ExpectRounded(family, options.rounding);
    }
  }
}

TEST_F(GptqExportTest, FloatsAreCopiedAndTheFolderIsComplete) {
  testing::WriteFamily("gptj", model_);
  ASSERT_THAT(ExportGptq(model_, out_, Options(4, 32, true), pool_, nullptr),
              IsOk());
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto before, OpenSafetensorsFolder(model_));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto after, OpenSafetensorsFolder(out_));
  for (const char* name :
       {"lm_head.weight", "lm_head.bias", "transformer.wte.weight",
        "transformer.h.1.mlp.fc_in.bias", "transformer.ln_f.bias"}) {
    const auto a = before->Find(name), b = after->Find(name);
    ASSERT_THAT(a, IsOk());
    ASSERT_THAT(b, IsOk());
    EXPECT_EQ(a->shape, b->shape);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(a->data), a->bytes),
              std::string(reinterpret_cast<const char*>(b->data), b->bytes));
  }
  const std::string base = "transformer.h.0.mlp.fc_out.";
  EXPECT_EQ(after->Find(base + "qweight")->shape, Shape({32, 64}));
  EXPECT_EQ(after->Find(base + "qzeros")->shape, Shape({8, 8}));
  EXPECT_EQ(after->Find(base + "scales")->shape, Shape({8, 64}));
  const auto order = after->Find(base + "g_idx");
  ASSERT_THAT(order, IsOk());
  EXPECT_EQ(order->As<int32_t>()[31], 0);
  EXPECT_EQ(order->As<int32_t>()[32], 1);
  // Zeros of 8, stored minus 1.
  EXPECT_EQ(after->Find(base + "qzeros")->As<int32_t>()[0], 0x77777777);
  const Json config = Json::parse(ReadAll(out_ + "/config.json"));
  const Json& settings = config["quantization_config"];
  EXPECT_EQ(settings["quant_method"], "gptq");
  EXPECT_EQ(settings["checkpoint_format"], "gptq");
  EXPECT_EQ(settings["bits"], 4);
  EXPECT_EQ(settings["group_size"], 32);
  EXPECT_EQ(settings["sym"], true);
  EXPECT_EQ(settings["desc_act"], false);
  EXPECT_EQ(config["n_embd"], 64);
  EXPECT_EQ(config["torch_dtype"], "float16");
  EXPECT_EQ(ReadAll(out_ + "/tokenizer.json"),
            ReadAll(model_ + "/tokenizer.json"));
}

TEST_F(GptqExportTest, AsymmetricZerosAreWrittenAsTheyAre) {
  testing::WriteFamily("llama", model_);
  ASSERT_THAT(
      ExportGptq(model_, out_, Options(4, kWholeRow, false), pool_, nullptr),
      IsOk());
  const Json settings =
      Json::parse(ReadAll(out_ + "/config.json"))["quantization_config"];
  EXPECT_EQ(settings["checkpoint_format"], "gptq_v2");
  EXPECT_EQ(settings["group_size"], -1);
}

TEST_F(GptqExportTest, ShardsAreOneCheckpoint) {
  testing::WriteFamily("gpt_neox", model_);
  const QuantizationOptions options = Options(4, 32, true);
  const auto checkpoint = OpenCheckpoint(model_);
  ASSERT_THAT(checkpoint, IsOk());
  ASSERT_THAT(ExportOpenGptqInShards(*checkpoint, out_, options, 20'000, pool_,
                                     nullptr),
              IsOk());
  EXPECT_FALSE(std::filesystem::exists(out_ + "/model.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(out_ + "/model.safetensors.index.json"));
  ExpectRounded("gpt_neox", options.rounding);
}

TEST_F(GptqExportTest, KeptCodesAreTheSame) {
  testing::WriteFamily("falcon-7b", model_);
  const std::string again = folder_ + "/again";
  QuantizationOptions keep;
  keep.keep_codes = true;
  ASSERT_THAT(ExportGptq(model_, out_, Options(4, 32, false), pool_, nullptr),
              IsOk());
  ASSERT_THAT(ExportGptq(out_, again, keep, pool_, nullptr), IsOk());
  EXPECT_EQ(ReadAll(again + "/model.safetensors"),
            ReadAll(out_ + "/model.safetensors"));
  EXPECT_EQ(Json::parse(ReadAll(again + "/config.json")),
            Json::parse(ReadAll(out_ + "/config.json")));
}

// Act-order comes through: the codes and g_idx of GPTQModel's own file.
TEST_F(GptqExportTest, ActOrderIsKept) {
  const auto source =
      testing::SharedDataPath("quantized/tolstoy-gptj-gptq-g32-act");
  if (!source) GTEST_SKIP() << "shared data is not beside the checkout";
  QuantizationOptions keep;
  keep.keep_codes = true;
  ASSERT_THAT(ExportGptq(*source, out_, keep, pool_, nullptr), IsOk());
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto before,
                              OpenSafetensorsFolder(*source));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto after, OpenSafetensorsFolder(out_));
  int compared = 0;
  for (const std::string& name : after->names()) {
    const auto a = before->Find(name), b = after->Find(name);
    ASSERT_THAT(a, IsOk());
    ASSERT_THAT(b, IsOk());
    if (a->dtype != b->dtype) continue;  // f32 that became f16
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(a->data), a->bytes),
              std::string(reinterpret_cast<const char*>(b->data), b->bytes))
        << name;
    ++compared;
  }
  EXPECT_GE(compared, 4 * 24);
}

}  // namespace
}  // namespace nibble
