#include "apps/common/progress_bar.h"

#include <cstdio>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string Contents(std::FILE* file) {
  std::rewind(file);
  std::string text;
  for (int c; (c = std::getc(file)) != EOF;) text.push_back(c);
  return text;
}

TEST(ProgressBar, IsSilentWhereThereIsNoTerminal) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  ProgressBar bar("loading", file);
  bar.Update(1, 2);
  bar.Finish();
  EXPECT_EQ(Contents(file), "");
  std::fclose(file);
}

TEST(ProgressBar, DrawsTheShareAndErasesItself) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  ProgressBar bar = ProgressBar::AlwaysDrawn("loading", file);
  bar.Update(1, 2);
  bar.Update(3, 2);  // never beyond the end
  bar.Update(1, 0);  // nothing to divide by
  bar.Finish();
  const std::string text = Contents(file);
  EXPECT_THAT(text, HasSubstr("loading [###############...............]  50%"));
  EXPECT_THAT(text, HasSubstr("100%"));
  EXPECT_THAT(text, EndsWith("\r\x1b[K"));
  std::fclose(file);
}

}  // namespace
}  // namespace nibble
