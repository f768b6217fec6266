#include "testing/shared_data.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "gtest/gtest.h"

namespace nibble::testing {
namespace {

namespace fs = std::filesystem;

class SharedDataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / "shared_data_test";
    fs::create_directories(root_ / "text");
    std::ofstream(root_ / "text" / "a.txt") << "a";
    ASSERT_EQ(setenv("NIBBLE_SHARED_DATA", root_.c_str(), 1), 0);
  }
  void TearDown() override { unsetenv("NIBBLE_SHARED_DATA"); }

  fs::path root_;
};

TEST_F(SharedDataTest, EnvironmentVariableNamesTheFolder) {
  const std::optional<std::string> path = SharedDataPath("text/a.txt");
  ASSERT_TRUE(path.has_value());
  EXPECT_EQ(*path, (root_ / "text" / "a.txt").string());
}

TEST_F(SharedDataTest, MissingFileIsAbsentAndNotAnError) {
  EXPECT_EQ(SharedDataPath("text/b.txt"), std::nullopt);
}

TEST_F(SharedDataTest, MissingFolderIsAbsentAndNotSearchedElsewhere) {
  ASSERT_EQ(setenv("NIBBLE_SHARED_DATA", (root_ / "none").c_str(), 1), 0);
  EXPECT_EQ(SharedDataPath("text/a.txt"), std::nullopt);
}

TEST(RunfilePathTest, FindsADataFileOfTheRepository) {
  EXPECT_TRUE(fs::exists(RunfilePath("testing/shared_data.h")));
}

}  // namespace
}  // namespace nibble::testing
