#include "apps/common/json.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(JsonLine, KeepsTheOrderOfKeysOnOneLine) {
  EXPECT_EQ(JsonLine({{"b", 1}, {"a", "x\ny"}}), R"({"b":1,"a":"x\ny"})");
}

TEST(JsonLine, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(JsonLine({{"text", "a\xff"}}), "{\"text\":\"a\xEF\xBF\xBD\"}");
}

TEST(ParseJsonObject, RefusesOtherThanObjectsAndSaysWhere) {
  for (absl::string_view line : {"", "{", "[1]", "1", "{} {}", "{\"a\":}"}) {
    const absl::StatusOr<Json> object = ParseJsonObject(line, "in.jsonl:4");
    ASSERT_EQ(object.status().code(), absl::StatusCode::kInvalidArgument)
        << line;
    EXPECT_THAT(object.status().message(), HasSubstr("in.jsonl:4"));
  }
}

TEST(ParseJsonObject, SurvivesDeepNesting) {
  const std::string deep(1000000, '[');
  EXPECT_FALSE(ParseJsonObject(deep, "in").ok());
}

TEST(JsonTokenIds, ReadsIds) {
  const Json object = *ParseJsonObject(R"({"ids":[1,0,2147483647]})", "in");
  EXPECT_THAT(*JsonTokenIds(object, "ids", "in"),
              ElementsAre(1, 0, 2147483647));
}

TEST(JsonTokenIds, RefusesWhatIsNoListOfIds) {
  for (absl::string_view line :
       {R"({"ids":1})", R"({"ids":["1"]})", R"({"ids":[-1]})",
        R"({"ids":[1.0]})", R"({"ids":[2147483648]})", R"({"ids":null})"}) {
    const Json object = *ParseJsonObject(line, "in:1");
    const absl::StatusOr<std::vector<int32_t>> ids =
        JsonTokenIds(object, "ids", "in:1");
    ASSERT_FALSE(ids.ok()) << line;
    EXPECT_THAT(ids.status().message(), HasSubstr("in:1: \"ids\""));
  }
}

TEST(JsonString, RefusesOtherThanStrings) {
  const Json object = *ParseJsonObject(R"({"a":"x","b":2})", "in:1");
  EXPECT_EQ(*JsonString(object, "a", "in:1"), "x");
  EXPECT_THAT(JsonString(object, "b", "in:1").status().message(),
              HasSubstr("in:1: \"b\" must be a string"));
}

}  // namespace
}  // namespace nibble
