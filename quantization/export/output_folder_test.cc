#include "quantization/export/output_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::IsOk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Larger than any process's number can be (PID_MAX_LIMIT is 2^22).
constexpr int kNoProcess = (1 << 22) + 1;

class OutputFolderDeathTest : public ::testing::Test {
 protected:
  OutputFolderDeathTest() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = absl::StrCat(::testing::TempDir(), "/output_folder_test_",
                           info->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    out_ = folder_ + "/out";
  }

  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.insert(entry.path().filename());
    }
    return names;
  }

  // What a run of this number leaves when it is killed.
  std::string Leave(int pid) const {
    const std::string left = absl::StrCat(out_, ".nibble-tmp-", pid);
    fs::create_directories(left);
    std::ofstream(left + "/config.json") << "{}";
    return left;
  }

  std::string folder_, out_;
};

TEST_F(OutputFolderDeathTest, AppearsWhenCommittedOrNotAtAll) {
  {
    NIBBLE_ASSERT_OK_AND_ASSIGN(const auto folder, OutputFolder::Create(out_));
    std::ofstream(folder.path() + "/a") << "a";
    EXPECT_FALSE(fs::exists(out_));
  }
  EXPECT_THAT(Names(), IsEmpty());
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto folder, OutputFolder::Create(out_ + "/"));
  std::ofstream(folder.path() + "/a") << "a";
  EXPECT_THAT(folder.Commit(), IsOk());
  EXPECT_THAT(Names(), ElementsAre("out"));
  EXPECT_TRUE(fs::exists(out_ + "/a"));
}

TEST_F(OutputFolderDeathTest, WhatAKilledRunLeftIsRemovedByTheNext) {
  EXPECT_EXIT(
      {
        const auto folder = OutputFolder::Create(out_);
        if (folder.ok()) kill(getpid(), SIGKILL);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  EXPECT_EQ(Names().size(), 1u);
  EXPECT_FALSE(fs::exists(out_));
  Leave(kNoProcess);
  Leave(getpid());  // of a process that had our number
  { NIBBLE_ASSERT_OK_AND_ASSIGN(const auto next, OutputFolder::Create(out_)); }
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(OutputFolderDeathTest, WhatMayBeInUseStays) {
  const std::string locked = Leave(kNoProcess);
  const int fd = open(locked.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(flock(fd, LOCK_EX | LOCK_NB), 0);
  const std::string alive = Leave(getppid());
  const std::string others[] = {out_ + ".nibble-tmp-", out_ + ".nibble-tmp-1a",
                                out_ + "s.nibble-tmp-4194305"};
  for (const std::string& other : others) fs::create_directories(other);
  { NIBBLE_ASSERT_OK_AND_ASSIGN(const auto next, OutputFolder::Create(out_)); }
  close(fd);
  EXPECT_TRUE(fs::exists(locked + "/config.json"));
  EXPECT_TRUE(fs::exists(alive + "/config.json"));
  for (const std::string& other : others) EXPECT_TRUE(fs::exists(other));
}

TEST_F(OutputFolderDeathTest, TwoOfOneNameInOneProcessAreAnError) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto folder, OutputFolder::Create(out_));
  const absl::Status second = OutputFolder::Create(out_).status();
  EXPECT_THAT(std::string(second.message()), HasSubstr(folder.path()));
  EXPECT_FALSE(second.ok());
  EXPECT_TRUE(fs::exists(folder.path()));
}

}  // namespace
}  // namespace nibble
