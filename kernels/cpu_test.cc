#include "kernels/cpu.h"

#include <sched.h>

#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hwy/highway.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// Leaves the process with the best ISA, whatever a test limited it to.
class CpuTest : public ::testing::Test {
 protected:
  ~CpuTest() override { EXPECT_TRUE(LimitIsa(BestIsa()).ok()); }
};

TEST_F(CpuTest, ParsesEveryNameItPrints) {
  for (Isa isa : kAllIsas) {
    const absl::StatusOr<Isa> parsed = ParseIsa(IsaName(isa));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, isa);
  }
}

TEST_F(CpuTest, ParsesBestAsTheBestIsa) {
  EXPECT_EQ(ParseIsa("best").value(), BestIsa());
}

TEST_F(CpuTest, RejectsUnknownNameAndListsTheKnownOnes) {
  for (const char* name : {"", "sse4", "AVX2", "avx512 ", "emulated"}) {
    const absl::Status status = ParseIsa(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(status.message(),
                HasSubstr("best, scalar, avx2, avx_vnni, avx512"));
  }
}

TEST_F(CpuTest, SupportsScalarAndTheBestIsa) {
  EXPECT_TRUE(CpuSupports(Isa::kScalar));
  EXPECT_TRUE(CpuSupports(BestIsa()));
  EXPECT_NE(BestIsa(), Isa::kEmulatedAmx);
}

TEST_F(CpuTest, SupportsWhatProcessorAndBuildShare) {
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  EXPECT_EQ(CpuSupports(Isa::kAvx2), (targets & HWY_AVX2) != 0);
  EXPECT_EQ(CpuSupports(Isa::kAvx512), (targets & HWY_AVX3) != 0);
  EXPECT_EQ(CpuSupports(Isa::kAmx), AmxStatus().ok());
  if (CpuSupports(Isa::kAvxVnni)) {
    EXPECT_TRUE(CpuSupports(Isa::kAvx2));
  }
  if (CpuSupports(Isa::kAmx)) {
    EXPECT_TRUE(CpuSupports(Isa::kAvx512Vnni));
  }
  if (CpuSupports(Isa::kAvx512Vnni)) {
    EXPECT_TRUE(CpuSupports(Isa::kEmulatedAmx));
  }
}

TEST_F(CpuTest, LimitingToAnUnsupportedIsaFailsAndChangesNothing) {
  bool found = false;
  for (Isa isa : kAllIsas) {
    if (CpuSupports(isa)) continue;
    found = true;
    const Isa before = ActiveIsa();
    const absl::Status status = LimitIsa(isa);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::string(IsaName(isa))));
    EXPECT_THAT(status.message(), HasSubstr("scalar"));
    EXPECT_EQ(ActiveIsa(), before);
  }
  if (!found) GTEST_SKIP() << "this machine supports every ISA";
}

TEST_F(CpuTest, SaysWhatIsMissingOfUnsupportedIsasOnly) {
  for (Isa isa : kAllIsas) {
    EXPECT_EQ(WhyUnsupported(isa).empty(), CpuSupports(isa)) << IsaName(isa);
  }
}

TEST_F(CpuTest, SaysWhyAmxIsNotAvailable) {
  if (CpuSupports(Isa::kAmx)) GTEST_SKIP() << "AMX is available";
  const std::string reason(AmxStatus().message());
  EXPECT_EQ(AmxStatus().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(reason.empty());
  EXPECT_THAT(std::string(LimitIsa(Isa::kAmx).message()), HasSubstr(reason));
}

TEST_F(CpuTest, AvxVnniUsesHighwaysAvx2Target) {
  if (!CpuSupports(Isa::kAvxVnni)) GTEST_SKIP() << "no AVX-VNNI";
  ASSERT_TRUE(LimitIsa(Isa::kAvxVnni).ok());
  EXPECT_TRUE(HighwayTargetAllowed(HWY_AVX2));
  EXPECT_FALSE(HighwayTargetAllowed(HWY_AVX3));
  EXPECT_FALSE(IsaAllowed(Isa::kAvx512));
}

TEST_F(CpuTest, LimitingAllowsWhatIsBelowAndNothingAbove) {
  for (Isa limit : {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512,
                    Isa::kAvx512Vnni, Isa::kAmx}) {
    if (!CpuSupports(limit)) continue;
    ASSERT_TRUE(LimitIsa(limit).ok());
    EXPECT_EQ(ActiveIsa(), limit);
    EXPECT_TRUE(IsaAllowed(limit));
    for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512,
                    Isa::kAvx512Vnni, Isa::kAmx}) {
      EXPECT_EQ(IsaAllowed(isa), CpuSupports(isa) && isa <= limit)
          << IsaName(isa) << " under " << IsaName(limit);
    }
  }
}

TEST_F(CpuTest, LimitingToEmulatedAmxAllowsEverythingButAmx) {
  if (!CpuSupports(Isa::kEmulatedAmx)) GTEST_SKIP() << "no AVX-512";
  ASSERT_TRUE(LimitIsa(Isa::kEmulatedAmx).ok());
  EXPECT_FALSE(IsaAllowed(Isa::kAmx));
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512,
                  Isa::kAvx512Vnni, Isa::kEmulatedAmx}) {
    EXPECT_EQ(IsaAllowed(isa), CpuSupports(isa)) << IsaName(isa);
  }
}

TEST_F(CpuTest, LimitingReachesHighwaysDispatchAndCanBeUndone) {
  if (!CpuSupports(Isa::kAvx2) || !CpuSupports(Isa::kAvx512)) {
    GTEST_SKIP() << "needs AVX2 and AVX-512";
  }
  const int64_t before = hwy::SupportedTargets();
  ASSERT_TRUE(LimitIsa(Isa::kAvx2).ok());
  EXPECT_NE(hwy::SupportedTargets() & HWY_AVX2, 0);
  EXPECT_EQ(hwy::SupportedTargets() & HWY_AVX3, 0);
  EXPECT_TRUE(HighwayTargetAllowed(HWY_AVX2));
  EXPECT_FALSE(HighwayTargetAllowed(HWY_AVX3));
  ASSERT_TRUE(LimitIsa(BestIsa()).ok());
  EXPECT_EQ(hwy::SupportedTargets(), before);
  EXPECT_TRUE(HighwayTargetAllowed(HWY_AVX3));
}

TEST_F(CpuTest, ListsHighwayTargetsUnderTheIsaTheyNeed) {
  EXPECT_EQ(IsaOfHighwayTarget(HWY_AVX2), Isa::kAvx2);
  EXPECT_EQ(IsaOfHighwayTarget(HWY_AVX3), Isa::kAvx512);
  EXPECT_EQ(IsaOfHighwayTarget(HWY_AVX3_ZEN4), Isa::kAvx512Vnni);
  EXPECT_EQ(IsaOfHighwayTarget(HWY_AVX3_SPR), Isa::kAvx512Vnni);
  EXPECT_EQ(IsaOfHighwayTarget(HWY_SSE2), Isa::kScalar);
}

TEST_F(CpuTest, CountsTheCoresOfTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  EXPECT_GE(AvailableCores(), 1);
  EXPECT_LE(AvailableCores(), CPU_COUNT(&before));

  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(AvailableCores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST_F(CpuTest, NamesTheProcessor) { EXPECT_FALSE(CpuModelName().empty()); }

}  // namespace
}  // namespace nibble
