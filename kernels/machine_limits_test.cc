#include "kernels/machine_limits.h"

#include <cstdint>
#include <utility>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"

namespace nibble {
namespace {

TEST(MachineLimits, CountsTheMultipliesItTimed) {
  ThreadPool pool(2);
  int64_t done = 0;
  EXPECT_GT(TimeMultiplies(MultiplyKind::kF32, 1000 * 1000, pool, done), 0);
  EXPECT_GE(done, 900 * 1000);
  EXPECT_LE(done, 1000 * 1000);
}

TEST(MachineLimits, ReadsBuffersOfAnyLength) {
  ThreadPool pool(2);
  for (size_t size : {0, 1, 63, 64, 65, 1000, 100000}) {
    const AlignedBuffer buffer(size, AlignedBuffer::Fill::kZero);
    const absl::Span<const std::byte> bytes(buffer.data(), buffer.size());
    EXPECT_GE(TimeRead(bytes, pool), 0) << size;
  }
}

TEST(MachineLimits, Bf16MultipliesFollowTheActiveIsa) {
  ASSERT_TRUE(LimitIsa(Isa::kScalar).ok());
  EXPECT_TRUE(HasMultiply(MultiplyKind::kF32));
  EXPECT_FALSE(HasMultiply(MultiplyKind::kBF16Dot));
  ASSERT_TRUE(LimitIsa(BestIsa()).ok());
}

TEST(MachineLimits, EveryIsaHasAnInt8Dot) {
  ThreadPool pool(1);
  for (Isa isa : kAllIsas) {
    if (!CpuSupports(isa)) continue;
    ASSERT_TRUE(LimitIsa(isa).ok());
    EXPECT_TRUE(HasMultiply(MultiplyKind::kInt8Dot));
    int64_t done = 0;
    EXPECT_GT(TimeMultiplies(MultiplyKind::kInt8Dot, 1000 * 1000, pool, done),
              0);
    EXPECT_GT(done, 0);
    EXPECT_STRNE(MultiplyName(MultiplyKind::kInt8Dot), "");
  }
  ASSERT_TRUE(LimitIsa(BestIsa()).ok());
}

TEST(MachineLimits, OnAmxTheDotsAreThoseOfTiles) {
  if (!CpuSupports(Isa::kAmx)) GTEST_SKIP() << WhyUnsupported(Isa::kAmx);
  ThreadPool pool(1);
  ASSERT_TRUE(LimitIsa(Isa::kAmx).ok());
  EXPECT_STREQ(MultiplyName(MultiplyKind::kInt8Dot), "tdpbssd");
  EXPECT_STREQ(MultiplyName(MultiplyKind::kBF16Dot), "tdpbf16ps");
  for (const auto& [kind, macs] :
       {std::pair(MultiplyKind::kInt8Dot, 16 * 16 * 64),
        std::pair(MultiplyKind::kBF16Dot, 16 * 16 * 32)}) {
    int64_t done = 0;
    EXPECT_GT(TimeMultiplies(kind, 10 * 4 * macs, pool, done), 0);
    EXPECT_EQ(done, 10 * 4 * macs);
  }
  ASSERT_TRUE(LimitIsa(BestIsa()).ok());
}

TEST(MachineLimits, AreRatesThatMachinesHave) {
  ThreadPool pool(1);
  const MachineLimits limits = MeasureMachineLimits(pool);
  EXPECT_GT(limits.read_bytes_per_second, 1e7);
  EXPECT_LT(limits.read_bytes_per_second, 1e13);
  EXPECT_GT(limits.f32_macs_per_second, 1e7);
  EXPECT_LT(limits.f32_macs_per_second, 1e13);
  // Bytes are a quarter of an f32, and no ISA is slower with them.
  EXPECT_GT(limits.int8_macs_per_second, limits.f32_macs_per_second);
  EXPECT_EQ(limits.bf16_macs_per_second > 0,
            HasMultiply(MultiplyKind::kBF16Dot));
}

}  // namespace
}  // namespace nibble
