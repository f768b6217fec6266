// Calibration texts that are read or refused, and the windows cut from them.

#include <cstdint>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/calibration/digest.h"
#include "quantization/calibration/text.h"
#include "quantization/calibration/windows.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::WriteText;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class CalibrationTextTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = ::testing::TempDir() + "/calibration_" + name;
    WriteText(path, text);
    return path;
  }

  void ExpectRefused(const std::string& name, const std::string& text,
                     const std::string& what) {
    const std::string path = Write(name, text);
    EXPECT_THAT(ReadCalibrationText(path),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(path), HasSubstr(what))))
        << name;
  }
};

TEST_F(CalibrationTextTest, ReadsPlainTextAsOneText) {
  const auto texts = ReadCalibrationText(Write("a.txt", "one\n\ntwo\n"));
  ASSERT_THAT(texts, IsOk());
  EXPECT_THAT(*texts, ElementsAre("one\n\ntwo\n"));
}

TEST_F(CalibrationTextTest, ReadsJsonLinesAndSkipsBlankOnes) {
  const auto texts = ReadCalibrationText(
      Write("a.jsonl",
            "{\"text\": \"one\\n\"}\n\n{\"id\": 3, \"text\": "
            "\"\\u00e9\"}\n{\"text\": \" \"}"));
  ASSERT_THAT(texts, IsOk());
  EXPECT_THAT(*texts, ElementsAre("one\n", "\xC3\xA9"));
}

TEST_F(CalibrationTextTest, DropsTheByteOrderMark) {
  const auto texts = ReadCalibrationText(Write("bom.txt", "\xEF\xBB\xBFone"));
  ASSERT_THAT(texts, IsOk());
  EXPECT_THAT(*texts, ElementsAre("one"));
}

TEST_F(CalibrationTextTest, RefusesFilesWithoutText) {
  ExpectRefused("empty.txt", "", "empty");
  ExpectRefused("blank.txt", " \n\t\n", "no text");
  ExpectRefused("blank.jsonl", "\n{\"text\": \"\"}\n", "no text");
}

TEST_F(CalibrationTextTest, RefusesBinaryAndOtherEncodings) {
  ExpectRefused("binary.txt", std::string("ab\0cd", 5), "zero byte (at 2)");
  ExpectRefused("latin.txt", "one\ncaf\xE9\nthree\n", "line 2 is not UTF-8");
  ExpectRefused("cut.txt", "one\ncaf\xC3", "line 2 is not UTF-8");
}

TEST_F(CalibrationTextTest, RefusesBrokenJsonLinesByNumber) {
  ExpectRefused("broken.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"\n",
                "line 2");
  ExpectRefused("array.jsonl", "[\"text\"]\n", "line 1");
  ExpectRefused("other.jsonl", "{\"content\": \"a\"}\n", "line 1");
  ExpectRefused("number.jsonl", "{\"text\": 3}\n", "line 1");
}

TEST_F(CalibrationTextTest, NamesTheMissingFile) {
  EXPECT_THAT(
      ReadCalibrationText("no/such/file.txt"),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("no/such/file.txt")));
}

TEST_F(CalibrationTextTest, ReadsTheFirstLinesOfHugeFiles) {
  const std::string line(1 << 20, 'a');
  std::string text;
  while (static_cast<int64_t>(text.size()) <= kMaxCalibrationBytes) {
    text += line + "\n";
  }
  const auto texts = ReadCalibrationText(Write("huge.txt", text));
  ASSERT_THAT(texts, IsOk());
  // The last line that ends within the limit is the last one read.
  const int64_t lines = kMaxCalibrationBytes / ((1 << 20) + 1);
  EXPECT_EQ((*texts)[0].size(), static_cast<size_t>(lines * ((1 << 20) + 1)));
}

std::vector<int32_t> Ids(int64_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(ChooseWindows, DrawsWholeWindowsWithoutOverlap) {
  const auto result = ChooseWindows(Ids(1000), {20, 16, 7, std::nullopt});
  ASSERT_THAT(result, IsOk());
  ASSERT_THAT(result->windows, SizeIs(20));
  std::set<int32_t> starts;
  for (const std::vector<int32_t>& window : result->windows) {
    ASSERT_THAT(window, SizeIs(16));
    EXPECT_EQ(window[0] % 16, 0);
    EXPECT_EQ(window[15], window[0] + 15);
    starts.insert(window[0]);
  }
  EXPECT_THAT(starts, SizeIs(20));
}

TEST(ChooseWindows, DependsOnTheSeedAlone) {
  const auto a = ChooseWindows(Ids(1000), {20, 16, 7, std::nullopt});
  const auto b = ChooseWindows(Ids(1000), {20, 16, 7, std::nullopt});
  const auto c = ChooseWindows(Ids(1000), {20, 16, 8, std::nullopt});
  EXPECT_EQ(a->windows, b->windows);
  EXPECT_EQ(a->digest, b->digest);
  EXPECT_NE(a->windows, c->windows);
  EXPECT_NE(a->digest, c->digest);
  EXPECT_THAT(a->digest, SizeIs(16));
}

TEST(ChooseWindows, PutsBosFirst) {
  const auto result = ChooseWindows(Ids(100), {3, 16, 1, 77});
  ASSERT_THAT(result, IsOk());
  for (const std::vector<int32_t>& window : result->windows) {
    ASSERT_THAT(window, SizeIs(16));
    EXPECT_EQ(window[0], 77);
    EXPECT_EQ(window[1] % 15, 0);
  }
}

TEST(ChooseWindows, TakesAllThatAShortTextHas) {
  const auto result = ChooseWindows(Ids(50), {128, 16, 1, std::nullopt});
  ASSERT_THAT(result, IsOk());
  EXPECT_THAT(result->windows, SizeIs(3));
  EXPECT_EQ(result->text_tokens, 50);
  EXPECT_EQ(result->tokens(), 48);
}

TEST(ChooseWindows, SaysHowMuchATooShortTextLacks) {
  EXPECT_THAT(ChooseWindows(Ids(15), {128, 16, 1, std::nullopt}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("has 15 tokens"),
                             HasSubstr("at least 16 tokens"),
                             HasSubstr("better of 2048"))));
}

TEST(ChooseWindows, RefusesSizesOutOfRange) {
  for (const int64_t samples : {int64_t{0}, int64_t{-1}, int64_t{1} << 40}) {
    EXPECT_THAT(
        ChooseWindows(Ids(50), {samples, 16, 1, std::nullopt}),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("samples")));
  }
  for (const int64_t length : {int64_t{1}, int64_t{-5}, int64_t{1} << 40}) {
    EXPECT_THAT(
        ChooseWindows(Ids(50), {8, length, 1, std::nullopt}),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("length")));
  }
}

TEST(DigestTest, TellsWhereTextsAreCut) {
  EXPECT_NE(Digest().Add("ab").Add("c").Hex(),
            Digest().Add("a").Add("bc").Hex());
  EXPECT_NE(Digest().Add(int64_t{1}).Hex(), Digest().Add(int64_t{256}).Hex());
  EXPECT_EQ(Digest().Add("ab").Hex(), Digest().Add("ab").Hex());
}

}  // namespace
}  // namespace nibble
