#include "kernels/cpu_quota.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "gtest/gtest.h"

namespace nibble {
namespace {

// A made-up /proc/self/cgroup and /sys/fs/cgroup.
class CpuQuotaTest : public ::testing::Test {
 protected:
  CpuQuotaTest()
      : root_(std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_ / "mount");
  }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = root_ / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }

  std::optional<double> Quota() {
    return CgroupCpuQuota((root_ / "cgroup").string(),
                          (root_ / "mount").string());
  }

 private:
  std::filesystem::path root_;
};

TEST_F(CpuQuotaTest, ReadsTheQuotaOfVersion2) {
  Write("cgroup", "0::/app\n");
  Write("mount/app/cpu.max", "150000 100000\n");
  EXPECT_EQ(Quota(), 1.5);
}

TEST_F(CpuQuotaTest, TakesTheTightestOfGroupAndParents) {
  Write("cgroup", "0::/pod/app\n");
  Write("mount/pod/app/cpu.max", "400000 100000\n");
  Write("mount/pod/cpu.max", "200000 100000\n");
  Write("mount/cpu.max", "800000 100000\n");
  EXPECT_EQ(Quota(), 2.0);
}

TEST_F(CpuQuotaTest, ReadsTheRootGroupOfAContainer) {
  Write("cgroup", "0::/\n");
  Write("mount/cpu.max", "50000 100000\n");
  EXPECT_EQ(Quota(), 0.5);
}

TEST_F(CpuQuotaTest, MaxMeansNoQuota) {
  Write("cgroup", "0::/app\n");
  Write("mount/app/cpu.max", "max 100000\n");
  EXPECT_EQ(Quota(), std::nullopt);
}

TEST_F(CpuQuotaTest, ReadsTheQuotaOfVersion1) {
  Write("cgroup", "5:memory:/x\n4:cpu,cpuacct:/app\n0::/\n");
  Write("mount/cpu,cpuacct/app/cpu.cfs_quota_us", "300000\n");
  Write("mount/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Quota(), 3.0);
}

TEST_F(CpuQuotaTest, FindsVersion1UnderItsShortName) {
  Write("cgroup", "4:cpu,cpuacct:/app\n");
  Write("mount/cpu/app/cpu.cfs_quota_us", "100000\n");
  Write("mount/cpu/app/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Quota(), 1.0);
}

TEST_F(CpuQuotaTest, NegativeQuotaOfVersion1MeansNone) {
  Write("cgroup", "4:cpu:/app\n");
  Write("mount/cpu/app/cpu.cfs_quota_us", "-1\n");
  Write("mount/cpu/app/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Quota(), std::nullopt);
}

TEST_F(CpuQuotaTest, IgnoresControllersWhoseNamesOnlyStartWithCpu) {
  Write("cgroup", "4:cpuset:/app\n");
  Write("mount/cpuset/app/cpu.cfs_quota_us", "100000\n");
  Write("mount/cpuset/app/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Quota(), std::nullopt);
}

TEST_F(CpuQuotaTest, MissingOrMalformedFilesMeanNoQuota) {
  EXPECT_EQ(Quota(), std::nullopt);
  for (const char* membership : {"", "\n\n", "garbage", "0:", "0::/app"}) {
    Write("cgroup", membership);
    EXPECT_EQ(Quota(), std::nullopt) << membership;
  }
  for (const char* limit : {"", "100000", "a b", "100000 0", "100000 -5",
                            "0 100000", "1 2 3", "99999999999999999999 1"}) {
    Write("mount/app/cpu.max", limit);
    EXPECT_EQ(Quota(), std::nullopt) << limit;
  }
}

}  // namespace
}  // namespace nibble
