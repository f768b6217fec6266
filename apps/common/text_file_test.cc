#include "apps/common/text_file.h"

#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string Write(absl::string_view name, absl::string_view content) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(ReadTextFile, KeepsEveryByte) {
  const std::string content("a\r\n\0\xff b", 7);
  EXPECT_EQ(*ReadTextFile(Write("bytes", content), 100), content);
  EXPECT_EQ(*ReadTextFile(Write("empty", ""), 100), "");
}

TEST(ReadTextFile, NamesWhatItCannotRead) {
  EXPECT_THAT(ReadTextFile("no/such/file", 100).status().message(),
              HasSubstr("no/such/file"));
  EXPECT_THAT(ReadTextFile(::testing::TempDir(), 100).status().message(),
              HasSubstr("is a folder"));
}

TEST(ReadTextFile, StopsAtTheLimit) {
  const std::string path = Write("ten", "0123456789");
  EXPECT_TRUE(ReadTextFile(path, 10).ok());
  EXPECT_THAT(ReadTextFile(path, 9).status().message(), HasSubstr("9 bytes"));
  // An endless file ends at the limit too.
  EXPECT_FALSE(ReadTextFile("/dev/zero", 1 << 20).ok());
}

TEST(ForEachLine, SkipsBlankLinesButCountsThem) {
  const std::string path = Write("lines", "one\n\n  \ntwo\nthree");
  std::vector<std::string> lines, places;
  const auto collect = [&](absl::string_view line, absl::string_view where) {
    lines.emplace_back(line);
    places.emplace_back(where);
    return absl::OkStatus();
  };
  ASSERT_TRUE(ForEachLine(path, 100, collect).ok());
  EXPECT_THAT(lines, ElementsAre("one", "two", "three"));
  EXPECT_THAT(places,
              ElementsAre(EndsWith(":1"), EndsWith(":4"), EndsWith(":5")));
}

TEST(ForEachLine, StopsAtTheFirstError) {
  const std::string path = Write("stop", "one\ntwo\nthree\n");
  int calls = 0;
  const auto fail_on_two = [&](absl::string_view line, absl::string_view) {
    ++calls;
    return line == "two" ? absl::InvalidArgumentError("two") : absl::OkStatus();
  };
  EXPECT_EQ(ForEachLine(path, 100, fail_on_two).message(), "two");
  EXPECT_EQ(calls, 2);
}

TEST(ForEachLine, RefusesALineAboveTheLimit) {
  const auto accept = [](absl::string_view, absl::string_view) {
    return absl::OkStatus();
  };
  const std::string path = Write("long", "ok\n0123456789\n");
  EXPECT_THAT(ForEachLine(path, 9, accept).message(),
              HasSubstr("long:2: longer than the limit"));
  EXPECT_FALSE(ForEachLine("/dev/zero", 1 << 20, accept).ok());
}

}  // namespace
}  // namespace nibble
