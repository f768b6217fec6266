#include "apps/benchmark/xml_check.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(XmlProblem, FindsNoneInWellFormedText) {
  EXPECT_EQ(XmlProblem("<!DOCTYPE html>\n<a b=\"1\" c-d=\"&lt;\">x &amp; &#39;"
                       "<e/><f g=\"\"></f></a>\n"),
            "");
}

TEST(XmlProblem, NamesEachKindOfMistake) {
  EXPECT_THAT(XmlProblem("<a><b></a>"), HasSubstr("</a> closes nothing"));
  EXPECT_THAT(XmlProblem("<a>"), HasSubstr("<a> is not closed"));
  EXPECT_THAT(XmlProblem("<a>1 & 2</a>"), HasSubstr("bare & in text"));
  EXPECT_THAT(XmlProblem("<a>&nbsp;</a>"), HasSubstr("bare & in text"));
  EXPECT_THAT(XmlProblem("<a>1 < 2</a>"), HasSubstr("bare <"));
  EXPECT_THAT(XmlProblem("<a b=1></a>"), HasSubstr("broken tag"));
  EXPECT_THAT(XmlProblem("<a b=\"1\" b=\"2\"/>"), HasSubstr("given twice"));
  EXPECT_THAT(XmlProblem("<a b=\"x&y\"/>"), HasSubstr("bare & in b"));
  EXPECT_THAT(XmlProblem("<a/><b/>"), HasSubstr("2 root elements"));
  EXPECT_THAT(XmlProblem("<a/>x"), HasSubstr("outside the root"));
  EXPECT_THAT(XmlProblem(""), HasSubstr("0 root elements"));
}

}  // namespace
}  // namespace nibble
