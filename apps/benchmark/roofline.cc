#include "apps/benchmark/roofline.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

// The drawing in its own units, which the page scales to its width.
constexpr double kWidth = 960, kHeight = 560;
constexpr double kLeft = 74, kRight = 24, kTop = 18, kBottom = 58;
constexpr double kTextHeight = 14;
// Of the page's 12-unit font, on average and a little more.
constexpr double kCharWidth = 6.6;
constexpr double kMarkRadius = 5;

struct Box {
  double left, top, right, bottom;

  bool Overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom &&
           other.top < bottom;
  }
};

// One logarithmic axis: values low..high onto units from..to.
struct Axis {
  double low, high;
  double from, to;

  double At(double value) const {
    return from + (to - from) * std::log(value / low) / std::log(high / low);
  }
};

// 1, 2, 5, 10, 20, ... within the axis; only powers of ten where those many.
std::vector<double> Ticks(const Axis& axis) {
  const bool decades_only = axis.high / axis.low > 3e4;
  std::vector<double> ticks;
  for (double decade = std::pow(10.0, std::floor(std::log10(axis.low)));
       decade <= axis.high; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) {
      if (decades_only && step != 1.0) continue;
      const double value = decade * step;
      if (value >= axis.low && value <= axis.high) ticks.push_back(value);
    }
  }
  return ticks;
}

class Drawing {
 public:
  explicit Drawing(const Roofline& roofline) : roofline_(roofline) {
    SetAxes();
  }

  std::string Svg() {
    Open();
    Grid();
    Bounds();
    for (const RooflinePoint& point : roofline_.points) Mark(point);
    for (const RooflinePoint& point : roofline_.points) Label(point);
    absl::StrAppend(&svg_, "</svg>\n");
    return svg_;
  }

 private:
  double Ridge() const {
    return roofline_.roofs[0].macs_per_second / roofline_.bytes_per_second;
  }

  // Room for every point, the roofs, and some of both bounds.
  void SetAxes() {
    double low_x = Ridge() / 2, high_x = Ridge() * 2;
    double high_y = 0;
    for (const Roof& roof : roofline_.roofs) {
      high_y = std::max(high_y, roof.macs_per_second);
    }
    double low_y = high_y;
    for (const RooflinePoint& point : roofline_.points) {
      low_x = std::min(low_x, point.macs_per_byte);
      high_x = std::max(high_x, point.macs_per_byte);
      low_y = std::min(low_y, point.macs_per_second);
      high_y = std::max(high_y, point.macs_per_second);
    }
    for (const Roof& roof : roofline_.roofs) {
      low_y = std::min(low_y, roof.macs_per_second);
    }
    x_ = {low_x / 1.6, high_x * 2.2, kLeft, kWidth - kRight};
    y_ = {low_y / 2.0, high_y * 1.6, kHeight - kBottom, kTop};
  }

  void Open() {
    absl::StrAppendFormat(
        &svg_,
        "<svg viewBox=\"0 0 %g %g\" role=\"img\" "
        "aria-labelledby=\"plot-title plot-description\">\n"
        "<title id=\"plot-title\">Roofline of the measured rows</title>\n"
        "<desc id=\"plot-description\">Logarithmic axes: multiply-accumulates "
        "per byte read across, billions of multiply-accumulates a second up. "
        "The table below holds the same figures.</desc>\n",
        kWidth, kHeight);
  }

  void Line(const char* css, double x1, double y1, double x2, double y2) {
    absl::StrAppendFormat(
        &svg_,
        "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
        "\n",
        css, x1, y1, x2, y2);
  }

  void Text(const char* css, double x, double y, absl::string_view text,
            absl::string_view attributes = "") {
    absl::StrAppendFormat(&svg_,
                          "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\"%s>%s</text>"
                          "\n",
                          css, x, y, attributes, EscapeXml(text));
  }

  void Grid() {
    for (const double value : Ticks(x_)) {
      const double x = x_.At(value);
      Line("grid", x, kTop, x, kHeight - kBottom);
      Text("tick middle", x, kHeight - kBottom + 18, absl::StrCat(value));
    }
    for (const double value : Ticks(y_)) {
      const double y = y_.At(value);
      Line("grid", kLeft, y, kWidth - kRight, y);
      Text("tick end", kLeft - 7, y + 4, absl::StrCat(value / 1e9));
    }
    Text("axis middle", (kLeft + kWidth - kRight) / 2, kHeight - 14,
         "intensity: multiply-accumulates per byte read");
    const double middle = (kTop + kHeight - kBottom) / 2;
    Text("axis middle", 18, middle,
         "GMAC/s (billions of multiply-accumulates a second)",
         absl::StrFormat(" transform=\"rotate(-90 18 %.1f)\"", middle));
  }

  // Keeps labels off what is drawn there.
  void Occupy(double left, double top, double right, double bottom) {
    taken_.push_back({left, top, right, bottom});
  }

  void Bounds() {
    // The slope ends at the first roof, or where the drawing does.
    const double start = std::max(x_.low, y_.low / roofline_.bytes_per_second);
    const double end = Ridge();
    const double x1 = x_.At(start), x2 = x_.At(end);
    const double y1 = y_.At(start * roofline_.bytes_per_second);
    const double y2 = y_.At(end * roofline_.bytes_per_second);
    Line("slope", x1, y1, x2, y2);
    DrawSlopeOn(end);
    const double angle = std::atan2(y2 - y1, x2 - x1) * 180 / M_PI;
    const double x = x1 + (x2 - x1) * 0.5, y = y1 + (y2 - y1) * 0.5;
    Text("bound middle", x, y - 8,
         absl::StrFormat("reads %.1f GB/s", roofline_.bytes_per_second / 1e9),
         absl::StrFormat(" transform=\"rotate(%.1f %.1f %.1f)\"", angle, x, y));
    OccupySlope(x1, y1, x2, y2);
    for (size_t i = 0; i < roofline_.roofs.size(); ++i) DrawRoof(i);
  }

  // From the first roof to the highest, for which the same slope holds.
  void DrawSlopeOn(double from) {
    double highest = 0;
    for (const Roof& roof : roofline_.roofs) {
      highest = std::max(highest, roof.macs_per_second);
    }
    const double to = highest / roofline_.bytes_per_second;
    if (to <= from) return;
    const double rate = roofline_.bytes_per_second;
    Line("slope minor", x_.At(from), y_.At(from * rate), x_.At(to),
         y_.At(highest));
    OccupySlope(x_.At(from), y_.At(from * rate), x_.At(to), y_.At(highest));
  }

  // In steps, since boxes stand upright.
  void OccupySlope(double x1, double y1, double x2, double y2) {
    constexpr int kSteps = 60;
    for (int i = 0; i <= kSteps; ++i) {
      const double x = x1 + (x2 - x1) * i / kSteps;
      const double y = y1 + (y2 - y1) * i / kSteps;
      Occupy(x - 3, y - 3, x + 3, y + 3);
    }
  }

  void DrawRoof(size_t index) {
    const Roof& roof = roofline_.roofs[index];
    const double y = y_.At(roof.macs_per_second);
    const double from =
        std::max(x_.low, roof.macs_per_second / roofline_.bytes_per_second);
    const double right = kWidth - kRight;
    Line(index == 0 ? "roof" : "roof minor", x_.At(from), y, right, y);
    const std::string text = absl::StrFormat("%s %.0f GMAC/s", roof.name,
                                             roof.macs_per_second / 1e9);
    const double width = kCharWidth * static_cast<double>(text.size());
    Text("bound end", right - 4, y - 5, text);
    Occupy(right - 4 - width, y - 5 - kTextHeight, right, y + 2);
    Occupy(x_.At(from), y - 2, right, y + 2);
  }

  void Mark(const RooflinePoint& point) {
    const double x = x_.At(point.macs_per_byte);
    const double y = y_.At(point.macs_per_second);
    constexpr double kR = kMarkRadius;
    std::string shape;
    switch (point.mark) {
      case RooflineMark::kCircle:
        shape = absl::StrFormat(
            "<circle class=\"mark decode\" cx=\"%.1f\" cy=\"%.1f\" r=\"%g\">",
            x, y, kR);
        break;
      case RooflineMark::kSquare:
        shape = absl::StrFormat(
            "<path class=\"mark product\" d=\"M%.1f %.1fh%gv%gh-%gz\">", x - kR,
            y - kR, 2 * kR, 2 * kR, 2 * kR);
        break;
      case RooflineMark::kTriangle:
        shape = absl::StrFormat(
            "<path class=\"mark prefill\" d=\"M%.1f %.1fl%g %gh-%gz\">", x,
            y - kR - 1, kR + 1, 2 * kR, 2 * kR + 2);
        break;
    }
    absl::StrAppendFormat(
        &svg_, "%s<title>%d: %s, %.3g MAC per byte, %.4g GMAC/s</title></%s>\n",
        shape, point.number, EscapeXml(point.label), point.macs_per_byte,
        point.macs_per_second / 1e9,
        point.mark == RooflineMark::kCircle ? "circle" : "path");
    Occupy(x - kR, y - kR, x + kR, y + kR);
  }

  // Where a text of this size fits beside a point, if anywhere: to the right,
  // left, below, above, and corners, near before far.
  bool Place(double x, double y, double width, Box& place) const {
    constexpr double kHalf = kTextHeight / 2;
    for (const double gap : {8.0, 16.0, 26.0}) {
      const double lefts[] = {
          x + gap,     x - gap - width,     x - width / 2, x - width / 2,
          x + gap / 2, x - width - gap / 2, x + gap / 2,   x - width - gap / 2};
      const double tops[] = {y - kHalf,
                             y - kHalf,
                             y + gap,
                             y - gap - kTextHeight,
                             y + gap / 2,
                             y + gap / 2,
                             y - gap / 2 - kTextHeight,
                             y - gap / 2 - kTextHeight};
      for (size_t i = 0; i < std::size(lefts); ++i) {
        const Box box = {lefts[i], tops[i], lefts[i] + width,
                         tops[i] + kTextHeight};
        if (box.left < kLeft || box.right > kWidth - 2 || box.top < kTop ||
            box.bottom > kHeight - kBottom) {
          continue;
        }
        if (std::none_of(taken_.begin(), taken_.end(), [&](const Box& other) {
              return box.Overlaps(other);
            })) {
          place = box;
          return true;
        }
      }
    }
    return false;
  }

  void Label(const RooflinePoint& point) {
    const double x = x_.At(point.macs_per_byte);
    const double y = y_.At(point.macs_per_second);
    const std::string number = absl::StrCat(point.number);
    for (const std::string& text :
         {absl::StrCat(number, " ", point.label), number}) {
      Box place;
      if (!Place(x, y, kCharWidth * static_cast<double>(text.size()), place)) {
        continue;
      }
      Text("label", place.left, place.bottom - 3, text);
      taken_.push_back(place);
      return;
    }
    // A crowd: the number all the same, over whatever is there.
    Text("label", x + 7, y + 4, number);
  }

  const Roofline& roofline_;
  Axis x_, y_;
  std::vector<Box> taken_;
  std::string svg_;
};

}  // namespace

std::string RooflineSvg(const Roofline& roofline) {
  CHECK(!roofline.roofs.empty() && !roofline.points.empty());
  return Drawing(roofline).Svg();
}

std::string EscapeXml(absl::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default: {
        const unsigned char byte = static_cast<unsigned char>(c);
        const bool allowed =
            byte >= 0x20 || c == '\t' || c == '\n' || c == '\r';
        escaped += allowed && byte != 0x7F ? c : '?';
      }
    }
  }
  return escaped;
}

}  // namespace nibble
