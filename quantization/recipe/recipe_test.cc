#include "quantization/recipe/recipe.h"

#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/round_to_nearest.h"
#include "tensor/coded_matrix.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

Recipe Parse(const std::string& text) {
  auto recipe = ParseRecipe(text, "r.textproto");
  EXPECT_THAT(recipe, IsOk());
  return recipe.ok() ? *recipe : Recipe();
}

TEST(Recipe, FillsTheDefaultsOfItsMethodsOnly) {
  const Recipe recipe = Parse("transform: AWQ rounding: GPTQ");
  EXPECT_EQ(recipe.grid().bits(), 4);
  EXPECT_EQ(recipe.grid().group_size(), 128);
  EXPECT_TRUE(recipe.grid().has_offset());
  EXPECT_TRUE(recipe.gptq().has_damping());
  EXPECT_TRUE(recipe.gptq().true_sequential());
  EXPECT_EQ(recipe.calibration().samples(), 128);
  EXPECT_FALSE(recipe.awq().clip());
  EXPECT_TRUE(recipe.awq().has_scale_steps());
  EXPECT_FALSE(recipe.has_round_to_nearest());
  EXPECT_FALSE(recipe.has_signround());
  EXPECT_FALSE(recipe.has_teq());
  EXPECT_TRUE(recipe.has_head_bits());
}

TEST(Recipe, ClipsForAwqOnlyWhereNothingElseChoosesTheRange) {
  EXPECT_TRUE(Parse("transform: AWQ").awq().clip());
  EXPECT_FALSE(
      Parse("transform: AWQ round_to_nearest { search: true }").awq().clip());
  EXPECT_FALSE(Parse("transform: AWQ rounding: SIGNROUND").awq().clip());
}

TEST(Recipe, TunesByOneOverTheIterationsUnlessTold) {
  EXPECT_EQ(Parse("rounding: SIGNROUND").signround().learning_rate(), 1 / 200.);
  EXPECT_EQ(Parse("rounding: SIGNROUND signround { iterations: 50 }")
                .signround()
                .learning_rate(),
            1 / 50.);
  const auto teq_rate = [](const char* rounding, const char* teq) {
    return Parse(std::string("transform: TEQ ") + rounding + teq)
        .teq()
        .learning_rate();
  };
  EXPECT_EQ(teq_rate("", ""), 0.001);
  EXPECT_EQ(teq_rate("rounding: GPTQ ", ""), 2 / 200.);
  EXPECT_EQ(teq_rate("rounding: SIGNROUND ", ""), 2 / 200.);
  EXPECT_EQ(teq_rate("rounding: GPTQ ", "teq { iterations: 20 }"), 0.03);
  EXPECT_EQ(teq_rate("rounding: GPTQ ", "teq { learning_rate: 0.5 }"), 0.5);
  EXPECT_EQ(Parse("rounding: SIGNROUND signround { learning_rate: 0.25 }")
                .signround()
                .learning_rate(),
            0.25);
}

TEST(Recipe, HoldsTheSettingsOfGptqWhereTrainingStartsWithIt) {
  const Recipe recipe =
      Parse("rounding: SIGNROUND gptq { damping: 0.5 refinements: 0 }");
  EXPECT_EQ(recipe.gptq().damping(), 0.5);
  EXPECT_EQ(recipe.gptq().refinements(), 0);
  EXPECT_TRUE(recipe.gptq().has_search());
  EXPECT_FALSE(Parse("rounding: SIGNROUND signround { start_with_gptq: false }")
                   .has_gptq());
}

TEST(Recipe, EightBitsAreSymmetricByDefault) {
  EXPECT_EQ(Parse("grid { bits: 8 }").grid().offset(), Recipe::SYMMETRIC);
}

TEST(Recipe, TextIsReadBackAsTheSameRecipe) {
  for (const char* text :
       {"rounding: NEAREST", "transform: AWQ",
        "transform: TEQ rounding: GPTQ gptq { damping: 0.1 act_order: true }",
        "rounding: SIGNROUND signround { iterations: 7 }",
        "rounding: SIGNROUND signround { start_with_gptq: false }",
        "rounding: SIGNROUND gptq { act_order: true static_groups: true }",
        "grid { group_size: -1 offset: MINIMUMS } head_bits: 8 "
        "layers { pattern: 'down\\\\.\"' bits: 8 } "
        "layers { pattern: '\\\\d' group_size: 32 }"}) {
    const Recipe recipe = Parse(text);
    const std::string written = RecipeText(recipe);
    EXPECT_EQ(RecipeText(Parse(written)), written) << text;
    EXPECT_EQ(Parse(written).SerializeAsString(), recipe.SerializeAsString());
    NIBBLE_ASSERT_OK_AND_ASSIGN(const Recipe again, CompleteRecipe(recipe));
    EXPECT_EQ(again.SerializeAsString(), recipe.SerializeAsString());
  }
}

TEST(Recipe, NamesSayMethodGridAndExceptions) {
  const auto name = [](const char* text) { return RecipeName(Parse(text)); };
  EXPECT_EQ(name("rounding: NEAREST"), "rtn int4 g128 zeros");
  EXPECT_EQ(name("transform: AWQ rounding: GPTQ grid { group_size: 32 }"),
            "awq+gptq int4 g32 zeros");
  EXPECT_EQ(name("transform: TEQ grid { offset: SYMMETRIC }"),
            "teq int4 g128 symmetric");
  EXPECT_EQ(name("transform: TEQ rounding: GPTQ teq { iterations: 20 }"),
            "teq 20+gptq int4 g128 zeros");
  EXPECT_EQ(name("round_to_nearest { search: true importance: true } "
                 "grid { group_size: -1 offset: MINIMUMS }"),
            "rtn importance int4 row minimums");
  EXPECT_EQ(name("rounding: GPTQ gptq { act_order: true static_groups: true "
                 "asymmetric_correction: 0.25 } grid { bits: 3 }"),
            "gptq act-order static correction-0.25 int3 g128 zeros");
  EXPECT_EQ(name("rounding: SIGNROUND signround { iterations: 50 } "
                 "head_bits: 8 layers { pattern: 'x' bits: 16 }"),
            "signround 50 int4 g128 zeros, head int8, 1 exception");
}

TEST(Recipe, ErrorsNameFileLineAndField) {
  const auto refused = [](const char* text, const char* start,
                          const char* reason) {
    EXPECT_THAT(ParseRecipe(text, "r.textproto"),
                StatusIs(kInvalid, AllOf(HasSubstr(start), HasSubstr(reason))))
        << text;
  };
  // What the grammar refuses.
  refused("\nrouding: GPTQ", "r.textproto:2: ", "rouding");
  refused("rounding: GTPQ", "r.textproto:1: ", "GTPQ");
  refused("grid { bits: four }", "r.textproto:1: ", "integer");
  refused("grid { bits: 4", "r.textproto:1: ", "");
  refused("grid { bits: 4 }\ngrid { bits: 3 }", "r.textproto:2: ", "grid");
  refused(" \n", "r.textproto: ", "is empty");
  // Values that mean nothing.
  refused("grid {\n bits: 5\n}", "r.textproto:2: grid.bits: ", "2, 3, 4, 8");
  refused("grid { group_size: 48 }", ":1: grid.group_size: ", "multiple of 32");
  refused("grid { group_size: 0 }", ":1: grid.group_size: ", "-1");
  refused("grid { group_size: -32 }", ":1: grid.group_size: ", "-32");
  refused("\n\nhead_bits: 4", ":3: head_bits: ", "8, 16");
  refused("rounding: GPTQ\ngptq { damping: nan }", ":2: gptq.damping: ", "nan");
  refused("rounding: GPTQ\ngptq { damping: -1 }", ":2: gptq.damping: ", "-1");
  refused("rounding: GPTQ gptq { block: 0 }", ": gptq.block: ", "is 0");
  refused("rounding: SIGNROUND signround { iterations: 0 }",
          ": signround.iterations: ", "is 0");
  refused("transform: TEQ teq { learning_rate: inf }",
          ": teq.learning_rate: ", "inf");
  refused("transform: AWQ awq { scale_steps: 0 }",
          ": awq.scale_steps: ", "is 0");
  refused("transform: AWQ\ncalibration {\n samples: 0 }",
          ":3: calibration.samples: ", "is 0");
  refused("transform: AWQ calibration { length: -4 }",
          ": calibration.length: ", "-4");
  refused("transform: AWQ calibration { digest: '12' }",
          ": calibration.digest: ", "16 hexadecimal");
  // Contradictions.
  refused("rounding: NEAREST\ngptq { act_order: true }",
          ":2: gptq: ", "rounding: GPTQ");
  refused("rounding: GPTQ\nround_to_nearest { search: true }",
          ":2: round_to_nearest: ", "rounding: NEAREST");
  refused("signround {}", ":1: signround: ", "SIGNROUND");
  refused("transform: TEQ awq { clip: true }", ": awq: ", "transform: AWQ");
  refused("transform: AWQ teq {}", ": teq: ", "transform: TEQ");
  refused("rounding: SIGNROUND signround { start_with_gptq: false }\ngptq {}",
          ":2: gptq: ", "starts with it");
  refused("rounding: SIGNROUND\ngptq { act_order: true }",
          ":2: gptq.act_order: ", "static_groups");
  refused("calibration { samples: 4 }", ": calibration: ", "reads text");
  refused("round_to_nearest { importance: true }",
          ": round_to_nearest.importance: ", "search: true");
  refused("transform: AWQ rounding: GPTQ awq { clip: true }",
          ": awq.clip: ", "NEAREST");
  refused("transform: AWQ awq { clip: true } round_to_nearest { search: true }",
          ": awq.clip: ", "contradicts");
  refused("grid { bits: 8\n offset: ZEROS }",
          ":2: grid.offset: ", "always SYMMETRIC");
}

TEST(Recipe, ErrorsNameTheExceptionAndItsLine) {
  const std::string first = "layers { pattern: 'a' bits: 8 }\n";
  const auto refused = [&](const char* second, const char* start,
                           const char* reason) {
    EXPECT_THAT(ParseRecipe(first + second, "r"),
                StatusIs(kInvalid, AllOf(HasSubstr(start), HasSubstr(reason))))
        << second;
  };
  refused("layers { bits: 8 }", "layers[1].pattern: ", "needed");
  refused("layers { pattern: 'a' }", "r:2: layers[1].pattern: ", "nothing");
  refused("layers { pattern: 'a('\n bits: 8 }",
          "r:2: layers[1].pattern: ", "missing");
  refused("layers { pattern: 'a'\n bits: 7 }", "r:3: layers[1].bits: ", "16");
  refused("layers { pattern: 'a' bits: 16 group_size: 32 }",
          "r:2: layers[1].group_size: ", "bits: 16");
  refused("layers { pattern: 'a' bits: 8 offset: MINIMUMS }",
          "r:2: layers[1].offset: ", "always SYMMETRIC");
}

TEST(Recipe, ChecksRecipesMadeInMemory) {
  Recipe recipe;
  recipe.mutable_grid()->set_bits(8);
  recipe.mutable_grid()->set_offset(Recipe::ZEROS);
  EXPECT_THAT(CompleteRecipe(recipe),
              StatusIs(kInvalid, HasSubstr("recipe: grid.offset: ")));
}

TEST(Recipe, ReadsFilesAndNamesThemInErrors) {
  const std::string path = ::testing::TempDir() + "/some.textproto";
  std::ofstream(path) << "rounding: GPTQ\n# a comment\ngrid { bits: 3 }\n";
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Recipe recipe, ReadRecipe(path));
  EXPECT_EQ(RecipeName(recipe), "gptq int3 g128 zeros");
  std::ofstream(path) << "\x01\xff\x00binary";
  EXPECT_THAT(ReadRecipe(path), StatusIs(kInvalid, HasSubstr(path + ":1: ")));
  EXPECT_THAT(ReadRecipe(path + "x"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(path + "x")));
}

TEST(Recipes, AreReadInTheirOrderWithTheCalibrationGiven) {
  Recipe::Calibration calibration;
  calibration.set_samples(9);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const std::vector<Recipe> recipes,
      ParseRecipes("recipes { rounding: GPTQ }\n"
                   "recipes { grid { group_size: 32 } }\n"
                   "recipes { transform: AWQ calibration { samples: 5 } }",
                   "list", calibration));
  ASSERT_EQ(recipes.size(), 3u);
  EXPECT_EQ(RecipeName(recipes[1]), "rtn int4 g32 zeros");
  EXPECT_EQ(recipes[0].calibration().samples(), 9);
  EXPECT_EQ(recipes[0].calibration().length(), 512);
  EXPECT_FALSE(recipes[1].has_calibration());
  EXPECT_EQ(recipes[2].calibration().samples(), 5);
}

TEST(Recipes, ErrorsNameTheLine) {
  const Recipe::Calibration calibration;
  EXPECT_THAT(
      ParseRecipes("recipes { rounding: GPTQ }\nrecipes {\n head_bits: 5 }",
                   "list", calibration),
      StatusIs(kInvalid, HasSubstr("list:3: head_bits: is 5")));
  EXPECT_THAT(ParseRecipes("rounding: GPTQ", "list", calibration),
              StatusIs(kInvalid, HasSubstr("list:1: ")));
  EXPECT_THAT(ParseRecipes("# none", "list", calibration),
              StatusIs(kInvalid, HasSubstr("no recipes")));
}

TEST(Recipe, RunsGptqAlsoBeforeTraining) {
  EXPECT_FALSE(RunsGptq(Parse("transform: AWQ")));
  EXPECT_TRUE(RunsGptq(Parse("transform: AWQ rounding: GPTQ")));
  EXPECT_TRUE(RunsGptq(Parse("rounding: SIGNROUND")));
  EXPECT_FALSE(RunsGptq(
      Parse("rounding: SIGNROUND signround { start_with_gptq: false }")));
}

TEST(Recipe, NeedsCalibrationWhereAMethodReadsText) {
  EXPECT_FALSE(NeedsCalibration(Parse("round_to_nearest { search: true }")));
  EXPECT_TRUE(NeedsCalibration(
      Parse("round_to_nearest { search: true importance: true }")));
  EXPECT_TRUE(NeedsCalibration(Parse("transform: TEQ")));
  EXPECT_TRUE(NeedsCalibration(Parse("rounding: GPTQ")));
}

MatrixGrids Grids(const std::string& text) {
  auto grids = MatrixGrids::Create(Parse(text));
  EXPECT_THAT(grids, IsOk());
  return *std::move(grids);
}

TEST(MatrixGrids, LaterExceptionsWinFieldByField) {
  const MatrixGrids grids = Grids(
      "grid { group_size: -1 offset: MINIMUMS } "
      "layers { pattern: 'down' bits: 3 group_size: 64 } "
      "layers { pattern: '^layers\\\\.1\\\\.' offset: SYMMETRIC } "
      "layers { pattern: '2\\\\.down' bits: 8 } "
      "layers { pattern: '3\\\\.' bits: 16 }");
  const auto qkv = grids.Find("layers.0.qkv.weight");
  ASSERT_TRUE(qkv.has_value());
  EXPECT_EQ(qkv->spec.bits, 4);
  EXPECT_EQ(qkv->spec.group_size, kWholeRow);
  EXPECT_EQ(qkv->spec.offset, CodeOffset::kMinimums);
  EXPECT_FALSE(qkv->nearest);
  const auto down = grids.Find("layers.1.down.weight");
  ASSERT_TRUE(down.has_value());
  EXPECT_EQ(down->spec.bits, 3);
  EXPECT_EQ(down->spec.group_size, 64);
  EXPECT_EQ(down->spec.offset, CodeOffset::kSymmetric);
  const auto int8 = grids.Find("layers.2.down.weight");
  ASSERT_TRUE(int8.has_value());
  EXPECT_EQ(int8->spec.bits, 8);
  EXPECT_EQ(int8->spec.group_size, 64);
  EXPECT_EQ(int8->spec.offset, CodeOffset::kSymmetric);
  EXPECT_TRUE(int8->nearest);
  EXPECT_FALSE(grids.Find("layers.3.down.weight").has_value());
}

TEST(MatrixGrids, TheHeadHasItsOwnSetting) {
  const char* all = "layers { pattern: 'weight' bits: 4 group_size: 32 }";
  EXPECT_FALSE(Grids(all).Find("head.weight").has_value());
  const auto head =
      Grids(std::string(all) + " head_bits: 8").Find("head.weight");
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->spec.bits, 8);
  EXPECT_EQ(head->spec.group_size, kHeadGroupSize);
  EXPECT_EQ(head->spec.offset, CodeOffset::kSymmetric);
  EXPECT_TRUE(head->nearest);
}

TEST(MatrixGrids, RefusesPatternsThatMatchNothing) {
  const std::vector<std::string> names = {"layers.0.down.weight",
                                          "head.weight"};
  EXPECT_THAT(Grids("layers { pattern: 'down' bits: 8 }").CheckPatterns(names),
              IsOk());
  for (const char* pattern : {"layers\\\\.1", "head"}) {
    EXPECT_THAT(
        Grids(std::string("layers { pattern: '") + pattern + "' bits: 8 }")
            .CheckPatterns(names),
        StatusIs(kInvalid, HasSubstr("matches no matrix")));
  }
}

}  // namespace
}  // namespace nibble
