#include "tensor/mapped_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

class MappedFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "/mapped_file_test_" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }

  std::string Path(const std::string& name) const { return dir_ + "/" + name; }

  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name), std::ios::binary) << text;
    return Path(name);
  }

  // Opens and expects an error that names the path.
  std::string ErrorOf(const std::string& path) const {
    const auto file = MappedFile::Open(path);
    if (file.ok()) return "opened";
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(path));
    return std::string(file.status().message());
  }

  static std::string TextOf(const MappedFile& file) {
    return std::string(reinterpret_cast<const char*>(file.bytes().data()),
                       file.bytes().size());
  }

  std::string dir_;
};

TEST_F(MappedFileTest, ShowsTheBytesOfTheFile) {
  const auto file = MappedFile::Open(Write("a", "some bytes"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), Path("a"));
  EXPECT_EQ(TextOf(**file), "some bytes");
  EXPECT_TRUE((*file)->CheckUnchanged().ok());
}

// Kilobytes of mapped files that this process holds in memory.
int64_t ResidentFileKilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "RssFile:") continue;
    int64_t kilobytes = 0;
    status >> kilobytes;
    return kilobytes;
  }
  return -1;
}

TEST_F(MappedFileTest, ReleaseGivesMemoryBackAndKeepsTheBytes) {
  std::string text(8 << 20, 'x');
  for (size_t i = 0; i < text.size(); i += 4096) text[i] = 'a' + i / 4096 % 26;
  const auto file = MappedFile::Open(Write("a", text));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(TextOf(**file), text);
  const int64_t before = ResidentFileKilobytes();
  (*file)->Release((*file)->bytes().subspan(100, 7 << 20));
  // Other pages may come in meanwhile; seven megabytes of them do not.
  EXPECT_LT(ResidentFileKilobytes(), before - 6000);
  EXPECT_EQ(TextOf(**file), text);
}

TEST_F(MappedFileTest, ReleaseLeavesForeignMemoryAlone) {
  const auto file = MappedFile::Open(Write("a", std::string(10000, 'x')));
  ASSERT_TRUE(file.ok()) << file.status();
  const std::vector<std::byte> mine(1 << 20, std::byte{7});
  (*file)->Release(mine);
  (*file)->Release({});
  EXPECT_EQ(std::count(mine.begin(), mine.end(), std::byte{7}), 1 << 20);
}

TEST_F(MappedFileTest, AdviceChangesNoBytes) {
  const auto file = MappedFile::Open(Write("a", "some bytes"));
  ASSERT_TRUE(file.ok()) << file.status();
  (*file)->Advise(MappedFile::Access::kSequential);
  (*file)->Advise(MappedFile::Access::kWillNeed);
  (*file)->Advise(MappedFile::Access::kRandom);
  EXPECT_EQ(TextOf(**file), "some bytes");
}

TEST_F(MappedFileTest, FollowsSymbolicLinks) {
  std::filesystem::create_symlink(Write("a", "target"), Path("link"));
  const auto file = MappedFile::Open(Path("link"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(TextOf(**file), "target");
}

TEST_F(MappedFileTest, RejectsMissingFile) {
  EXPECT_EQ(MappedFile::Open(Path("none")).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(ErrorOf(Path("none")), HasSubstr("No such file"));
}

TEST_F(MappedFileTest, RejectsDirectory) {
  EXPECT_THAT(ErrorOf(dir_), HasSubstr("is a directory"));
}

TEST_F(MappedFileTest, RejectsEmptyFile) {
  EXPECT_THAT(ErrorOf(Write("a", "")), HasSubstr("is empty"));
}

TEST_F(MappedFileTest, RejectsFifoWithoutWaitingForAWriter) {
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  EXPECT_THAT(ErrorOf(Path("fifo")), HasSubstr("is a FIFO"));
}

TEST_F(MappedFileTest, RejectsDevice) {
  EXPECT_THAT(ErrorOf("/dev/zero"), HasSubstr("is a device"));
}

TEST_F(MappedFileTest, RejectsLoopOfSymbolicLinks) {
  std::filesystem::create_symlink(Path("b"), Path("a"));
  std::filesystem::create_symlink(Path("a"), Path("b"));
  EXPECT_THAT(ErrorOf(Path("a")), HasSubstr("symbolic links"));
}

TEST_F(MappedFileTest, RejectsFileWithoutPermission) {
  const std::string path = Write("a", "secret");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  const bool root = geteuid() == 0;
  constexpr uid_t kNobody = 65534;
  if (root && seteuid(kNobody) != 0) {
    GTEST_SKIP() << "root reads everything, and cannot become another user";
  }
  EXPECT_EQ(MappedFile::Open(path).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(ErrorOf(path), HasSubstr("Permission denied"));
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
}

TEST_F(MappedFileTest, RejectsEmptyNameAndNulByteInName) {
  EXPECT_FALSE(MappedFile::Open("").ok());
  const std::string path = Write("a", "text");
  EXPECT_FALSE(MappedFile::Open(path + std::string("\0.txt", 5)).ok());
}

TEST_F(MappedFileTest, KeepsTheOldBytesWhenTheFileIsReplacedByRename) {
  const std::string path = Write("a", "old bytes");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(std::rename(Write("b", "new").c_str(), path.c_str()), 0);
  EXPECT_EQ(TextOf(**file), "old bytes");
  EXPECT_TRUE((*file)->CheckUnchanged().ok());
}

TEST_F(MappedFileTest, NoticesTruncation) {
  const std::string path = Write("a", "some bytes");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(truncate(path.c_str(), 4), 0);
  const absl::Status status = (*file)->CheckUnchanged();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("changed from 10 to 4 bytes"));
}

TEST_F(MappedFileTest, NoticesOverwriting) {
  const std::string path = Write("a", "some bytes");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  Write("a", "same count");
  // File systems stamp writes with the tick of a coarse clock, which may not
  // have moved since the first: set a time that differs for certain.
  const struct timespec times[2] = {{1, 0}, {1, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_THAT(std::string((*file)->CheckUnchanged().message()),
              HasSubstr("was written to"));
}

}  // namespace
}  // namespace nibble
