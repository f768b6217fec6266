#include "quantization/flow.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/manifest_config.h"
#include "models/matrix_gather.h"
#include "models/packed_names.h"
#include "models/registry.h"
#include "quantization/flow_test_fixture.h"
#include "quantization/round_to_nearest.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::IsOk;
using ::nibble::testing::SharedDataPath;
using ::nibble::testing::TinyModelOptions;
using ::nibble::testing::WriteText;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The rows of a checkpoint's matrix as floats: [outputs, inputs].
std::vector<std::vector<float>> RowsOf(const Checkpoint& checkpoint,
                                       const LinearTensors& linear,
                                       ThreadPool& pool) {
  MatrixGather gather(*checkpoint.tensors, pool);
  const auto matrix = gather.Matrix(linear.weight);
  EXPECT_THAT(matrix, IsOk());
  std::vector<std::vector<float>> rows;
  for (int64_t i = 0; i < matrix->view.shape.dim(0); ++i) {
    rows.emplace_back(static_cast<size_t>(matrix->view.shape.dim(1)));
    EXPECT_THAT(ConvertRowToF32(matrix->view, i, absl::MakeSpan(rows.back())),
                IsOk());
  }
  return rows;
}

// `row` as rounding and decoding leave it.
std::vector<float> Decoded(absl::Span<const float> row,
                           const PackedLayout& layout) {
  std::vector<uint8_t> codes(row.size());
  std::vector<float> scales(layout.groups());
  std::vector<uint8_t> zeros(layout.has_zeros() ? layout.groups() : 0);
  RoundRow(
      row, layout,
      {absl::MakeSpan(codes), absl::MakeSpan(scales), absl::MakeSpan(zeros)});
  std::vector<float> values;
  for (size_t i = 0; i < row.size(); ++i) {
    const size_t group = i / layout.group_size;
    const int zero = layout.has_zeros()
                         ? zeros[group]
                         : static_cast<int>(layout.symmetric_zero());
    values.push_back(scales[group] * static_cast<float>(codes[i] - zero));
  }
  return values;
}

// The packed matrix holds the rows, rounded to `format`.
void ExpectMatrix(const PackedFile& file, const std::string& name,
                  const std::vector<std::vector<float>>& rows,
                  WeightFormat format) {
  SCOPED_TRACE(name);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const PackedTensor packed, file.FindPacked(name));
  EXPECT_EQ(packed.layout.format, format);
  ASSERT_EQ(packed.layout.outputs, static_cast<int64_t>(rows.size()));
  ASSERT_EQ(packed.layout.inputs, static_cast<int64_t>(rows[0].size()));
  const PackedMatrix matrix = PackedMatrix::View(packed.layout, packed.data);
  std::vector<float> got(rows[0].size());
  for (size_t i = 0; i < rows.size(); ++i) {
    DequantizeRow(matrix, static_cast<int64_t>(i), absl::MakeSpan(got));
    std::vector<float> want = rows[i];
    if (IsInteger(format)) {
      want = Decoded(rows[i], packed.layout);
    } else {
      for (float& value : want) value = ToFloat(ToBF16(value));
    }
    ASSERT_EQ(got, want) << "row " << i;
  }
}

void ExpectVector(const PackedFile& file, const std::string& name,
                  const std::vector<RowRange>& elements,
                  const Checkpoint& checkpoint, ThreadPool& pool) {
  SCOPED_TRACE(name);
  MatrixGather gather(*checkpoint.tensors, pool);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Array<float> want, gather.Bias(elements));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const TensorView got, file.Find(name));
  EXPECT_EQ(got.As<float>(), want.span());
}

// Every tensor of the .nib file at `path` is what became of the checkpoint's.
void ExpectHolds(const std::string& path, const std::string& model,
                 WeightFormat weights, WeightFormat head, ThreadPool& pool) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(path));
  EXPECT_THAT(file->VerifyAll(), IsOk());
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint,
                              OpenCheckpoint(model));
  const DecoderTensors names = PackedTensorNames(checkpoint.config);
  const DecoderTensors& source = checkpoint.names;
  for (size_t i = 0; i < source.layers.size(); ++i) {
    const LayerTensors& from = source.layers[i];
    const LayerTensors& to = names.layers[i];
    const std::pair<const LinearTensors*, const LinearTensors*> linears[] = {
        {&from.qkv, &to.qkv},
        {&from.attention, &to.attention},
        {&from.up, &to.up},
        {&from.down, &to.down}};
    for (const auto& [stored, packed] : linears) {
      ExpectMatrix(*file, packed->weight[0].tensor,
                   RowsOf(checkpoint, *stored, pool), weights);
      ASSERT_EQ(stored->bias.empty(), packed->bias.empty());
      if (stored->bias.empty()) continue;
      ExpectVector(*file, packed->bias[0].tensor, stored->bias, checkpoint,
                   pool);
    }
    const int64_t hidden = checkpoint.config.hidden;
    ExpectVector(*file, to.mlp_norm.weight, {{from.mlp_norm.weight, 0, hidden}},
                 checkpoint, pool);
  }
  ExpectMatrix(*file, "head.weight", RowsOf(checkpoint, source.head, pool),
               head);
  EXPECT_EQ(file->Contains("embedding"), !checkpoint.config.tied_head);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const DecoderConfig config,
      FromManifest(file->manifest().config(), file->path()));
  EXPECT_EQ(config.family, checkpoint.config.family);
  EXPECT_EQ(config.ffn, checkpoint.config.ffn);
  EXPECT_EQ(config.eos_ids, checkpoint.config.eos_ids);
}

TEST_F(FlowTest, PacksEveryTensorOfEveryKindOfModel) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const bool tied : {false, true}) {
      TinyModelOptions model;
      model.dtype = dtype;
      model.tied_head = tied;
      model.attention_bias = model.mlp_bias = tied;
      WriteModel(model);
      QuantizationOptions options;
      options.rounding = {4, 32, dtype == DType::kF16};
      ASSERT_THAT(Quantize(options), IsOk());
      ExpectHolds(out_, model_, WeightFormat::kInt4, WeightFormat::kBF16,
                  pool_);
      options.rounding = {8, kWholeRow, true};
      options.keep_float = "";
      ASSERT_THAT(Quantize(options), IsOk());
      ExpectHolds(out_, model_, WeightFormat::kInt8, WeightFormat::kInt8,
                  pool_);
    }
  }
}

TEST_F(FlowTest, KeepsTheEmbeddingAsItIsButForF32) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    TinyModelOptions model;
    model.dtype = dtype;
    WriteModel(model);
    ASSERT_THAT(Quantize(), IsOk());
    NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
    NIBBLE_ASSERT_OK_AND_ASSIGN(const TensorView got, file->Find("embedding"));
    NIBBLE_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint,
                                OpenCheckpoint(model_));
    NIBBLE_ASSERT_OK_AND_ASSIGN(
        const TensorView stored,
        checkpoint.tensors->Find(checkpoint.names.embedding));
    ASSERT_EQ(got.shape, stored.shape);
    if (dtype == DType::kF32) {
      ASSERT_EQ(got.dtype, DType::kBF16);
      for (size_t i = 0; i < got.As<BF16>().size(); ++i) {
        ASSERT_EQ(got.As<BF16>()[i], ToBF16(stored.As<float>()[i]));
      }
    } else {
      ASSERT_EQ(got.dtype, dtype);
      EXPECT_EQ(std::memcmp(got.data, stored.data, stored.bytes), 0);
    }
  }
}

TEST_F(FlowTest, MatricesOfManyBlocksAreWhole) {
  // 97,000 rows of 96 weights are two blocks, the second with a ragged record.
  TinyModelOptions model;
  model.vocabulary = 97001;
  model.hidden = 96;
  model.layers = 1;
  WriteModel(model);
  QuantizationOptions options;
  options.keep_float = "";
  NIBBLE_ASSERT_OK_AND_ASSIGN(const QuantizationReport report,
                              Quantize(options));
  ExpectHolds(out_, model_, WeightFormat::kInt4, WeightFormat::kInt4, pool_);
  options.keep_float = "^head";
  ASSERT_THAT(Quantize(options), IsOk());
  ExpectHolds(out_, model_, WeightFormat::kInt4, WeightFormat::kBF16, pool_);
}

TEST_F(FlowTest, ThreadsDoNotChangeTheFile) {
  WriteModel({});
  ASSERT_THAT(Quantize(), IsOk());
  const std::string two = ReadAll(out_);
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    ASSERT_THAT(QuantizeCheckpoint(model_, out_, {}, pool, nullptr), IsOk());
    EXPECT_EQ(ReadAll(out_), two) << threads;
  }
}

TEST_F(FlowTest, RecordSaysHowTheWeightsCameAbout) {
  WriteModel({});
  QuantizationOptions options;
  options.rounding = {4, 64, true};
  options.keep_float = "head|layers\\.0\\.down";
  options.program_version = "9.9";
  ASSERT_THAT(Quantize(options), IsOk());
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
  const QuantizationRecord& record = file->manifest().record();
  EXPECT_EQ(record.method(), "rtn");
  EXPECT_EQ(record.bits(), 4);
  EXPECT_EQ(record.group_size(), 64);
  EXPECT_TRUE(record.symmetric());
  EXPECT_EQ(record.keep_float(), options.keep_float);
  EXPECT_EQ(record.source(), "model (safetensors)");
  EXPECT_EQ(record.program_version(), "9.9");
  ASSERT_EQ(record.overrides_size(), 2);
  EXPECT_EQ(record.overrides(0).tensor(), "layers.0.down.weight");
  EXPECT_EQ(record.overrides(1).tensor(), "head.weight");
  EXPECT_EQ(record.overrides(1).format(), "bf16");
}

TEST_F(FlowTest, ReportsWhatEachTensorLost) {
  WriteModel({});
  std::vector<int64_t> steps;
  int64_t total = 0;
  const auto report = QuantizeCheckpoint(model_, out_, {}, pool_,
                                         [&](int64_t done, int64_t all) {
                                           steps.push_back(done);
                                           total = all;
                                         });
  ASSERT_THAT(report, IsOk());
  ASSERT_EQ(report->tensors.size(), 10u);  // embedding, two layers, head
  EXPECT_EQ(report->tensors[0].name, "embedding");
  EXPECT_EQ(report->tensors[0].format, "bf16");
  EXPECT_EQ(report->tensors[0].relative_error, std::nullopt);
  const QuantizedTensor& qkv = report->tensors[1];
  EXPECT_EQ(qkv.name, "layers.0.qkv.weight");
  EXPECT_EQ(qkv.format, "int4");
  EXPECT_EQ(qkv.outputs, 64);
  EXPECT_EQ(qkv.inputs, 32);
  EXPECT_EQ(qkv.stored_bytes, 64 * 32 * 4);
  ASSERT_TRUE(qkv.relative_error.has_value());
  EXPECT_GT(*qkv.relative_error, 0.02);
  EXPECT_LT(*qkv.relative_error, 0.2);
  EXPECT_EQ(report->tensors.back().format, "bf16");
  EXPECT_EQ(report->file_bytes, static_cast<int64_t>(fs::file_size(out_)));
  EXPECT_GT(report->seconds, 0);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_EQ(steps.back(), total);
  EXPECT_EQ(total, 2 * report->stored_bytes);
}

TEST_F(FlowTest, CarriesTheTokenizerAlong) {
  WriteModel({});
  WriteText(model_ + "/tokenizer.json", "{\"a\": 1}");
  WriteText(model_ + "/chat_template.jinja", "{{ messages }}");
  WriteText(model_ + "/notes.txt", "not for the engine");
  ASSERT_THAT(Quantize(), IsOk());
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
  EXPECT_THAT(file->file_names(),
              ElementsAre("chat_template.jinja", "generation_config.json",
                          "tokenizer.json"));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const absl::string_view text,
                              file->FindFile("tokenizer.json"));
  EXPECT_EQ(text, "{\"a\": 1}");
}

// ---- Real checkpoints of every format

TEST_F(FlowTest, TakesGgufWithItsMetadata) {
  const auto path = SharedDataPath("llama-stories260K/stories260K.gguf");
  if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
  model_ = *path;
  ASSERT_THAT(Quantize(), IsOk());
  ExpectHolds(out_, model_, WeightFormat::kInt4, WeightFormat::kBF16, pool_);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
  EXPECT_THAT(file->file_names(), ElementsAre("metadata.gguf"));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const absl::string_view bytes,
                              file->FindFile("metadata.gguf"));
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const auto metadata,
      GgufFile::Parse(
          "metadata",
          absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()),
                              bytes.size())));
  EXPECT_THAT(metadata->names(), IsEmpty());
  EXPECT_TRUE(metadata->HasKey("tokenizer.ggml.tokens"));
}

TEST_F(FlowTest, TakesLlama2cWithItsVocabulary) {
  const auto path = SharedDataPath("llama-stories260K/stories260K.bin");
  if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
  model_ = *path;
  QuantizationOptions options;
  options.rounding.bits = 8;
  ASSERT_THAT(Quantize(options), IsOk());
  ExpectHolds(out_, model_, WeightFormat::kInt8, WeightFormat::kBF16, pool_);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
  EXPECT_THAT(file->file_names(), ElementsAre("tokenizer.bin"));
}

}  // namespace
}  // namespace nibble
