#include "apps/benchmark/system_info.h"

#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

class SystemInfoTest : public ::testing::Test {
 protected:
  SystemInfoTest() {
    std::string folder = ::testing::TempDir() + "/system_XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    root_ = folder + "/";
  }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(
        std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

  void WriteCache(int index, const std::string& level, const std::string& type,
                  const std::string& size) {
    const std::string folder =
        "sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    Write(folder + "level", level + "\n");
    Write(folder + "type", type + "\n");
    Write(folder + "size", size + "\n");
    Write(folder + "shared_cpu_list", "0-1\n");
  }

  std::string root_;
};

TEST_F(SystemInfoTest, ReadsTheCachesFromTheInsideOut) {
  WriteCache(0, "1", "Data", "48K");
  WriteCache(1, "1", "Instruction", "64M");
  WriteCache(2, "3", "Unified", "32M");
  const SystemInfo system = ReadSystemInfo(root_);
  ASSERT_EQ(system.caches.size(), 3u);
  EXPECT_EQ(system.caches[0].bytes, 48 << 10);
  EXPECT_EQ(system.caches[0].type, "Data");
  EXPECT_EQ(system.caches[2].level, 3);
  EXPECT_EQ(system.caches[2].shared_by, "0-1");
  EXPECT_EQ(LastLevelCacheBytes(system), 32 << 20)
      << "instructions' caches do not count";
}

TEST_F(SystemInfoTest, TakesACacheOfAnUnreadableSizeForUnknown) {
  WriteCache(0, "3", "Unified", "many");
  EXPECT_EQ(LastLevelCacheBytes(ReadSystemInfo(root_)), 0);
  WriteCache(0, "3", "Unified", "99999999999999999K");
  EXPECT_EQ(LastLevelCacheBytes(ReadSystemInfo(root_)), 0);
  WriteCache(0, "3", "Unified", "-4K");
  EXPECT_EQ(LastLevelCacheBytes(ReadSystemInfo(root_)), 0);
}

TEST_F(SystemInfoTest, ReadsNodesWithGapsBetweenTheirNumbers) {
  Write("sys/devices/system/node/online", "0,2-3\n");
  Write("sys/devices/system/node/node0/cpulist", "0-3\n");
  Write("sys/devices/system/node/node0/meminfo",
        "Node 0 MemTotal:       2048 kB\nNode 0 MemFree: 1 kB\n");
  Write("sys/devices/system/node/node2/cpulist", "4-7\n");
  const SystemInfo system = ReadSystemInfo(root_);
  ASSERT_EQ(system.nodes.size(), 3u);
  EXPECT_EQ(system.nodes[0].cpus, "0-3");
  EXPECT_EQ(system.nodes[0].memory_bytes, 2048 * 1024);
  EXPECT_EQ(system.nodes[1].number, 2);
  EXPECT_EQ(system.nodes[1].cpus, "4-7");
  EXPECT_EQ(system.nodes[2].memory_bytes, 0);
}

TEST_F(SystemInfoTest, ReadsHugePagesMemoryAndCpus) {
  Write("sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never\n");
  Write("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 3 kB\n");
  Write("sys/devices/system/cpu/online", "0-5,8\n");
  const SystemInfo system = ReadSystemInfo(root_);
  EXPECT_EQ(system.huge_pages, "madvise");
  EXPECT_EQ(system.memory_bytes, 1000 * 1024);
  EXPECT_EQ(system.online_cpus, 7);
}

TEST_F(SystemInfoTest, KnowsNothingOfAnEmptyFolder) {
  const SystemInfo system = ReadSystemInfo(root_);
  EXPECT_TRUE(system.caches.empty());
  EXPECT_TRUE(system.nodes.empty());
  EXPECT_EQ(system.huge_pages, "");
  EXPECT_EQ(system.memory_bytes, 0);
  EXPECT_EQ(system.online_cpus, 0);
  EXPECT_EQ(LastLevelCacheBytes(system), 0);
}

TEST(CountCpus, RefusesWhatIsNoList) {
  EXPECT_EQ(CountCpus("0"), 1);
  EXPECT_EQ(CountCpus("0-3,8"), 5);
  EXPECT_EQ(CountCpus(""), 0);
  EXPECT_EQ(CountCpus("3-1"), 0);
  EXPECT_EQ(CountCpus("-3"), 0);
  EXPECT_EQ(CountCpus("a-b"), 0);
  EXPECT_EQ(CountCpus("0-2000000000"), 0);
}

}  // namespace
}  // namespace nibble
