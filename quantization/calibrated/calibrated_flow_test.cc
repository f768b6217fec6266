// Every method on a small model of every family, end to end.

#include "quantization/calibrated/calibrated_flow.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/decoder.h"
#include "quantization/calibrated/calibrated_test_fixture.h"
#include "quantization/export/gguf_export.h"
#include "quantization/export/gptq_export.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<int32_t> kPrompt = {3, 14, 15, 92, 65, 35, 89, 79, 32, 38};

std::vector<float> Logits(const Checkpoint& checkpoint) {
  ThreadPool pool(2);
  DecoderOptions options;
  options.weights = std::nullopt;  // as they are stored
  auto decoder = Decoder::Load(checkpoint, options, pool);
  EXPECT_THAT(decoder, IsOk());
  if (!decoder.ok()) return {};
  testing::DecoderSession session(**decoder, DType::kF32, 32, pool);
  return session.Append(kPrompt, /*all_logits=*/true);
}

std::vector<float> LogitsOf(const std::string& path) {
  const auto checkpoint = OpenCheckpoint(path);
  EXPECT_THAT(checkpoint, IsOk());
  return checkpoint.ok() ? Logits(*checkpoint) : std::vector<float>();
}

// Layout and checksum of each tensor of a .nib file.
std::map<std::string, std::string> Entries(const std::string& path) {
  std::map<std::string, std::string> entries;
  const auto file = PackedFile::Open(path);
  EXPECT_THAT(file, IsOk());
  if (!file.ok()) return entries;
  EXPECT_THAT((*file)->VerifyAll(), IsOk());
  for (PackedManifest::TensorEntry entry : (*file)->manifest().tensors()) {
    entry.mutable_range()->clear_offset();
    entries[entry.name()] = entry.SerializeAsString();
  }
  return entries;
}

TEST_F(CalibratedTest, WrittenFileGivesTheLogitsOfTheOverlay) {
  for (const std::string& family : testing::ExportFamilies()) {
    OpenFamily(family);
    const std::vector<float> floats = Logits(checkpoint_);
    for (const std::string& recipe : AllRecipes()) {
      SCOPED_TRACE(absl::StrCat(family, ":", recipe));
      auto result = Quantize(recipe, Options());
      ASSERT_THAT(result, IsOk());
      const std::vector<float> overlay = Logits(result->checkpoint);
      EXPECT_NE(overlay, floats);
      const std::string out = Write(std::move(result), "model");
      EXPECT_EQ(LogitsOf(out), overlay);
      EXPECT_FALSE(fs::exists(Options().work_folder));
    }
  }
}

TEST_F(CalibratedTest, RoundsToNearestLikeTheStreamingFlow) {
  for (const std::string& family : testing::ExportFamilies()) {
    SCOPED_TRACE(family);
    OpenFamily(family);
    for (const auto& [recipe, rounding, keep_float] :
         {std::tuple("grid { group_size: 32 }", RoundingOptions{4, 32, false},
                     "^head"),
          std::tuple("grid { group_size: -1 offset: SYMMETRIC }",
                     RoundingOptions{4, kWholeRow, true}, "^head"),
          std::tuple("grid { bits: 8 group_size: 128 } head_bits: 8",
                     RoundingOptions{8, 128, true}, ""),
          std::tuple("grid { group_size: 64 } "
                     "layers { pattern: \"^layers.1.(up|qkv)\" bits: 16 }",
                     RoundingOptions{4, 64, false},
                     "^head|^layers.1.(up|qkv)")}) {
      const std::string out = Write(Quantize(recipe, Options()), "recipe");
      QuantizationOptions options;
      options.rounding = rounding;
      options.keep_float = keep_float;
      ThreadPool pool(2);
      ASSERT_THAT(QuantizeOpenCheckpoint(checkpoint_, folder_ + "/flow.nib",
                                         options, pool, nullptr),
                  IsOk());
      EXPECT_EQ(Entries(out), Entries(folder_ + "/flow.nib")) << recipe;
    }
  }
}

TEST_F(CalibratedTest, DoesNotDependOnTheNumberOfThreads) {
  for (const char* family : {"llama", "falcon-7b"}) {
    OpenFamily(family);
    for (const std::string& recipe : AllRecipes()) {
      SCOPED_TRACE(absl::StrCat(family, ":", recipe));
      const auto one = Entries(Write(Quantize(recipe, Options(), 1), "one"));
      EXPECT_EQ(Entries(Write(Quantize(recipe, Options(), 3), "three")), one);
    }
  }
}

// Steps too small to change a code keep what training starts from.
TEST_F(CalibratedTest, SignRoundStartsWithGptqUnlessItIsToldNotTo) {
  const std::string text =
      "grid { group_size: 32 } calibration { samples: 12 length: 24 } ";
  const std::string untrained =
      text +
      "rounding: SIGNROUND signround { iterations: 1 batch: 1 "
      "learning_rate: 1e-9 ";
  for (const char* family : {"llama", "gptj"}) {
    SCOPED_TRACE(family);
    OpenFamily(family);
    const auto entries = [&](const std::string& recipe) {
      return Entries(Write(Quantize(recipe, Options()), "model"));
    };
    auto gptq = entries(text + "rounding: GPTQ");
    auto nearest = entries("grid { group_size: 32 }");
    auto start = entries(untrained + "}");
    EXPECT_EQ(entries(untrained + "start_with_gptq: false }"), nearest);
    // Of later matrices GPTQ corrects some weights by more than the two steps
    // that a shift can reach.
    const char* first = "layers.0.qkv.weight";
    EXPECT_NE(gptq[first], nearest[first]);
    EXPECT_EQ(start[first], gptq[first]);
    EXPECT_NE(start["layers.1.down.weight"], nearest["layers.1.down.weight"]);
  }
}

// A correction by inputs of another model, or by weights whose scales are not
// those of the inputs, would take the output further from the float model's.
TEST_F(CalibratedTest, CorrectionBringsScaledBlocksCloserToTheFloatModel) {
  const std::string text =
      "grid { group_size: 32 } calibration { samples: 12 length: 24 } "
      "rounding: GPTQ ";
  for (const char* family : {"llama", "gptj", "gpt_neox", "falcon-7b"}) {
    OpenFamily(family);
    for (const char* transform :
         {"transform: AWQ ",
          "transform: TEQ teq { iterations: 2 batch: 2 } "}) {
      SCOPED_TRACE(absl::StrCat(family, ": ", transform));
      const auto error = [&](const std::string& gptq) {
        const auto result =
            Quantize(absl::StrCat(text, transform, gptq), Options());
        EXPECT_THAT(result, IsOk());
        if (!result.ok()) return 0.0;
        EXPECT_THAT(result->work.Remove(), IsOk());
        return result->report.blocks(1).output_error();
      };
      const double without = error("gptq { asymmetric_correction: 0 }");
      EXPECT_GT(without, 0);
      EXPECT_LT(error("gptq { asymmetric_correction: 1 }"), 0.8 * without);
    }
  }
}

TEST_F(CalibratedTest, RecordNamesTheMethodAndHoldsARecipeThatRepeatsIt) {
  OpenFamily("qwen2");
  const std::string out = Write(Quantize(AllRecipes()[5], Options()), "model");
  const auto file = PackedFile::Open(out);
  ASSERT_THAT(file, IsOk());
  const QuantizationRecord& record = (*file)->manifest().record();
  EXPECT_EQ(record.method(), "awq+gptq");
  EXPECT_THAT(record.recipe(), HasSubstr(windows_.digest));
  const std::string again =
      Write(Quantize(record.recipe(), Options()), "again");
  EXPECT_EQ(Entries(again), Entries(out));
}

TEST_F(CalibratedTest, ReportsEveryMatrixAndPhase) {
  OpenFamily("llama");
  CalibratedOptions options = Options();
  options.measure_damage = true;
  double share = 0;
  options.progress = [&share](const CalibratedProgress& progress) {
    EXPECT_GE(progress.share, share);
    share = progress.share;
  };
  auto result = Quantize(
      "grid { group_size: 32 } rounding: GPTQ "
      "layers { pattern: \"down\" bits: 8 } "
      "layers { pattern: \"layers.1.attention\" bits: 16 }",
      options);
  ASSERT_THAT(result, IsOk());
  EXPECT_DOUBLE_EQ(share, 1);
  const CalibratedReport& report = result->report;
  ASSERT_EQ(report.blocks_size(), 2);
  const BlockReport& block = report.blocks(1);
  ASSERT_EQ(block.matrices_size(), 4);
  const MatrixReport& qkv = block.matrices(0);
  EXPECT_EQ(qkv.name(), "layers.1.qkv.weight");
  EXPECT_EQ(qkv.bits(), 4);
  EXPECT_EQ(qkv.group_size(), 32);
  EXPECT_GT(qkv.relative_error(), 0.02);
  EXPECT_GT(qkv.loss(), 0);
  EXPECT_LE(qkv.loss(), qkv.nearest_loss());
  EXPECT_GT(qkv.damage(), 0);
  EXPECT_EQ(qkv.weights(), 128 * 64);
  // Codes, a scale of 2 bytes and half a byte of zero for 32 of them.
  EXPECT_EQ(qkv.bytes(), 128 * 64 / 2 + 128 * 2 * 5 / 2);
  EXPECT_EQ(block.matrices(1).bits(), 16);
  EXPECT_FALSE(block.matrices(1).has_relative_error());
  const MatrixReport& down = block.matrices(3);
  EXPECT_EQ(down.bits(), 8);
  EXPECT_FALSE(down.has_damping());
  EXPECT_LT(down.relative_error(), 0.01);
  EXPECT_LT(down.damage(), qkv.damage());
  EXPECT_EQ(report.windows(), 12);
  EXPECT_EQ(report.calibration_digest(), windows_.digest);
  EXPECT_GT(report.phases_size(), 4);
  EXPECT_THAT(result->work.Remove(), IsOk());
}

TEST_F(CalibratedTest, WritesTheFormatsOfOtherPrograms) {
  OpenFamily("gpt_neox");
  ThreadPool pool(2);
  QuantizationOptions options;
  options.keep_codes = true;
  auto gptq = Quantize("grid { group_size: 32 } rounding: GPTQ", Options());
  ASSERT_THAT(gptq, IsOk());
  const std::string folder = folder_ + "/gptq";
  ASSERT_THAT(ExportOpenGptq(gptq->checkpoint, folder, options, pool, nullptr),
              IsOk());
  EXPECT_THAT(gptq->work.Remove(), IsOk());
  EXPECT_EQ(LogitsOf(folder), Logits(gptq->checkpoint));

  auto awq = Quantize("grid { group_size: 32 offset: MINIMUMS } transform: AWQ",
                      Options());
  ASSERT_THAT(awq, IsOk());
  const std::string file = folder_ + "/model.gguf";
  ASSERT_THAT(ExportOpenGguf(awq->checkpoint, file, options, pool, nullptr),
              IsOk());
  EXPECT_EQ(LogitsOf(file), Logits(awq->checkpoint));
  EXPECT_THAT(awq->work.Remove(), IsOk());
}

TEST_F(CalibratedTest, RefusesWhatContradictsItself) {
  OpenFamily("llama");
  ThreadPool pool(1);
  const auto expect = [&](const std::string& text,
                          const CalibrationWindows* windows,
                          const std::string& problem) {
    EXPECT_THAT(
        QuantizeWithRecipe(checkpoint_, windows, Parse(text), Options(), pool),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(problem)))
        << text;
    EXPECT_FALSE(fs::exists(Options().work_folder)) << text;
  };
  expect("rounding: GPTQ", nullptr, "--calibration");
  expect("layers { pattern: \"none\" bits: 8 }", nullptr, "none");
  expect("rounding: GPTQ calibration { digest: \"0123456789abcdef\" }",
         &windows_, "0123456789abcdef");
  CalibrationWindows longer = windows_;
  longer.length = checkpoint_.config.max_positions + 1;
  expect("rounding: GPTQ", &longer, "the model was made for 128");
}

// A checkpoint's tensors, the last element of one of which is no number.
class WithNan : public TensorSource {
 public:
  WithNan(std::shared_ptr<const TensorSource> source, const std::string& name)
      : source_(std::move(source)), name_(name) {
    view_ = *source_->Find(name);
    const absl::Span<const F16> values = view_.As<F16>();
    values_.assign(values.begin(), values.end());
    values_.back() = ToF16(std::numeric_limits<float>::quiet_NaN());
    view_.data = reinterpret_cast<const std::byte*>(values_.data());
  }
  const std::string& path() const override { return source_->path(); }
  const std::vector<std::string>& names() const override {
    return source_->names();
  }
  bool Contains(absl::string_view name) const override {
    return source_->Contains(name);
  }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    return name == name_ ? view_ : source_->Find(name);
  }

 private:
  const std::shared_ptr<const TensorSource> source_;
  const std::string name_;
  std::vector<F16> values_;
  TensorView view_;
};

// What would else be seen when the file is written, hours later.
TEST_F(CalibratedTest, RefusesAHeadOrEmbeddingOfNoNumbersBeforeAnyBlock) {
  for (const char* family : {"llama", "gptj", "falcon-7b"}) {
    OpenFamily(family);
    const Checkpoint whole = checkpoint_;
    const DecoderTensors& names = whole.names;
    std::vector<std::string> tensors = {
        names.head.weight[0].tensor, names.embedding, names.final_norm.weight};
    if (!names.head.bias.empty()) {
      tensors.push_back(names.head.bias[0].tensor);
    }
    for (const std::string& name : tensors) {
      for (const char* head : {"", " head_bits: 8"}) {
        SCOPED_TRACE(absl::StrCat(family, ": ", name, head));
        checkpoint_.tensors = std::make_shared<WithNan>(whole.tensors, name);
        CalibratedOptions options = Options();
        options.progress = [](const CalibratedProgress&) { ADD_FAILURE(); };
        EXPECT_THAT(Quantize(AllRecipes()[0] + head, options),
                    StatusIs(absl::StatusCode::kInvalidArgument,
                             AllOf(HasSubstr(name), HasSubstr("finite"))));
        EXPECT_FALSE(fs::exists(options.work_folder));
      }
    }
  }
}

TEST_F(CalibratedTest, RefusesTensorsOfSeveralMatricesBeforeAnyBlock) {
  OpenFamily("llama");
  checkpoint_.names.layers[1].down.weight[0].first_row = 1;
  CalibratedOptions options = Options();
  options.progress = [](const CalibratedProgress&) { ADD_FAILURE(); };
  EXPECT_THAT(Quantize(AllRecipes()[0], options),
              StatusIs(absl::StatusCode::kUnimplemented,
                       AllOf(HasSubstr("layers.1.mlp.down_proj.weight"),
                             HasSubstr("several matrices"))));
  EXPECT_FALSE(fs::exists(options.work_folder));
}

TEST_F(CalibratedTest, RefusesTokensThatTheModelLacks) {
  OpenFamily("llama");
  ThreadPool pool(1);
  windows_.windows[3][5] = 97;
  EXPECT_THAT(QuantizeWithRecipe(checkpoint_, &windows_,
                                 Parse("rounding: GPTQ"), Options(), pool),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("token id 97"), HasSubstr("window 3"))));
}

TEST_F(CalibratedTest, RefusesPackedModels) {
  OpenFamily("llama");
  const std::string out = Write(Quantize(AllRecipes()[0], Options()), "model");
  auto packed = OpenCheckpoint(out);
  ASSERT_THAT(packed, IsOk());
  ThreadPool pool(1);
  EXPECT_THAT(QuantizeWithRecipe(*packed, nullptr, Parse(AllRecipes()[0]),
                                 Options(), pool),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("packed already")));
}

}  // namespace
}  // namespace nibble
