// The roofline of a machine and where measured points lie under it (Williams,
// Waterman, Patterson: "Roofline: An Insightful Visual Performance Model",
// Communications of the ACM 52(4), 2009), as an SVG drawing.
//
//   Roofline roofline;
//   roofline.bytes_per_second = 60e9;
//   roofline.roofs = {{"vpdpbusd", 940e9}};
//   roofline.points = {{1, "decode", RooflineMark::kCircle, 2, 110e9}};
//   std::string svg = RooflineSvg(roofline);
//
// Both axes are logarithmic: multiply-accumulates per byte read across,
// billions of them a second up. No work can be above the slope (bandwidth times
// intensity) or above a roof (the peak of a multiply instruction).
//
// The drawing is a well-formed XML element that uses the CSS classes of the
// page around it (bench_page.h), so that colours follow the reader's light or
// dark scheme.
#ifndef NIBBLE_APPS_BENCHMARK_ROOFLINE_H_
#define NIBBLE_APPS_BENCHMARK_ROOFLINE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

// Told apart by form, not by colour alone.
enum class RooflineMark { kCircle, kSquare, kTriangle };

struct RooflinePoint {
  int number = 0;  // as in the table beside the drawing
  std::string label;
  RooflineMark mark = RooflineMark::kCircle;
  double macs_per_byte = 0;
  double macs_per_second = 0;
};

struct Roof {
  std::string name;
  double macs_per_second = 0;
};

struct Roofline {
  double bytes_per_second = 0;
  std::vector<Roof> roofs;  // the first is the one that shares are of
  std::vector<RooflinePoint> points;
};

// Points are labelled with number and label where there is room, with the
// number alone where there is not; each also has its label as a tooltip.
// REQUIRES: at least one roof and one point, all rates and intensities > 0.
std::string RooflineSvg(const Roofline& roofline);

// `text` with &, <, >, " and ' replaced, for XML and HTML; characters that XML
// does not allow become '?'.
std::string EscapeXml(absl::string_view text);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_ROOFLINE_H_
