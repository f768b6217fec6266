// What the writer of packed files refuses, and that nothing but a whole file
// ever stands under the name.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::MakeTestFolder;
using testing::ReadFile;
using testing::WriteFile;

// More than the writer holds back.
const PackedTensorPlan kPlan = {"a", PlainTensor{DType::kF32, {2'500'000}}};
constexpr size_t kPlanBytes = 10'000'000;

std::vector<std::byte> Zeros(size_t count) {
  return std::vector<std::byte>(count);
}

absl::Status CreateStatus(const std::vector<PackedTensorPlan>& plan,
                          const std::vector<EmbeddedFile>& files) {
  return PackedFileWriter::Create(MakeTestFolder() + "/a.nib", {}, plan, files)
      .status();
}

TEST(PackedFileWriterTest, NamesTheTensorThatCannotBeWritten) {
  const auto plain = [](const std::string& name, Shape shape,
                        DType dtype = DType::kF32) {
    return PackedTensorPlan{name, PlainTensor{dtype, shape}};
  };
  const std::vector<std::pair<std::vector<PackedTensorPlan>, std::string>>
      cases = {
          {{plain("", {1})}, "1 to 1000 bytes of UTF-8"},
          {{plain(std::string(1001, 'x'), {1})}, "(1001 bytes)"},
          {{plain("\xFF", {1})}, "UTF-8"},
          {{plain("t", Shape())}, "tensor 't' has shape []"},
          {{plain("t", {2, 0})}, "tensor 't' has shape [2, 0]"},
          {{plain("t", {33}, DType::kQ8_0)}, "tensor 't' has a bad shape"},
          {{kPlan, plain("b", {1}), kPlan}, "tensor 'a' stands twice"},
      };
  for (const auto& [plan, reason] : cases) {
    const absl::Status status = CreateStatus(plan, {});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << reason;
    EXPECT_THAT(status.message(), HasSubstr(reason));
    EXPECT_THAT(status.message(), HasSubstr("a.nib"));
  }
}

TEST(PackedFileWriterTest, NamesTheFileThatCannotBeEmbedded) {
  const std::vector<std::pair<std::vector<EmbeddedFile>, std::string>> cases = {
      {{{"", "x"}}, "UTF-8"},
      {{{"a/b", "x"}}, "leads to a folder"},
      {{{"a\\b", "x"}}, "leads to a folder"},
      {{{"..", "x"}}, "leads to a folder"},
      {{{std::string("a\0b", 3), "x"}}, "leads to a folder"},
      {{{"f", ""}}, "file 'f' is empty"},
      {{{"f", "x"}, {"f", "y"}}, "file 'f' stands twice"},
  };
  for (const auto& [files, reason] : cases) {
    const absl::Status status = CreateStatus({}, files);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << reason;
    EXPECT_THAT(status.message(), HasSubstr(reason));
  }
}

TEST(PackedFileWriterTest, RefusesAManifestThatNoReaderTakes) {
  PackedManifest manifest;
  manifest.mutable_record()->set_source(std::string(5 << 20, 'x'));
  const auto writer =
      PackedFileWriter::Create(MakeTestFolder() + "/a", manifest, {}, {});
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(writer.status().message(), HasSubstr("is too long"));
}

TEST(PackedFileWriterTest, IgnoresPartsOfTheGivenManifest) {
  PackedManifest manifest;
  manifest.add_tensors()->set_name("other");
  manifest.add_files()->set_name("other");
  const std::string path = MakeTestFolder() + "/a.nib";
  auto writer = PackedFileWriter::Create(path, manifest, {}, {});
  ASSERT_TRUE(writer.ok() && writer->Commit().ok());
  EXPECT_TRUE((*PackedFile::Open(path))->names().empty());
}

TEST(PackedFileWriterTest, CommitNeedsEveryByteOfThePlan) {
  const std::string dir = MakeTestFolder();
  {
    auto writer = PackedFileWriter::Create(dir + "/a.nib", {}, {kPlan}, {});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE(writer->Append(Zeros(kPlanBytes - 1)).ok());
    const absl::Status status = writer->Commit();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(),
                HasSubstr("tensor 'a' has 9999999 of its 10000000 bytes"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir));
}

TEST(PackedFileWriterTest, RefusesMoreBytesThanPlanned) {
  auto writer =
      PackedFileWriter::Create(MakeTestFolder() + "/a.nib", {}, {kPlan}, {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const absl::Status status = writer->Append(Zeros(kPlanBytes + 3));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("3 bytes behind the last tensor"));
}

TEST(PackedFileWriterTest, SaysThatAFolderIsMissing) {
  const std::string path = MakeTestFolder() + "/none/a.nib";
  const auto writer = PackedFileWriter::Create(path, {}, {kPlan}, {});
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(writer.status().message(), HasSubstr(path));
}

// A limit on the size of files stands in for a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
    handler_ = signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {bytes, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FullDisk() {
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before_), 0);
    signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_;
  void (*handler_)(int);
};

TEST(PackedFileWriterTest, FullDiskLeavesNoFile) {
  // In the first write, in the second, in the last one, which Commit does.
  for (const rlim_t room : {10, 5'000'000, 10'000'000}) {
    const std::string dir = MakeTestFolder(), path = dir + "/a.nib";
    absl::Status status;
    {
      const FullDisk full(room);
      auto writer = PackedFileWriter::Create(path, {}, {kPlan},
                                             {{"f", std::string(2000, 'x')}});
      status = writer.status();
      if (status.ok()) status = writer->Append(Zeros(kPlanBytes));
      if (status.ok()) status = writer->Commit();
    }
    EXPECT_FALSE(status.ok()) << room;
    EXPECT_THAT(status.message(), HasSubstr(path));
    EXPECT_TRUE(std::filesystem::is_empty(dir)) << room;
  }
}

TEST(PackedFileWriterTest, KnowsAtOnceThatTheDiskIsTooSmall) {
  const std::string dir = MakeTestFolder(), path = dir + "/a.nib";
  const int64_t side = int64_t{1} << 22;  // 2^44 bytes.
  const auto writer = PackedFileWriter::Create(
      path, {},
      {{"a", *PackedLayout::Create(WeightFormat::kInt8, side, side, 32)}}, {});
  if (writer.ok()) GTEST_SKIP() << "the file system has room, or cannot tell";
  EXPECT_THAT(writer.status().message(), HasSubstr(path));
  EXPECT_THAT(writer.status().message(), HasSubstr("which takes 18691"));
  EXPECT_TRUE(std::filesystem::is_empty(dir));
}

// Runs `work` in a process of its own, which then kills itself.
template <class Work>
void RunAndKill(Work work) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    work();
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

bool HasFilesWithoutNames(const std::string& dir) {
  const int fd = open(dir.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

TEST(PackedFileWriterTest, KilledWriterLeavesNoFile) {
  const std::string dir = MakeTestFolder(), path = dir + "/a.nib";
  if (!HasFilesWithoutNames(dir)) {
    GTEST_SKIP() << "the file system has no files without names";
  }
  for (const size_t written : {size_t{0}, size_t{1}, kPlanBytes}) {
    RunAndKill([&] {
      auto writer = PackedFileWriter::Create(path, {}, {kPlan}, {});
      if (!writer.ok() || !writer->Append(Zeros(written)).ok()) _exit(1);
    });
    EXPECT_TRUE(std::filesystem::is_empty(dir)) << written;
  }
}

TEST(PackedFileWriterTest, KilledWriterLeavesTheOldFile) {
  const std::string dir = MakeTestFolder(), path = dir + "/a.nib";
  WriteFile(path, "old");
  RunAndKill([&] {
    auto writer = PackedFileWriter::Create(path, {}, {kPlan}, {});
    if (!writer.ok() || !writer->Append(Zeros(kPlanBytes)).ok()) _exit(1);
  });
  EXPECT_EQ(ReadFile(path), "old");
}

}  // namespace
}  // namespace nibble
