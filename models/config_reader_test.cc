#include "models/config_reader.h"

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

ConfigReader Reader(const std::string& text) {
  absl::StatusOr<ConfigReader> reader = ConfigReader::Parse(text, "c.json");
  EXPECT_TRUE(reader.ok()) << reader.status();
  return *std::move(reader);
}

// The error of reading "n" from {"n": `value`} as an integer from 1 to 10.
std::string IntError(const std::string& value) {
  ConfigReader reader = Reader(absl::StrCat("{\"n\": ", value, "}"));
  const int64_t n = reader.Int("n", {1, 10});
  EXPECT_EQ(n, 1);
  EXPECT_FALSE(reader.status().ok()) << value;
  EXPECT_THAT(std::string(reader.status().message()),
              AllOf(HasSubstr("c.json"), HasSubstr("\"n\""),
                    HasSubstr("an integer from 1 to 10")));
  return std::string(reader.status().message());
}

TEST(ConfigReaderTest, ReadsEveryKindOfValue) {
  ConfigReader reader = Reader(
      R"({"i": 7, "f": 0.5, "whole": 3, "b": true, "s": "silu", "null": null,
          "list": ["a", "b"], "one": 2, "many": [3, 4],
          "object": {"deep": 5}})");
  EXPECT_EQ(reader.Int("i", {1, 10}), 7);
  EXPECT_EQ(reader.IntOr("absent", 4, {1, 10}), 4);
  EXPECT_EQ(reader.IntOr("null", 4, {1, 10}), 4);
  EXPECT_EQ(reader.FloatOr("f", 0.0, {0.0, 1.0}), 0.5);
  EXPECT_EQ(reader.FloatOr("whole", 0.0, {0.0, 9.0}), 3.0);
  EXPECT_TRUE(reader.BoolOr("b", false));
  EXPECT_EQ(reader.StringOr("s", ""), "silu");
  EXPECT_THAT(reader.StringList("list"), ElementsAre("a", "b"));
  EXPECT_THAT(*reader.IntOrList("one", {0, 9}), ElementsAre(2));
  EXPECT_THAT(*reader.IntOrList("many", {0, 9}), ElementsAre(3, 4));
  EXPECT_FALSE(reader.IntOrList("null", {0, 9}).has_value());
  EXPECT_EQ(reader.Object("object").Int("deep", {1, 9}), 5);
  EXPECT_FALSE(reader.Object("absent").Has("deep"));
  EXPECT_TRUE(reader.IsNull("null"));
  EXPECT_FALSE(reader.Has("null"));
  EXPECT_FALSE(reader.IsNull("absent"));
  EXPECT_TRUE(reader.status().ok()) << reader.status();
}

TEST(ConfigReaderTest, MissingRequiredKeyIsNamed) {
  ConfigReader reader = Reader("{}");
  reader.Int("hidden_size", {1, 10});
  EXPECT_THAT(reader.status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("c.json: \"hidden_size\" is missing")));
}

TEST(ConfigReaderTest, RejectsNumberAsString) {
  EXPECT_THAT(IntError("\"8\""), HasSubstr("the string \"8\""));
}

TEST(ConfigReaderTest, RejectsZeroNegativeHugeAndFractions) {
  EXPECT_THAT(IntError("0"), HasSubstr("is 0"));
  EXPECT_THAT(IntError("-3"), HasSubstr("is -3"));
  EXPECT_THAT(IntError("11"), HasSubstr("is 11"));
  EXPECT_THAT(IntError("2.5"), HasSubstr("is 2.5"));
  EXPECT_THAT(IntError("8.0"), HasSubstr("is 8.0"));
  EXPECT_THAT(IntError("1e30"), HasSubstr("is 1e+30"));
  EXPECT_THAT(IntError("9223372036854775808"),
              HasSubstr("9223372036854775808"));
  EXPECT_THAT(IntError("18446744073709551617"), HasSubstr("1.844"));
  EXPECT_THAT(IntError("-9223372036854775809"), HasSubstr("-9.2233"));
}

TEST(ConfigReaderTest, RejectsOtherTypes) {
  EXPECT_THAT(IntError("true"), HasSubstr("is true"));
  EXPECT_THAT(IntError("[8]"), HasSubstr("an array"));
  EXPECT_THAT(IntError("{}"), HasSubstr("an object"));
}

TEST(ConfigReaderTest, RejectsFloatOutOfRange) {
  for (const char* value : {"-1", "1e400", "\"0.5\"", "2"}) {
    absl::StatusOr<ConfigReader> parsed =
        ConfigReader::Parse(absl::StrCat("{\"eps\": ", value, "}"), "c.json");
    if (!parsed.ok()) continue;  // 1e400 does not parse
    EXPECT_EQ(parsed->FloatOr("eps", 0.25, {0.0, 1.0}), 0.25) << value;
    EXPECT_THAT(parsed->status(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("a number from 0 to 1")))
        << value;
  }
}

TEST(ConfigReaderTest, KeepsTheFirstProblem) {
  ConfigReader reader = Reader(R"({"a": "x", "b": "y"})");
  reader.Int("a", {1, 2});
  reader.BoolOr("b", false);
  reader.Fail("c", "is wrong");
  EXPECT_THAT(std::string(reader.status().message()), HasSubstr("\"a\""));
}

TEST(ConfigReaderTest, RejectsWrongTypeForBoolStringListAndObject) {
  ConfigReader a = Reader(R"({"k": 1})");
  EXPECT_FALSE(a.BoolOr("k", false));
  EXPECT_FALSE(a.status().ok());
  ConfigReader b = Reader(R"({"k": 1})");
  EXPECT_EQ(b.StringOr("k", "d"), "d");
  EXPECT_FALSE(b.status().ok());
  ConfigReader c = Reader(R"({"k": ["a", 1]})");
  EXPECT_TRUE(c.StringList("k").empty());
  EXPECT_FALSE(c.status().ok());
  ConfigReader d = Reader(R"({"k": 1})");
  EXPECT_FALSE(d.Object("k").Has("x"));
  EXPECT_FALSE(d.status().ok());
  ConfigReader e = Reader(R"({"k": [1, "2"]})");
  EXPECT_FALSE(e.IntOrList("k", {0, 9}).has_value());
  EXPECT_FALSE(e.status().ok());
}

TEST(ConfigReaderTest, LongValuesAreCutInMessages) {
  const std::string message =
      IntError(absl::StrCat("\"", std::string(100000, 'x'), "\""));
  EXPECT_LT(message.size(), 200u);
}

TEST(ConfigReaderTest, RejectsTextThatIsNotAnObject) {
  for (const char* text : {"", "{", "[1]", "3", "{\"a\": 1} x", "{\"a\": NaN}",
                           "{\"a\": \"\xff\"}"}) {
    EXPECT_THAT(
        ConfigReader::Parse(text, "c.json"),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("c.json")))
        << text;
  }
}

TEST(ConfigReaderTest, SurvivesDeepNesting) {
  const int depth = 1000000;
  EXPECT_FALSE(ConfigReader::Parse(std::string(depth, '['), "c.json").ok());
  const std::string deep = absl::StrCat("{\"a\": ", std::string(depth, '['),
                                        std::string(depth, ']'), "}");
  ConfigReader reader = Reader(deep);
  EXPECT_EQ(reader.IntOr("a", 1, {1, 10}), 1);
  EXPECT_FALSE(reader.status().ok());
}

TEST(ConfigReaderTest, RejectsFilesThatCannotBeRead) {
  const std::string dir = ::testing::TempDir() + "/config_reader_test";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  EXPECT_THAT(ConfigReader::ReadFile(dir + "/none.json"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.json")));
  EXPECT_THAT(
      ConfigReader::ReadFile(dir),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("regular file")));
  ASSERT_EQ(mkfifo((dir + "/fifo").c_str(), 0600), 0);
  EXPECT_THAT(
      ConfigReader::ReadFile(dir + "/fifo"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("regular file")));
  testing::WriteText(dir + "/empty.json", "");
  EXPECT_THAT(ConfigReader::ReadFile(dir + "/empty.json"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("JSON")));
  std::filesystem::create_symlink(dir + "/loop", dir + "/loop");
  EXPECT_FALSE(ConfigReader::ReadFile(dir + "/loop").ok());
  testing::WriteText(dir + "/large.json", "");
  std::filesystem::resize_file(dir + "/large.json", (16 << 20) + 1);
  EXPECT_THAT(
      ConfigReader::ReadFile(dir + "/large.json"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too large")));
}

}  // namespace
}  // namespace nibble
