#include "tensor/io/atomic_file.h"

#include <filesystem>
#include <iterator>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::MakeTestFolder;
using testing::ReadFile;
using testing::WriteFile;

int CountFiles(const std::string& dir) {
  using Iterator = std::filesystem::directory_iterator;
  return static_cast<int>(std::distance(Iterator(dir), Iterator()));
}

absl::Span<const std::byte> Bytes(absl::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

// With and without a name before Commit.
class AtomicFileTest : public ::testing::TestWithParam<bool> {
 protected:
  static absl::StatusOr<AtomicFile> Create(const std::string& path) {
    return GetParam() ? AtomicFile::CreateNamed(path)
                      : AtomicFile::Create(path);
  }
};
INSTANTIATE_TEST_SUITE_P(Named, AtomicFileTest, ::testing::Bool());

TEST_P(AtomicFileTest, AppearsOnlyWhenCommitted) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  absl::StatusOr<AtomicFile> file = Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Append("one ").ok());
  ASSERT_TRUE(file->Append("two").ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(ReadFile(path), "one two");
  EXPECT_EQ(CountFiles(dir), 1);
}

TEST_P(AtomicFileTest, WithoutCommitTheOldFileStays) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  WriteFile(path, "old");
  {
    absl::StatusOr<AtomicFile> file = Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Append("new").ok());
  }
  EXPECT_EQ(ReadFile(path), "old");
  EXPECT_EQ(CountFiles(dir), 1);
}

TEST_P(AtomicFileTest, CommitReplacesTheOldFile) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  WriteFile(path, "old");
  absl::StatusOr<AtomicFile> file = Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Append("new").ok());
  EXPECT_EQ(ReadFile(path), "old");
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(ReadFile(path), "new");
  EXPECT_EQ(CountFiles(dir), 1);
}

TEST_P(AtomicFileTest, WritesAgainWhatItAppended) {
  const std::string path = MakeTestFolder() + "/a";
  absl::StatusOr<AtomicFile> file = Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Reserve(8).ok());
  ASSERT_TRUE(file->Append("....").ok());
  ASSERT_TRUE(file->WriteAt(1, Bytes("ab")).ok());
  ASSERT_TRUE(file->Append("!").ok());
  ASSERT_TRUE(file->Commit().ok());
  // No longer than what was appended, whatever was reserved.
  EXPECT_EQ(ReadFile(path), ".ab.!");
}

TEST_P(AtomicFileTest, PermissionsAreThoseOfAnyNewFile) {
  const std::string dir = MakeTestFolder();
  WriteFile(dir + "/ordinary", "text");
  absl::StatusOr<AtomicFile> file = Create(dir + "/a");
  ASSERT_TRUE(file.ok() && file->Append("text").ok() && file->Commit().ok());
  EXPECT_EQ(std::filesystem::status(dir + "/a").permissions(),
            std::filesystem::status(dir + "/ordinary").permissions());
}

TEST_P(AtomicFileTest, TwoWritersDoNotMix) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  absl::StatusOr<AtomicFile> first = Create(path);
  absl::StatusOr<AtomicFile> second = Create(path);
  ASSERT_TRUE(first.ok() && second.ok());
  ASSERT_TRUE(first->Append("first").ok());
  ASSERT_TRUE(second->Append("second").ok());
  ASSERT_TRUE(first->Commit().ok());
  ASSERT_TRUE(second->Commit().ok());
  EXPECT_EQ(ReadFile(path), "second");
  EXPECT_EQ(CountFiles(dir), 1);
}

TEST_P(AtomicFileTest, MovedFromFileRemovesNothing) {
  const std::string dir = MakeTestFolder(), path = dir + "/a";
  absl::StatusOr<AtomicFile> file = Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  AtomicFile moved = *std::move(file);
  file = absl::CancelledError();  // Destroys the moved-from file.
  ASSERT_TRUE(moved.Append("text").ok());
  ASSERT_TRUE(moved.Commit().ok());
  EXPECT_EQ(ReadFile(path), "text");
}

TEST(AtomicFileErrorTest, NamesThePathWhenThereIsNoRoom) {
  const std::string path = MakeTestFolder() + "/a";
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status status = file->Reserve(uint64_t{1} << 55);
  if (status.ok()) GTEST_SKIP() << "the file system cannot reserve room";
  EXPECT_THAT(status.message(), HasSubstr(path));
}

TEST(AtomicFileErrorTest, RefusesFoldersAndDevices) {
  EXPECT_EQ(AtomicFile::Create(MakeTestFolder()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AtomicFile::Create("/dev/null").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
