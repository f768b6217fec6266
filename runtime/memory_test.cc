#include "runtime/memory.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

// A root folder with a /proc and a /sys of its own.
class MemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = absl::StrCat(
        ::testing::TempDir(), "/",
        ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(root_);
  }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = absl::StrCat(root_, path);
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }

  std::string root_;
};

TEST_F(MemoryTest, ReadsMemAvailable) {
  Write("/proc/meminfo",
        "MemTotal:        8000000 kB\nMemFree:          100000 kB\n"
        "MemAvailable:    2000000 kB\n");
  EXPECT_EQ(AvailableMemoryBytesAt(root_), int64_t{2000000} * 1024);
}

TEST_F(MemoryTest, IsUnlimitedWhereNothingCanBeRead) {
  EXPECT_EQ(AvailableMemoryBytesAt(root_), std::numeric_limits<int64_t>::max());
}

TEST_F(MemoryTest, Version2GroupLimitsWhatMeminfoSays) {
  Write("/proc/meminfo", "MemAvailable:    2000000 kB\n");
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "1000000\n");
  Write("/sys/fs/cgroup/a/b/memory.current", "700000\n");
  Write("/sys/fs/cgroup/a/b/memory.stat",
        "anon 400000\nactive_file 100000\ninactive_file 50000\n");
  EXPECT_EQ(AvailableMemoryBytesAt(root_), 1000000 - 700000 + 150000);
}

TEST_F(MemoryTest, LimitOfAParentGroupCounts) {
  Write("/proc/meminfo", "MemAvailable:    2000000 kB\n");
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("/sys/fs/cgroup/a/b/memory.current", "1\n");
  Write("/sys/fs/cgroup/a/memory.max", "5000\n");
  Write("/sys/fs/cgroup/a/memory.current", "2000\n");
  EXPECT_EQ(AvailableMemoryBytesAt(root_), 3000);
}

TEST_F(MemoryTest, RootGroupOfAContainerCounts) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "5000\n");
  Write("/sys/fs/cgroup/memory.current", "2000\n");
  EXPECT_EQ(AvailableMemoryBytesAt(root_), 3000);
}

TEST_F(MemoryTest, Version1GroupLimits) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n3:memory:/docker/f\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9000\n");
  Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "4000\n");
  Write("/sys/fs/cgroup/memory/memory.stat",
        "inactive_file 1\ntotal_inactive_file 1000\n");
  EXPECT_EQ(AvailableMemoryBytesAt(root_), 9000 - 4000 + 1000);
}

TEST_F(MemoryTest, GroupAboveItsLimitHasNothingLeft) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "2000\n");
  Write("/sys/fs/cgroup/memory.current", "5000\n");
  EXPECT_EQ(AvailableMemoryBytesAt(root_), 0);
}

TEST(AvailableMemoryTest, ThisMachineHasSome) {
  EXPECT_GT(AvailableMemoryBytes(), 0);
}

TEST(FormatBytesTest, UsesDecimalUnits) {
  EXPECT_EQ(FormatBytes(999), "999 bytes");
  EXPECT_EQ(FormatBytes(12000), "12 kB");
  EXPECT_EQ(FormatBytes(340000000), "340 MB");
  EXPECT_EQ(FormatBytes(13478000000), "13.5 GB");
}

}  // namespace
}  // namespace nibble
