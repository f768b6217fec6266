#include "apps/doctor_report.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

DoctorReport Sample() {
  DoctorReport report;
  report.cpu = "Test CPU";
  report.isas = {{"avx2", true, ""}, {"amx", false, "the kernel refused"}};
  report.isa = "avx2";
  report.isa_why = "the best that is supported";
  report.affinity_cpus = 4;
  report.cores = 2;
  report.system.online_cpus = 8;
  report.system.caches = {{1, "Data", 48 << 10, "0"},
                          {3, "Unified", 32 << 20, "0-7"}};
  report.system.nodes = {{0, "0-7", int64_t{16'000'000'000}}};
  report.system.huge_pages = "madvise";
  report.system.memory_bytes = int64_t{16'000'000'000};
  report.available_bytes = int64_t{12'000'000'000};
  report.threads = 2;
  report.read_bytes_per_second = 40e9;
  report.one_thread_read_bytes_per_second = 25e9;
  report.peaks = {{"vpmaddubsw", 200e9}, {"fma", 100e9}};
  report.forecast = {"llama-2-7b", 128, 4'000'000'000, 100, 31};
  return report;
}

TEST(DoctorText, SaysWhyAnIsaIsNotThere) {
  const std::string text = DoctorText(Sample());
  EXPECT_THAT(text, HasSubstr("  avx2         supported\n"));
  EXPECT_THAT(text, HasSubstr("  amx          no: the kernel refused\n"));
}

TEST(DoctorText, SaysWhatLimitsTheCores) {
  DoctorReport report = Sample();
  EXPECT_THAT(DoctorText(report),
              HasSubstr("2 to compute on: 8 CPUs online, 4 in the affinity "
                        "mask, no quota"));
  report.quota = 1.5;
  EXPECT_THAT(DoctorText(report), HasSubstr("quota of 1.5"));
}

TEST(DoctorText, GivesLimitsAndForecast) {
  const std::string text = DoctorText(Sample());
  EXPECT_THAT(text, HasSubstr("40.0 GB/s with 2 threads, 25.0 with one"));
  EXPECT_THAT(text, HasSubstr("200 GMAC/s, vpmaddubsw"));
  EXPECT_THAT(text, HasSubstr("100.0 ms a token, 10.0 tokens/s"));
  EXPECT_THAT(text, HasSubstr("at 31 tokens/s"));
  EXPECT_THAT(text, Not(HasSubstr("not fit")));
}

TEST(DoctorText, SaysWhenTheModelWouldNotFit) {
  DoctorReport report = Sample();
  report.available_bytes = 1'000'000'000;
  EXPECT_THAT(DoctorText(report), HasSubstr("not fit"));
}

TEST(DoctorText, SaysWhatHugePagesMean) {
  DoctorReport report = Sample();
  report.system.huge_pages = "never";
  EXPECT_THAT(DoctorText(report), HasSubstr("never: large reads"));
  report.system.huge_pages = "";
  EXPECT_THAT(DoctorText(report), HasSubstr("Huge pages     unknown"));
}

TEST(DoctorJson, HoldsCachesNodesAndPeaks) {
  const Json json = DoctorJson(Sample());
  EXPECT_EQ(json["system"]["caches"][1]["bytes"], 32 << 20);
  EXPECT_EQ(json["system"]["numa_nodes"][0]["cpus"], "0-7");
  EXPECT_EQ(json["measured"]["multiply"], "vpmaddubsw");
  EXPECT_DOUBLE_EQ(json["measured"]["peaks"]["fma"], 100);
  EXPECT_TRUE(json["cgroup_quota"].is_null());
  EXPECT_EQ(json["isas"]["amx"]["reason"], "the kernel refused");
}

// A machine that tells nothing about itself is examined all the same.
TEST(Examine, SurvivesARootWithoutFiles) {
  const DoctorReport report = Examine(::testing::TempDir() + "/nothing/");
  EXPECT_FALSE(report.isa.empty());
  EXPECT_FALSE(report.quota.has_value());
  EXPECT_TRUE(report.system.caches.empty());
}

}  // namespace
}  // namespace nibble
