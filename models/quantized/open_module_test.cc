// Tensors that do not fit their settings, or each other.

#include "models/quantized/open_module.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/quantized/module_rules.h"
#include "models/quantized/quantization_settings.h"
#include "models/quantized/stored_codes.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "testing/coded_tensors.h"
#include "testing/matchers.h"
#include "testing/quantized_layers.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::PackOptions;
using testing::RandomValues;
using testing::StatusIs;
using testing::StoredTensors;

// Module "m", [32, 64] in groups of 32, 4 bits with zeros.
class OpenModuleTest : public ::testing::Test {
 protected:
  OpenModuleTest() {
    settings_.source = "c.json";
    settings_.common = {4, 32, false};
    RandomValues random(1);
    made_ =
        testing::RandomCodes({32, 64, 4, 32, CodeOffset::kZeros, {}}, random);
    options_.g_idx = true;
  }

  // Packs the module, applies `damage`, and returns what opening it says.
  absl::Status Damaged(CodeLayout layout,
                       const std::function<void(StoredTensors&)>& damage) {
    StoredTensors tensors;
    switch (layout) {
      case CodeLayout::kGptq:
        PackGptq(*made_, "m", options_, tensors);
        break;
      case CodeLayout::kAwqGemm:
        PackAwqGemm(*made_, "m", options_, tensors);
        break;
      case CodeLayout::kAwqGemv:
        PackAwqGemv(*made_, "m", options_, tensors);
        break;
      case CodeLayout::kCompressedTensors:
        PackCompressedTensors(*made_, "m", options_, tensors);
        break;
    }
    settings_.layout = layout;
    EXPECT_THAT(OpenModule(tensors, "m", settings_), IsOk());
    damage(tensors);
    return OpenModule(tensors, "m", settings_).status();
  }

  struct Case {
    CodeLayout layout;
    const char* tensor;
    Shape shape;
    // What is wrong, or right instead.
    const char* message;
  };

  QuantizationSettings settings_;
  std::unique_ptr<testing::MemoryCodes> made_;
  PackOptions options_;
};

constexpr CodeLayout kGptq = CodeLayout::kGptq;
constexpr CodeLayout kGemm = CodeLayout::kAwqGemm;
constexpr CodeLayout kGemv = CodeLayout::kAwqGemv;
constexpr CodeLayout kCompressed = CodeLayout::kCompressedTensors;

TEST_F(OpenModuleTest, RejectsShapesThatDisagree) {
  for (const Case& c : {
           // A row of codes more: 72 inputs make three groups.
           Case{kGptq, "m.qweight", {9, 32}, "[3, 32]"},
           Case{kGptq, "m.qweight", {8, 40}, "[2, 40]"},
           Case{kGptq, "m.qweight", {256}, "2 dimensions"},
           Case{kGptq, "m.qweight", {0, 32}, "none of them 0"},
           Case{kGptq, "m.scales", {4, 32}, "[2, 32]"},
           Case{kGptq, "m.scales", {64}, "2 dimensions"},
           Case{kGptq, "m.qzeros", {2, 8}, "[2, 4]"},
           Case{kGptq, "m.qzeros", {4, 4}, "[2, 4]"},
           Case{kGptq, "m.g_idx", {63}, "[64]"},
           Case{kGptq, "m.g_idx", {8, 8}, "1 dimensions"},
           Case{kGemm, "m.qweight", {64, 5}, "[2, 40]"},
           Case{kGemm, "m.qweight", {8, 32}, "[1, 256]"},
           Case{kGemm, "m.scales", {2, 31}, "[2, 32]"},
           Case{kGemm, "m.qzeros", {2, 3}, "[2, 4]"},
           Case{kGemv, "m.qweight", {32, 9}, "whole groups"},
           Case{kGemv, "m.scales", {32, 2}, "[32, 32]"},
           Case{kGemv, "m.qzeros", {32, 1}, "[32, 4]"},
           Case{kCompressed, "m.weight_packed", {32, 9}, "[32, 8]"},
           Case{kCompressed, "m.weight_packed", {31, 8}, "[32, 8]"},
           Case{kCompressed, "m.weight_scale", {32, 1}, "[32, 2]"},
           Case{kCompressed, "m.weight_zero_point", {32, 2}, "[4, 2]"},
           Case{kCompressed, "m.weight_g_idx", {65}, "[64]"},
           Case{kCompressed, "m.weight_shape", {3}, "two sizes"},
       }) {
    const absl::Status status = Damaged(c.layout, [&](StoredTensors& tensors) {
      const DType dtype = tensors.Find(c.tensor)->dtype;
      tensors.SetBytes(c.tensor, dtype, c.shape,
                       std::vector<std::byte>(static_cast<size_t>(
                           c.shape.elements() * DTypeBlockBytes(dtype))));
    });
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 AllOf(HasSubstr("stored: tensor m."),
                                       HasSubstr(c.message))))
        << c.tensor << " " << c.shape.ToString();
  }
}

TEST_F(OpenModuleTest, RejectsBitsAndGroupSizesOfOtherFiles) {
  for (const ModuleForm& form :
       {ModuleForm{8, 32, false}, ModuleForm{2, 32, false},
        ModuleForm{4, 16, false}, ModuleForm{4, -1, false},
        ModuleForm{4, 128, false}}) {
    for (const CodeLayout layout : {kGptq, kCompressed}) {
      settings_.common = {4, 32, false};
      const absl::Status status =
          Damaged(layout, [&](StoredTensors&) { settings_.common = form; });
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                   AllOf(HasSubstr("stored: tensor m."),
                                         HasSubstr("c.json"))));
    }
  }
  // 256 bits a column are no whole number of codes.
  settings_.common = {4, 32, false};
  EXPECT_THAT(Damaged(kGptq,
                      [&](StoredTensors&) {
                        settings_.common = {3, 32, false};
                      }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("whole codes of 3 bits")));
}

TEST_F(OpenModuleTest, RejectsMissingParts) {
  const std::vector<std::pair<CodeLayout, const char*>> cases = {
      {kGptq, "m.qweight"},
      {kGptq, "m.qzeros"},
      {kGptq, "m.scales"},
      {kGemm, "m.qzeros"},
      {kGemv, "m.scales"},
      {kCompressed, "m.weight_packed"},
      {kCompressed, "m.weight_scale"},
      {kCompressed, "m.weight_shape"},
      {kCompressed, "m.weight_zero_point"}};
  for (const auto& [layout, name] : cases) {
    const char* missing = name;
    EXPECT_THAT(Damaged(layout, [&](StoredTensors& t) { t.Remove(missing); }),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr(name)));
  }
}

TEST_F(OpenModuleTest, RejectsPartsThatDoNotBelong) {
  EXPECT_THAT(
      Damaged(kGptq,
              [](StoredTensors& tensors) {
                tensors.Set("m.weight", {32, 64}, std::vector<float>(32 * 64));
              }),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("m.weight stands beside m.qweight")));
  EXPECT_THAT(Damaged(kGemm,
                      [](StoredTensors& tensors) {
                        tensors.Set("m.g_idx", {64}, std::vector<int32_t>(64));
                      }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("m.g_idx is no part of an AWQ matrix")));
}

TEST_F(OpenModuleTest, RefusesScaledActivationsByName) {
  StoredTensors tensors;
  tensors.Set("mlp.act.scales", {64}, std::vector<float>(64, 1.0f));
  settings_.layout = kGemm;
  EXPECT_THAT(OpenModule(tensors, "mlp.act", settings_),
              StatusIs(absl::StatusCode::kUnimplemented,
                       AllOf(HasSubstr("mlp.act.scales"),
                             HasSubstr("divides an activation"))));
}

TEST_F(OpenModuleTest, RejectsWrongTypes) {
  const std::vector<std::pair<CodeLayout, const char*>> cases = {
      {kGptq, "m.qweight"},
      {kGptq, "m.qzeros"},
      {kGptq, "m.scales"},
      {kGptq, "m.g_idx"},
      {kGemm, "m.qweight"},
      {kGemv, "m.qzeros"},
      {kCompressed, "m.weight_packed"},
      {kCompressed, "m.weight_scale"},
      {kCompressed, "m.weight_shape"},
      {kCompressed, "m.weight_zero_point"}};
  for (const auto& [layout, name] : cases) {
    const char* wrong = name;
    EXPECT_THAT(Damaged(layout,
                        [&](StoredTensors& tensors) {
                          const Shape shape = tensors.Find(wrong)->shape;
                          tensors.SetBytes(
                              wrong, DType::kI16, shape,
                              std::vector<std::byte>(2 * shape.elements()));
                        }),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(name), HasSubstr("i16"))));
  }
}

TEST_F(OpenModuleTest, RejectsGroupIndicesThatAreNoPermutation) {
  for (const CodeLayout layout : {kGptq, kCompressed}) {
    const char* name = layout == kGptq ? "m.g_idx" : "m.weight_g_idx";
    for (const int32_t group : {-1, 2, 1 << 30, -(1 << 30)}) {
      std::vector<int32_t> g_idx(64);
      for (int i = 0; i < 64; ++i) g_idx[i] = i / 32;
      g_idx[5] = group;
      EXPECT_THAT(
          Damaged(layout, [&](StoredTensors& t) { t.Set(name, {64}, g_idx); }),
          StatusIs(absl::StatusCode::kInvalidArgument,
                   AllOf(HasSubstr(name), HasSubstr("input 5"),
                         HasSubstr("there are 2 groups"))));
      g_idx[5] = 1;  // 31 of one group, 33 of the other
      EXPECT_THAT(
          Damaged(layout, [&](StoredTensors& t) { t.Set(name, {64}, g_idx); }),
          StatusIs(absl::StatusCode::kInvalidArgument,
                   AllOf(HasSubstr(name), HasSubstr("groups of 32"),
                         HasSubstr("not a permutation"))));
    }
  }
}

TEST_F(OpenModuleTest, AGroupIndexOfMinusOnesIsNone) {
  EXPECT_THAT(Damaged(kCompressed,
                      [](StoredTensors& tensors) {
                        tensors.Set("m.weight_g_idx", {64},
                                    std::vector<int32_t>(64, -1));
                      }),
              IsOk());
}

TEST_F(OpenModuleTest, RejectsSizesThatNoFileHolds) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  for (const std::vector<int64_t>& sizes :
       std::vector<std::vector<int64_t>>{{0, 64},
                                         {32, 0},
                                         {-1, 64},
                                         {32, -64},
                                         {kMax, kMax},
                                         {kMax, 1},
                                         {1, kMax},
                                         {int64_t{1} << 31, 1},
                                         {(int64_t{1} << 31) - 1, 64},
                                         {32, 65},
                                         {32, 56},
                                         {33, 64}}) {
    EXPECT_THAT(Damaged(kCompressed,
                        [&](StoredTensors& tensors) {
                          tensors.Set("m.weight_shape", {2}, sizes);
                        }),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("stored: tensor m.weight_")))
        << sizes[0] << " " << sizes[1];
  }
}

TEST_F(OpenModuleTest, GemvHasTheGroupsOfItsKernel) {
  EXPECT_THAT(Damaged(kGemv,
                      [&](StoredTensors&) {
                        settings_.common = {4, 8, false};
                      }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("groups of 16, 32, 64")));
}

}  // namespace
}  // namespace nibble
