#include "apps/benchmark/report.h"

#include <string>

#include "apps/benchmark/bench_page.h"
#include "apps/benchmark/report_testing.h"
#include "apps/benchmark/xml_check.h"
#include "apps/common/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(BenchRow, DerivesRatesAndSharesFromTheMedian) {
  BenchRow row;
  row.milliseconds = {20, 10, 30};
  row.tokens = 4;
  row.bytes = 1e9;
  row.macs = 3e9;
  row.read_bytes_per_second = 100e9;
  row.peak_macs_per_second = 600e9;
  EXPECT_DOUBLE_EQ(row.TokensPerSecond(), 200);
  EXPECT_DOUBLE_EQ(row.BytesPerSecond(), 50e9);
  EXPECT_DOUBLE_EQ(row.ShareOfBandwidth(), 0.5);
  EXPECT_DOUBLE_EQ(row.MacsPerSecond(), 150e9);
  EXPECT_DOUBLE_EQ(row.ShareOfPeak(), 0.25);
}

TEST(ReportJson, HoldsTheFieldsOfEveryPhase) {
  const Json json = ReportJson(SampleReport());
  EXPECT_EQ(json["machine"]["cpu"], "Test & Co <CPU>");
  EXPECT_EQ(json["machine"]["threads"], 2);
  EXPECT_DOUBLE_EQ(json["machine"]["read_gigabytes_per_second"], 50);
  EXPECT_DOUBLE_EQ(json["machine"]["peak_gigamacs_per_second"], 900);
  EXPECT_DOUBLE_EQ(json["machine"]["peaks"]["fma"], 110);
  ASSERT_EQ(json["rows"].size(), 3u);
  for (const Json& row : json["rows"]) {
    for (const char* field :
         {"phase", "shape", "weights", "group_size", "prompt_tokens", "depth",
          "streams", "threads", "isa", "median_ms", "min_ms", "max_ms",
          "tokens_per_second", "gigabytes_per_second", "share_of_bandwidth",
          "gigamacs_per_second", "share_of_peak"}) {
      EXPECT_TRUE(row.contains(field)) << field;
    }
  }
  EXPECT_EQ(json["rows"][0]["phase"], "product");
  EXPECT_EQ(json["rows"][0]["activation_rows"], 4);
  EXPECT_TRUE(json["rows"][0]["depth"].is_null());
  EXPECT_DOUBLE_EQ(json["rows"][0]["time_ratio_to_one_row"], 1.25);
  EXPECT_EQ(json["rows"][1]["prompt_tokens"], 512);
  EXPECT_DOUBLE_EQ(json["rows"][1]["share_of_products"], 0.875);
  EXPECT_EQ(json["rows"][2]["depth"], 3072);
  EXPECT_EQ(json["rows"][2]["streams"], 16);
  EXPECT_TRUE(json["rows"][2]["share_of_products"].is_null());
  EXPECT_EQ(json["skipped"][0], "decode, depth 9, 1 stream: too <deep>");
}

TEST(ReportJson, SaysNullForTheGroupSizeOfFloatWeights) {
  BenchReport report = SampleReport();
  report.model.group_size.reset();
  EXPECT_TRUE(ReportJson(report)["rows"][0]["group_size"].is_null());
}

TEST(ReportText, HasALineForEachRow) {
  const std::string text = ReportText(SampleReport());
  EXPECT_THAT(text, HasSubstr("product layer, 4 rows"));
  EXPECT_THAT(text, HasSubstr("1.25 x one row's time"));
  EXPECT_THAT(text, HasSubstr("prefill 512"));
  EXPECT_THAT(text, HasSubstr("87.5% of the products alone"));
  EXPECT_THAT(text, HasSubstr("decode, depth 3072, 16 streams"));
  EXPECT_THAT(text, HasSubstr("skipped: decode, depth 9"));
  EXPECT_THAT(text, HasSubstr("int4 g128 asymmetric"));
}

TEST(RowName, CountsOneWithoutAnS) {
  BenchRow row;
  row.phase = BenchPhase::kDecode;
  row.depth = 0;
  row.streams = 1;
  EXPECT_EQ(RowName(row), "decode, depth 0, 1 stream");
}

TEST(BenchPage, IsWellFormedAndHoldsEveryRow) {
  const BenchReport report = SampleReport();
  const std::string page = BenchPage(report);
  EXPECT_EQ(XmlProblem(page), "");
  for (const BenchRow& row : report.rows) {
    EXPECT_THAT(page, HasSubstr("<th scope=\"row\">" + RowName(row) + "</th>"));
    EXPECT_THAT(page, HasSubstr(": " + ShortRowName(row) + ", "))
        << "the point's tooltip";
  }
  EXPECT_THAT(page, HasSubstr("Test &amp; Co &lt;CPU&gt;"));
  EXPECT_THAT(page, HasSubstr("too &lt;deep&gt;"));
}

TEST(BenchPage, NeedsNothingFromElsewhere) {
  const std::string page = BenchPage(SampleReport());
  for (const char* reference :
       {"http:", "https:", "<script", "<link", "@import", "url(", "src="}) {
    EXPECT_THAT(page, Not(HasSubstr(reference)));
  }
}

TEST(BenchPage, HasALanguageATitleAndTableHeads) {
  const std::string page = BenchPage(SampleReport());
  EXPECT_THAT(page, HasSubstr("<html lang=\"en\">"));
  EXPECT_THAT(page, HasSubstr("<title>nibble bench: llama &lt;7b&gt;</title>"));
  EXPECT_THAT(page, HasSubstr("<caption>"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"col\">median ms</th>"));
}

}  // namespace
}  // namespace nibble
