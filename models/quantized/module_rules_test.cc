#include "models/quantized/module_rules.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using Match = ModuleRules::Match;
using testing::IsOk;
using testing::StatusIs;

constexpr char kDown[] = "model.layers.1.mlp.down_proj";

// The widths of the forms that the rules give, which stand for them.
std::optional<std::vector<int>> Bits(const ModuleRules& rules,
                                     absl::string_view module) {
  const auto forms = rules.FormsOf(module);
  if (!forms) return std::nullopt;
  std::vector<int> bits;
  for (const ModuleForm& form : *forms) bits.push_back(form.bits);
  return bits;
}

ModuleRules::Rule Rule(const std::string& text, Match match, int bits) {
  return {text, match,
          bits == 16 ? std::nullopt
                     : std::optional<ModuleForm>(ModuleForm{bits, 32, true})};
}

TEST(ModuleRulesTest, EachKindOfRuleMatchesWhereItShould) {
  ModuleRules rules;
  ASSERT_THAT(rules.Add(Rule("lm_head", Match::kName, 2)), IsOk());
  ASSERT_THAT(rules.Add(Rule(".*\\.down_proj", Match::kStart, 3)), IsOk());
  ASSERT_THAT(rules.Add(Rule("q_proj", Match::kAnywhere, 8)), IsOk());
  EXPECT_THAT(Bits(rules, "lm_head"), Optional(ElementsAre(2)));
  EXPECT_EQ(Bits(rules, "lm_head2"), std::nullopt);
  EXPECT_EQ(Bits(rules, "model.lm_head"), std::nullopt);
  EXPECT_THAT(Bits(rules, kDown), Optional(ElementsAre(3)));
  EXPECT_EQ(Bits(rules, "down_proj"), std::nullopt);
  EXPECT_THAT(Bits(rules, "model.layers.1.self_attn.q_proj"),
              Optional(ElementsAre(8)));
  EXPECT_EQ(Bits(rules, ""), std::nullopt);
}

TEST(ModuleRulesTest, ANameStandsBeforeExpressions) {
  ModuleRules rules;
  ASSERT_THAT(rules.Add(Rule("down", Match::kAnywhere, 8)), IsOk());
  ASSERT_THAT(rules.Add(Rule(kDown, Match::kAnywhere, 2)), IsOk());
  EXPECT_THAT(Bits(rules, kDown), Optional(ElementsAre(2, 8)));
}

TEST(ModuleRulesTest, ARuleMayLeaveModulesInFloatingPoint) {
  ModuleRules rules;
  ASSERT_THAT(rules.Add(Rule("down", Match::kAnywhere, 16)), IsOk());
  EXPECT_THAT(Bits(rules, kDown), Optional(ElementsAre()));
  ASSERT_THAT(rules.Add(Rule("model", Match::kStart, 4)), IsOk());
  EXPECT_THAT(Bits(rules, kDown), Optional(ElementsAre(4)));
}

TEST(ModuleRulesTest, RejectsExpressionsThatItCannotRead) {
  ModuleRules rules;
  for (const char* text : {"(", "(?!down).*", "a{1001}"}) {
    EXPECT_THAT(rules.Add(Rule(text, Match::kStart, 4)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("regular expression")))
        << text;
  }
  // A name may hold anything.
  EXPECT_THAT(rules.Add(Rule("(", Match::kName, 4)), IsOk());
}

TEST(ModuleRulesTest, RejectsMoreRulesThanItsLimit) {
  ModuleRules rules;
  absl::Status status;
  int added = 0;
  while (status.ok() && added < 100000) {
    status = rules.Add(Rule(absl::StrCat("m", added++), Match::kName, 4));
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                               HasSubstr("above 4096")));
}

}  // namespace
}  // namespace nibble
