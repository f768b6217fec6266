// bench, run as a user runs it, on the bundled model and on a tiny one.

#include <cmath>
#include <cstdint>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "apps/benchmark/xml_check.h"
#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// Llama's graph: hidden 32, two layers, vocabulary 97.
std::string TinyModel(int64_t max_positions = 128) {
  testing::TinyModelOptions options;
  options.max_positions = max_positions;
  const std::string folder =
      absl::StrCat(::testing::TempDir(), "/tiny", max_positions);
  EXPECT_THAT(testing::WriteTinyLlama(folder, options), testing::IsOk());
  return folder;
}

// Little of everything.
std::vector<std::string> SmallPlan(std::vector<std::string> more = {}) {
  std::vector<std::string> flags = {
      "--rows=1,4",    "--prompt=8,40",   "--decode=3", "--depth=0,9",
      "--streams=1,2", "--repetitions=1", "--threads=1"};
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

Json Bench(const std::vector<std::string>& flags) {
  std::vector<std::string> all = flags;
  all.push_back("--output=json");
  const ProgramResult result = RunProgram("bench", all);
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_TRUE(IsOneLine(result.output)) << result.output;
  return Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
}

std::vector<Json> RowsOf(const Json& report, const std::string& phase) {
  std::vector<Json> rows;
  for (const Json& row : report["rows"]) {
    if (row["phase"] == phase) rows.push_back(row);
  }
  return rows;
}

double Number(const Json& row, const char* field) {
  EXPECT_TRUE(row.contains(field) && row[field].is_number()) << field;
  return row[field].get<double>();
}

void ExpectNear(double actual, double expected) {
  EXPECT_NEAR(actual, expected, 1e-9 * std::abs(expected));
}

TEST(Bench, MeasuresEveryRowThatItIsAskedFor) {
  const Json report = Bench(SmallPlan({"--model=" + TinyModel()}));
  std::set<int64_t> rows, prompts;
  for (const Json& row : RowsOf(report, "product")) {
    EXPECT_EQ(row["matrix"], "layer");
    rows.insert(row["activation_rows"].get<int64_t>());
  }
  for (const Json& row : RowsOf(report, "prefill")) {
    prompts.insert(row["prompt_tokens"].get<int64_t>());
  }
  std::set<std::string> steps;
  for (const Json& row : RowsOf(report, "decode")) {
    steps.insert(absl::StrCat(row["depth"].get<int64_t>(), "/",
                              row["streams"].get<int64_t>()));
  }
  EXPECT_EQ(rows, (std::set<int64_t>{1, 4}));
  EXPECT_EQ(prompts, (std::set<int64_t>{8, 40}));
  EXPECT_EQ(steps, (std::set<std::string>{"0/1", "0/2", "9/1", "9/2"}));
  EXPECT_EQ(report["rows"].size(), 8u);
  EXPECT_TRUE(report["skipped"].empty());
}

TEST(Bench, StatesSharesThatFollowFromItsOwnFigures) {
  const Json report = Bench(SmallPlan({"--model=" + TinyModel()}));
  ASSERT_FALSE(report["rows"].empty());
  for (const Json& row : report["rows"]) {
    const double seconds = Number(row, "median_ms") / 1e3;
    ASSERT_GT(seconds, 0);
    EXPECT_LE(row["min_ms"], row["median_ms"]);
    EXPECT_LE(row["median_ms"], row["max_ms"]);
    ExpectNear(Number(row, "gigabytes_per_second"),
               Number(row, "bytes") / seconds / 1e9);
    ExpectNear(Number(row, "gigamacs_per_second"),
               Number(row, "macs") / seconds / 1e9);
    ExpectNear(Number(row, "share_of_bandwidth"),
               Number(row, "gigabytes_per_second") /
                   Number(row, "read_gigabytes_per_second"));
    ExpectNear(Number(row, "share_of_peak"),
               Number(row, "gigamacs_per_second") /
                   Number(row, "peak_gigamacs_per_second"));
  }
}

TEST(Bench, CountsTheTokensBytesAndMultipliesOfItsRows) {
  const Json report = Bench(SmallPlan({"--model=" + TinyModel()}));
  // 2 layers: qkv [64, 32], attention [32, 32], up [96, 32], down [32, 48].
  constexpr double kLayerMacs = 64 * 32 + 32 * 32 + 96 * 32 + 32 * 48;
  constexpr double kHeadMacs = 97 * 32;
  for (const Json& row : RowsOf(report, "product")) {
    EXPECT_EQ(Number(row, "macs"), Number(row, "activation_rows") * kLayerMacs);
    EXPECT_EQ(Number(row, "bytes"), 2 * kLayerMacs) << "bf16";
  }
  const double weight_bytes = Number(report, "weight_bytes");
  for (const Json& row : RowsOf(report, "prefill")) {
    const double prompt = Number(row, "prompt_tokens");
    EXPECT_EQ(Number(row, "macs"), prompt * 2 * kLayerMacs + kHeadMacs);
    EXPECT_EQ(Number(row, "bytes"), weight_bytes) << "one chunk";
    ExpectNear(Number(row, "tokens_per_second"),
               prompt * 1e3 / Number(row, "median_ms"));
    EXPECT_GT(Number(row, "share_of_products"), 0);
  }
  for (const Json& row : RowsOf(report, "decode")) {
    const double streams = Number(row, "streams");
    EXPECT_EQ(Number(row, "macs"), streams * (2 * kLayerMacs + kHeadMacs));
    // Steps see depth + 1, + 2 and + 3 tokens: f32 keys and values of 2 layers,
    // 2 heads of 8.
    const double cache = (Number(row, "depth") + 2) * 2 * 2 * 16 * 4;
    EXPECT_EQ(Number(row, "bytes"), weight_bytes + streams * cache);
  }
}

TEST(Bench, ComparesFewRowsWithOne) {
  const Json report =
      Bench({"--model=" + TinyModel(), "--rows=4,1", "--products=up",
             "--prompt=", "--decode=0", "--repetitions=1"});
  const std::vector<Json> rows = RowsOf(report, "product");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(Number(rows[1], "time_ratio_to_one_row"), 1);
  ExpectNear(Number(rows[0], "time_ratio_to_one_row"),
             Number(rows[0], "median_ms") / Number(rows[1], "median_ms"));
}

TEST(Bench, NamesTheMachineAndTheModel) {
  const Json report = Bench(SmallPlan({"--model=" + TinyModel(), "--isa=scalar",
                                       "--weights=f32", "--kv_cache=bf16"}));
  const Json& machine = report["machine"];
  EXPECT_EQ(machine["isa"], "scalar");
  EXPECT_EQ(machine["threads"], 1);
  EXPECT_NE(machine["cpu"], "");
  EXPECT_GT(Number(machine, "read_gigabytes_per_second"), 0);
  EXPECT_GT(Number(machine, "peak_gigamacs_per_second"), 0);
  const Json& row = report["rows"][0];
  EXPECT_EQ(row["weights"], "f32");
  EXPECT_EQ(row["kv_cache"], "bf16");
  EXPECT_EQ(row["activations"], "f32");
  EXPECT_TRUE(row["group_size"].is_null());
  EXPECT_THAT(row["shape"].get<std::string>(), HasSubstr("tiny"));
}

TEST(Bench, MeasuresTheBundledModelWithoutFlagsForOne) {
  const Json report = Bench({"--rows=1", "--prompt=", "--decode=2", "--depth=0",
                             "--streams=1", "--repetitions=1"});
  EXPECT_EQ(report["rows"].size(), 2u);
}

TEST(Bench, LeavesOutWhatDoesNotFitIntoTheContextAndSaysSo) {
  const Json report =
      Bench({"--model=" + TinyModel(32), "--products=", "--prompt=8,40",
             "--decode=3", "--depth=0,30", "--streams=1", "--repetitions=1"});
  EXPECT_EQ(report["rows"].size(), 2u);
  ASSERT_EQ(report["skipped"].size(), 2u);
  EXPECT_THAT(report["skipped"][0].get<std::string>(),
              AllOf(HasSubstr("prefill 40"), HasSubstr("context of 32")));
  EXPECT_THAT(report["skipped"][1].get<std::string>(),
              AllOf(HasSubstr("depth 30"), HasSubstr("context of 32")));
}

TEST(Bench, FailsWhenNothingFits) {
  const ProgramResult result = RunProgram(
      "bench",
      {"--model=" + TinyModel(32), "--products=", "--prompt=40", "--decode=0"});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_THAT(result.error, HasSubstr("nothing was measured"));
  EXPECT_THAT(result.error, HasSubstr("context of 32"));
}

TEST(Bench, DrawsAPageThatHoldsEveryRow) {
  const std::string path = ::testing::TempDir() + "/plot.html";
  const Json report = Bench(
      SmallPlan({"--model=" + TinyModel(), absl::StrCat("--plot=", path)}));
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string page = text.str();
  EXPECT_EQ(XmlProblem(page), "");
  size_t points = 0;
  for (size_t at = page.find("class=\"mark "); at != std::string::npos;
       at = page.find("class=\"mark ", at + 1)) {
    ++points;
  }
  EXPECT_EQ(points, report["rows"].size());
  for (const char* row :
       {"product layer, 4 rows", "prefill 40", "decode, depth 9, 2 streams"}) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat("<th scope=\"row\">", row, "<")));
  }
}

TEST(Bench, WritesATableForTheEye) {
  const ProgramResult result =
      RunProgram("bench", SmallPlan({"--model=" + TinyModel()}));
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_THAT(result.output, HasSubstr("decode, depth 9, 2 streams"));
  EXPECT_THAT(result.output, HasSubstr("of the products alone"));
}

}  // namespace
}  // namespace nibble
