#include "quantization/calibrated/block_cache.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class TrimBlockCacheTest : public ::testing::Test {
 protected:
  TrimBlockCacheTest()
      : work_(::testing::TempDir() + "/block_cache_test"),
        cache_(work_ + "/cache") {
    fs::remove_all(work_);
    fs::create_directories(cache_);
  }

  // A file of the cache, written so many seconds ago.
  void Cached(const std::string& name, int64_t bytes, int age) {
    const std::string path = cache_ + "/" + name;
    std::ofstream(path) << std::string(static_cast<size_t>(bytes), 'x');
    fs::last_write_time(
        path, fs::file_time_type::clock::now() - std::chrono::seconds(age));
  }

  std::vector<std::string> Left() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(cache_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  const std::string work_, cache_;
};

TEST_F(TrimBlockCacheTest, RemovesTheOldestBeyondItsBytes) {
  Cached("b", 100, /*age=*/30);
  Cached("a", 100, /*age=*/20);
  Cached("c", 100, /*age=*/10);
  TrimBlockCache(cache_, 300);
  EXPECT_THAT(Left(), ElementsAre("a", "b", "c"));
  TrimBlockCache(cache_, 299);
  EXPECT_THAT(Left(), ElementsAre("a", "c"));
  TrimBlockCache(cache_, 0);
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(TrimBlockCacheTest, LeavesAndDoesNotCountWhatAWorkFolderHas) {
  Cached("used", 1000, /*age=*/30);
  Cached("unused", 100, /*age=*/20);
  fs::create_hard_link(cache_ + "/used", work_ + "/block-0.nib");
  TrimBlockCache(cache_, 100);
  EXPECT_THAT(Left(), ElementsAre("unused", "used"));
  TrimBlockCache(cache_, 99);
  EXPECT_THAT(Left(), ElementsAre("used"));
}

TEST_F(TrimBlockCacheTest, OfNoFolderIsNothing) {
  TrimBlockCache(work_ + "/none", 0);
  EXPECT_FALSE(fs::exists(work_ + "/none"));
}

}  // namespace
}  // namespace nibble
