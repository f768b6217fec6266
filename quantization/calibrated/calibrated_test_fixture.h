// What the tests of the calibrated flow share: a model of any family with
// calibration windows, and the file it becomes.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_CALIBRATED_TEST_FIXTURE_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_CALIBRATED_TEST_FIXTURE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "quantization/calibrated/calibrated_flow.h"
#include "quantization/calibration/windows.h"
#include "quantization/export/export_test_models.h"
#include "quantization/flow.h"
#include "quantization/recipe/recipe.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"

namespace nibble {

// Every method, with as little work as it can have.
inline std::vector<std::string> AllRecipes() {
  const std::string text = " calibration { samples: 12 length: 24 } ";
  const std::string grid = " grid { group_size: 32 } ";
  // Matrices that a transform changes and that stay floats.
  const std::string kept = " layers { pattern: \"qkv|down\" bits: 16 } ";
  return {
      grid,
      grid + text + "round_to_nearest { search: true importance: true }",
      grid + text + "rounding: GPTQ gptq { act_order: true }",
      grid + text + "rounding: GPTQ gptq { asymmetric_correction: 0.25 }",
      grid + text + "transform: AWQ",
      grid + text + "transform: AWQ rounding: GPTQ",
      grid + text + "transform: TEQ teq { iterations: 2 batch: 2 }",
      grid + text + "rounding: SIGNROUND signround { iterations: 2 batch: 2 }",
      grid + text + "transform: AWQ rounding: GPTQ" + kept,
      grid + text + "transform: TEQ teq { iterations: 2 batch: 2 }" + kept,
      grid + text +
          "transform: TEQ rounding: GPTQ teq { iterations: 2 batch: 2 }",
      grid + text +
          "transform: TEQ rounding: GPTQ teq { iterations: 2 batch: 2 }" + kept,
  };
}

class CalibratedTest : public ::testing::Test {
 protected:
  CalibratedTest()
      : folder_(testing::ExportTestFolder()), model_(folder_ + "/model") {}

  // Writes and opens one of testing::ExportFamilies().
  void OpenFamily(const std::string& family) {
    testing::WriteFamily(family, model_);
    auto checkpoint = OpenCheckpoint(model_);
    ASSERT_THAT(checkpoint, testing::IsOk());
    checkpoint_ = *std::move(checkpoint);
    windows_ = Windows(/*seed=*/1);
  }

  static CalibrationWindows Windows(uint64_t seed) {
    testing::RandomValues random(seed);
    std::vector<int32_t> ids;
    for (const float value : random.Uniform(12 * 24, 0.0f, 96.0f)) {
      ids.push_back(static_cast<int32_t>(value));
    }
    return *ChooseWindows(ids, {12, 24, 1, std::nullopt});
  }

  static Recipe Parse(const std::string& text) {
    const auto recipe = ParseRecipe(text, "recipe");
    EXPECT_THAT(recipe, testing::IsOk());
    return recipe.ok() ? *recipe : Recipe();
  }

  CalibratedOptions Options() const {
    CalibratedOptions options;
    options.work_folder = folder_ + "/work";
    options.program_version = "test";
    return options;
  }

  absl::StatusOr<CalibratedResult> Quantize(const std::string& recipe,
                                            const CalibratedOptions& options,
                                            int threads = 2) {
    ThreadPool pool(threads);
    const Recipe parsed = Parse(recipe);
    return QuantizeWithRecipe(checkpoint_,
                              NeedsCalibration(parsed) ? &windows_ : nullptr,
                              parsed, options, pool);
  }

  // The .nib file of a result, whose work folder goes.
  std::string Write(absl::StatusOr<CalibratedResult> result,
                    const std::string& name) {
    EXPECT_THAT(result, testing::IsOk());
    if (!result.ok()) return "";
    const std::string out = folder_ + "/" + name + ".nib";
    QuantizationOptions options;
    options.keep_codes = true;
    options.method = MethodName(result->recipe);
    options.recipe = RecipeText(result->recipe);
    ThreadPool pool(2);
    EXPECT_THAT(result->work.Remove(), testing::IsOk());
    EXPECT_THAT(
        QuantizeOpenCheckpoint(result->checkpoint, out, options, pool, nullptr),
        testing::IsOk());
    return out;
  }

  const std::string folder_, model_;
  Checkpoint checkpoint_;
  CalibrationWindows windows_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_CALIBRATED_TEST_FIXTURE_H_
