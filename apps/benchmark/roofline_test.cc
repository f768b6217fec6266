#include "apps/benchmark/roofline.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "apps/benchmark/xml_check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "re2/re2.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

Roofline OnePoint() {
  Roofline roofline;
  roofline.bytes_per_second = 50e9;
  roofline.roofs = {{"vpdpbusd", 1000e9}, {"fma <f32>", 120e9}};
  roofline.points = {{1, "decode", RooflineMark::kCircle, 2, 90e9}};
  return roofline;
}

struct Place {
  double x = 0, y = 0;
};

// The centres of the circles, in order.
std::vector<Place> Circles(const std::string& svg) {
  std::vector<Place> places;
  absl::string_view rest = svg;
  Place place;
  while (RE2::FindAndConsume(&rest, R"re(cx="([\d.]+)" cy="([\d.]+)")re",
                             &place.x, &place.y)) {
    places.push_back(place);
  }
  return places;
}

TEST(RooflineSvg, IsWellFormedAndNamesItself) {
  const std::string svg = RooflineSvg(OnePoint());
  EXPECT_EQ(XmlProblem(svg), "");
  EXPECT_THAT(svg, HasSubstr("role=\"img\""));
  EXPECT_THAT(svg, HasSubstr("<title id=\"plot-title\">"));
  EXPECT_THAT(svg, HasSubstr("GMAC/s"));
  EXPECT_THAT(svg, HasSubstr("per byte"));
}

TEST(RooflineSvg, NamesTheSlopeAndEveryRoof) {
  const std::string svg = RooflineSvg(OnePoint());
  EXPECT_THAT(svg, HasSubstr("reads 50.0 GB/s"));
  EXPECT_THAT(svg, HasSubstr("vpdpbusd 1000 GMAC/s"));
  EXPECT_THAT(svg, HasSubstr("fma &lt;f32&gt; 120 GMAC/s"));
}

TEST(RooflineSvg, PutsFasterAbovesAndDenserToTheRightOnLogarithmicAxes) {
  Roofline roofline = OnePoint();
  roofline.points = {{1, "a", RooflineMark::kCircle, 2, 10e9},
                     {2, "b", RooflineMark::kCircle, 20, 100e9},
                     {3, "c", RooflineMark::kCircle, 200, 1000e9}};
  const std::vector<Place> places = Circles(RooflineSvg(roofline));
  ASSERT_EQ(places.size(), 3u);
  EXPECT_GT(places[1].x, places[0].x);
  EXPECT_LT(places[1].y, places[0].y);
  // Equal ratios are equal distances, within the rounding of the numbers.
  EXPECT_NEAR(places[2].x - places[1].x, places[1].x - places[0].x, 0.15);
  EXPECT_NEAR(places[2].y - places[1].y, places[1].y - places[0].y, 0.15);
}

TEST(RooflineSvg, PutsAPointThatReachesBothBoundsOntoTheRidge) {
  Roofline roofline = OnePoint();
  roofline.roofs = {{"vpdpbusd", 1000e9}};
  roofline.points = {{1, "both", RooflineMark::kCircle, 20, 1000e9}};
  const std::string svg = RooflineSvg(roofline);
  double x = 0, y = 0;
  ASSERT_TRUE(RE2::PartialMatch(
      svg, R"re(class="slope".*x2="([\d.]+)" y2="([\d.]+)")re", &x, &y));
  const std::vector<Place> places = Circles(svg);
  ASSERT_EQ(places.size(), 1u);
  EXPECT_NEAR(places[0].x, x, 0.15);
  EXPECT_NEAR(places[0].y, y, 0.15);
}

TEST(RooflineSvg, KeepsEveryPointInsideTheDrawing) {
  Roofline roofline = OnePoint();
  roofline.points = {{1, "slow", RooflineMark::kCircle, 1e-3, 1e3},
                     {2, "fast", RooflineMark::kCircle, 1e7, 9e15}};
  for (const Place& place : Circles(RooflineSvg(roofline))) {
    EXPECT_GT(place.x, 0);
    EXPECT_LT(place.x, 960);
    EXPECT_GT(place.y, 0);
    EXPECT_LT(place.y, 560);
  }
}

TEST(RooflineSvg, NumbersEveryPointEvenInACrowd) {
  Roofline roofline = OnePoint();
  roofline.points.clear();
  for (int i = 1; i <= 60; ++i) {
    roofline.points.push_back(
        {i, "decode & more", RooflineMark::kSquare, 2, 90e9});
  }
  const std::string svg = RooflineSvg(roofline);
  EXPECT_EQ(XmlProblem(svg), "");
  for (int i = 1; i <= 60; ++i) {
    EXPECT_TRUE(RE2::PartialMatch(
        svg, absl::StrCat("class=\"label\"[^>]*>", i, "[ <]")))
        << i;
  }
}

TEST(RooflineSvg, GivesEachKindOfMarkItsForm) {
  Roofline roofline = OnePoint();
  roofline.points = {{1, "a", RooflineMark::kCircle, 2, 90e9},
                     {2, "b", RooflineMark::kSquare, 4, 90e9},
                     {3, "c", RooflineMark::kTriangle, 8, 90e9}};
  const std::string svg = RooflineSvg(roofline);
  EXPECT_THAT(svg, HasSubstr("<circle class=\"mark decode\""));
  EXPECT_THAT(svg, HasSubstr("<path class=\"mark product\""));
  EXPECT_THAT(svg, HasSubstr("<path class=\"mark prefill\""));
}

TEST(EscapeXml, LeavesNothingThatXmlWouldRead) {
  EXPECT_EQ(EscapeXml("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c&#39;");
  EXPECT_EQ(EscapeXml(absl::string_view("x\x01\0y", 4)), "x??y");
  EXPECT_EQ(EscapeXml("\xC3\xA9"), "\xC3\xA9");
}

}  // namespace
}  // namespace nibble
