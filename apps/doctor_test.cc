// doctor, run as a user runs it.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

Json Doctor(std::vector<std::string> flags) {
  flags.insert(flags.end(), {"--quick", "--output=json"});
  const ProgramResult result = RunProgram("doctor", flags);
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_TRUE(IsOneLine(result.output)) << result.output;
  return Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
}

TEST(Doctor, FindsWhatTheKernelsFind) {
  const Json report = Doctor({});
  EXPECT_EQ(report["cpu"], CpuModelName());
  EXPECT_EQ(report["isa"], IsaName(BestIsa()));
  EXPECT_EQ(report["cores"], AvailableCores());
  for (const Isa isa : kAllIsas) {
    const Json& found = report["isas"][std::string(IsaName(isa))];
    EXPECT_EQ(found["supported"].get<bool>(), CpuSupports(isa));
    EXPECT_EQ(found["reason"].get<std::string>().empty(), CpuSupports(isa))
        << "what is not supported has a reason";
  }
  EXPECT_GT(report["available_bytes"].get<int64_t>(), 0);
  EXPECT_GT(report["system"]["memory_bytes"].get<int64_t>(), 0);
}

TEST(Doctor, ForecastsFromWhatItMeasured) {
  const Json report = Doctor({"--threads=1"});
  const Json& measured = report["measured"];
  const Json& forecast = report["forecast"];
  EXPECT_EQ(measured["threads"], 1);
  const double read = measured["read_gigabytes_per_second"].get<double>();
  const double peak = measured["peak_gigamacs_per_second"].get<double>();
  ASSERT_GT(read, 0);
  ASSERT_GT(peak, 0);
  EXPECT_EQ(measured["one_thread_read_gigabytes_per_second"], read);
  const double bytes = forecast["weight_bytes"].get<double>();
  EXPECT_NEAR(forecast["decode_ms_per_token"].get<double>(), bytes / read / 1e6,
              1e-6 * bytes / read);
  // Llama-2-7B's layers hold 6,476,005,376 weights.
  EXPECT_NEAR(forecast["prefill_tokens_per_second"].get<double>(),
              peak / 6.476005376, 1e-6 * peak);
  EXPECT_NEAR(bytes, (6.476005376e9 * (4 + 20.0 / 128) / 8) + 262.144e6, 5e6);
}

TEST(Doctor, KeepsToTheIsaThatItIsGiven) {
  const Json report = Doctor({"--isa=scalar"});
  EXPECT_EQ(report["isa"], "scalar");
  if (BestIsa() != Isa::kScalar) {
    EXPECT_THAT(report["isa_why"].get<std::string>(), HasSubstr("--isa"));
  }
}

TEST(Doctor, SaysAllOfItInWords) {
  const ProgramResult result = RunProgram("doctor", {"--quick"});
  EXPECT_EQ(result.exit_status, 0) << result.error;
  for (const char* part :
       {"CPU ", "ISA ", "Cores ", "Huge pages ", "Memory ", "Reads ",
        "Multiplies ", "llama-2-7b", "emulated_amx", "ms a token"}) {
    EXPECT_THAT(result.output, HasSubstr(part));
  }
}

TEST(Doctor, RefusesBadFlagsByName) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--output=xml", "--output=xml"},   {"--isa=mmx", "--isa=mmx"},
      {"--threads=0", "--threads=0"},     {"--quick=maybe", "quick"},
      {"--no_such_flag", "no_such_flag"}, {"stray", "stray"},
  };
  for (const auto& [flag, reason] : cases) {
    const ProgramResult result = RunProgram("doctor", {flag});
    EXPECT_EQ(result.exit_status, 1) << flag;
    EXPECT_THAT(result.error, HasSubstr(reason));
    EXPECT_EQ(result.output, "");
  }
}

}  // namespace
}  // namespace nibble
