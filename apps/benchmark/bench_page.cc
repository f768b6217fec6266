#include "apps/benchmark/bench_page.h"

#include <string>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "apps/benchmark/report.h"
#include "apps/benchmark/roofline.h"

namespace nibble {
namespace {

constexpr absl::string_view kStyle = R"(
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1b1b;
  --faint: #6a6a6a; --grid: #e4e4e4; --decode: #0072b2; --product: #009e73;
  --prefill: #d55e00; --bound: #3a3a3a; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a;
  --ink: #e8e8e8; --faint: #a5a5a5; --grid: #2c3036; --decode: #56b4e9;
  --product: #2fd0a0; --prefill: #ff9a4d; --bound: #d0d0d0; } }
body { background: var(--paper); color: var(--ink); margin: 2rem auto;
  max-width: 74rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin-bottom: 0.3rem; }
p { margin: 0.3rem 0; }
svg { width: 100%; height: auto; margin: 1rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--faint); }
svg .axis { font-size: 13px; }
svg .bound { fill: var(--bound); font-weight: 600; }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .slope, svg .roof { stroke: var(--bound); stroke-width: 2; }
svg .slope.minor { stroke: var(--faint); }
svg .minor { stroke-width: 1.3; stroke-dasharray: 6 4; }
.mark { stroke: var(--paper); stroke-width: 1; }
.decode { fill: var(--decode); }
.product { fill: var(--product); }
.prefill { fill: var(--prefill); }
.key { display: flex; gap: 1.5rem; flex-wrap: wrap; }
.key svg { width: 1em; height: 1em; margin: 0 0.4em 0 0;
  vertical-align: -0.1em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; font-size: 0.9rem; }
caption { text-align: left; padding: 0.4rem 0; color: var(--faint); }
th, td { padding: 0.25rem 0.5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--grid); }
th[scope=row] { text-align: left; font-weight: 500; }
thead th:nth-child(2) { text-align: left; }
)";

constexpr absl::string_view kKey = R"(<p class="key">
<span><svg viewBox="0 0 12 12" aria-hidden="true"><circle class="decode" cx="6" cy="6" r="5"/></svg>decode: bound by the slope</span>
<span><svg viewBox="0 0 12 12" aria-hidden="true"><path class="prefill" d="M6 1l6 10h-12z"/></svg>prefill: bound by the roof</span>
<span><svg viewBox="0 0 12 12" aria-hidden="true"><path class="product" d="M1 1h10v10h-10z"/></svg>matrix product alone</span>
</p>
)";

RooflineMark MarkOf(BenchPhase phase) {
  switch (phase) {
    case BenchPhase::kProduct:
      return RooflineMark::kSquare;
    case BenchPhase::kPrefill:
      return RooflineMark::kTriangle;
    case BenchPhase::kDecode:
      return RooflineMark::kCircle;
  }
  return RooflineMark::kCircle;
}

Roofline RooflineOf(const BenchReport& report) {
  Roofline roofline;
  roofline.bytes_per_second = report.machine.read_bytes_per_second;
  roofline.roofs.push_back(
      {report.machine.multiply, report.machine.peak_macs_per_second});
  for (const MultiplyPeak& peak : report.machine.peaks) {
    if (peak.name == report.machine.multiply) continue;
    roofline.roofs.push_back({peak.name, peak.macs_per_second});
  }
  int number = 0;
  for (const BenchRow& row : report.rows) {
    roofline.points.push_back({++number, ShortRowName(row), MarkOf(row.phase),
                               row.macs / row.bytes, row.MacsPerSecond()});
  }
  return roofline;
}

std::string Percent(double share) {
  return absl::StrFormat("%.1f%%", share * 100);
}

void AppendHead(const BenchReport& report, std::string* page) {
  const std::string title =
      absl::StrCat("nibble bench: ", EscapeXml(report.model.shape));
  absl::StrAppend(page,
                  "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
                  "<meta charset=\"utf-8\"/>\n"
                  "<meta name=\"viewport\" "
                  "content=\"width=device-width, initial-scale=1\"/>\n<title>",
                  title, "</title>\n<style>", kStyle,
                  "</style>\n</head>\n<body>\n<h1>", title, "</h1>\n");
  const std::string description = ReportHeading(report);
  absl::StrAppend(page, "<p>", EscapeXml(description), "</p>\n");
}

void AppendTableHead(std::string* page) {
  absl::StrAppend(
      page,
      "<div class=\"scroll\">\n<table>\n<caption>Medians of the repetitions. "
      "Shares are of the limits measured in turn with each row.</caption>\n"
      "<thead><tr>");
  for (const char* name :
       {"#", "row", "median ms", "min .. max", "tokens/s", "GB/s",
        "of bandwidth", "GMAC/s", "of peak", "of products", "x one row"}) {
    absl::StrAppend(page, "<th scope=\"col\">", name, "</th>");
  }
  absl::StrAppend(page, "</tr></thead>\n<tbody>\n");
}

void AppendTableRow(int number, const BenchRow& row, std::string* page) {
  absl::StrAppendFormat(
      page,
      "<tr><td>%d</td><th scope=\"row\">%s</th><td>%.3f</td>"
      "<td>%.3f .. %.3f</td><td>%.1f</td><td>%.1f</td><td>%s</td><td>%.1f</td>"
      "<td>%s</td><td>%s</td><td>%s</td></tr>\n",
      number, EscapeXml(RowName(row)), row.milliseconds.median,
      row.milliseconds.min, row.milliseconds.max, row.TokensPerSecond(),
      row.BytesPerSecond() / 1e9, Percent(row.ShareOfBandwidth()),
      row.MacsPerSecond() / 1e9, Percent(row.ShareOfPeak()),
      row.share_of_products ? Percent(*row.share_of_products) : "",
      row.time_ratio_to_one_row
          ? absl::StrFormat("%.2f", *row.time_ratio_to_one_row)
          : "");
}

}  // namespace

std::string BenchPage(const BenchReport& report) {
  CHECK(!report.rows.empty());
  std::string page;
  AppendHead(report, &page);
  absl::StrAppend(&page, RooflineSvg(RooflineOf(report)), kKey);
  AppendTableHead(&page);
  int number = 0;
  for (const BenchRow& row : report.rows) AppendTableRow(++number, row, &page);
  absl::StrAppend(&page, "</tbody>\n</table>\n</div>\n");
  for (const std::string& line : report.skipped) {
    absl::StrAppend(&page, "<p>Skipped: ", EscapeXml(line), "</p>\n");
  }
  absl::StrAppend(&page, "</body>\n</html>\n");
  return page;
}

}  // namespace nibble
