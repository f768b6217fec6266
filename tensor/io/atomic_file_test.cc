#include "tensor/io/atomic_file.h"

#include <filesystem>
#include <iterator>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

using testing::MakeTestFolder;
using testing::ReadFile;
using testing::WriteFile;

int CountFiles(const std::string& dir) {
  using Iterator = std::filesystem::directory_iterator;
  return static_cast<int>(std::distance(Iterator(dir), Iterator()));
}

TEST(AtomicFileTest, AppearsOnlyWhenCommitted) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Append("one ").ok());
  ASSERT_TRUE(file->Append("two").ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(ReadFile(path), "one two");
  EXPECT_EQ(CountFiles(dir), 1);
}

TEST(AtomicFileTest, WithoutCommitTheOldFileStays) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  WriteFile(path, "old");
  {
    absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Append("new").ok());
  }
  EXPECT_EQ(ReadFile(path), "old");
  EXPECT_EQ(CountFiles(dir), 1);
}

TEST(AtomicFileTest, TwoWritersDoNotMix) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  absl::StatusOr<AtomicFile> first = AtomicFile::Create(path);
  absl::StatusOr<AtomicFile> second = AtomicFile::Create(path);
  ASSERT_TRUE(first.ok() && second.ok());
  ASSERT_TRUE(first->Append("first").ok());
  ASSERT_TRUE(second->Append("second").ok());
  ASSERT_TRUE(first->Commit().ok());
  ASSERT_TRUE(second->Commit().ok());
  EXPECT_EQ(ReadFile(path), "second");
  EXPECT_EQ(CountFiles(dir), 1);
}

TEST(AtomicFileTest, MovedFromFileRemovesNothing) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  AtomicFile moved = *std::move(file);
  file = absl::CancelledError();  // Destroys the moved-from file.
  ASSERT_TRUE(moved.Append("text").ok());
  ASSERT_TRUE(moved.Commit().ok());
  EXPECT_EQ(ReadFile(path), "text");
}

TEST(AtomicFileTest, RefusesFoldersAndDevices) {
  EXPECT_EQ(AtomicFile::Create(MakeTestFolder()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AtomicFile::Create("/dev/null").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
