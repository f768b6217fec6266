#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/safetensors_header.h"
#include "tensor/io/tensor_source.h"
#include "tensor/io/test_files.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using testing::MakeTestFolder;
using testing::ReadFile;
using testing::WriteFile;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

std::vector<std::string> FilesIn(const std::string& dir) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    names.push_back(entry.path().filename());
  }
  return names;
}

const std::vector<float>& SomeFloats() {
  static const std::vector<float> values = {1.5f, -2.0f, 0.25f, 1e-30f, 3, 4};
  return values;
}

NamedTensor SomeTensor(const std::string& name) {
  return {name,
          MakeTensorView(absl::MakeConstSpan(SomeFloats()), Shape({2, 3}))};
}

TEST(SafetensorsWriterTest, WhatIsWrittenReadsBack) {
  const std::string path = MakeTestFolder() + "/a.safetensors";
  const std::vector<uint8_t> bytes = {1, 2, 3};
  const std::vector<int64_t> wide = {-5};
  const std::vector<BF16> narrow = {ToBF16(1.0f)};
  const std::vector<NamedTensor> tensors = {
      {"bytes", MakeTensorView(absl::MakeConstSpan(bytes), Shape({3}))},
      {"narrow", MakeTensorView(absl::MakeConstSpan(narrow), Shape({1, 1}))},
      SomeTensor("caf\xc3\xa9 \"quoted\"\n"),
      {"wide", MakeTensorView(absl::MakeConstSpan(wide), Shape())},
      {"none", MakeTensorView(absl::Span<const float>(), Shape({0, 4}))},
  };
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());
  const auto source = OpenSafetensors(path);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->names().size(), tensors.size());
  for (const NamedTensor& tensor : tensors) {
    const absl::StatusOr<TensorView> view = (*source)->Find(tensor.name);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->dtype, tensor.view.dtype);
    EXPECT_EQ(view->shape, tensor.view.shape);
    ASSERT_EQ(view->bytes, tensor.view.bytes);
    if (view->bytes > 0) {
      EXPECT_EQ(std::memcmp(view->data, tensor.view.data, view->bytes), 0);
    }
  }
}

TEST(SafetensorsWriterTest, DataIsAlignedInTheFile) {
  const std::string path = MakeTestFolder() + "/a.safetensors";
  const std::vector<uint8_t> odd = {1, 2, 3};
  ASSERT_TRUE(
      WriteSafetensors(
          path, {{"odd", MakeTensorView(absl::MakeConstSpan(odd), Shape({3}))},
                 SomeTensor("floats")})
          .ok());
  const std::string file = ReadFile(path);
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof(header));
  EXPECT_EQ((header + 8) % 64, 0u);
  const auto parsed =
      ParseSafetensorsHeader("a", absl::string_view(file).substr(8, header));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  // The floats come first, so that the odd bytes do not push them off.
  ASSERT_EQ(parsed->tensors.size(), 2u);
  EXPECT_EQ(parsed->tensors[0].name, "floats");
  EXPECT_EQ(parsed->tensors[0].begin, 0);
  EXPECT_EQ(parsed->tensors[1].begin, 24);
}

TEST(SafetensorsWriterTest, MetadataIsKept) {
  const std::string path = MakeTestFolder() + "/a.safetensors";
  const std::map<std::string, std::string> metadata = {{"format", "pt"},
                                                       {"a", "\"\\\n"}};
  ASSERT_TRUE(WriteSafetensors(path, {SomeTensor("t")}, metadata).ok());
  const std::string file = ReadFile(path);
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof(header));
  const auto parsed =
      ParseSafetensorsHeader("a", absl::string_view(file).substr(8, header));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->metadata, metadata);
}

TEST(SafetensorsWriterTest, ReplacesTheOldFileAndLeavesNoOther) {
  const std::string dir = MakeTestFolder();
  WriteFile(dir + "/a.safetensors", "old");
  ASSERT_TRUE(WriteSafetensors(dir + "/a.safetensors", {SomeTensor("t")}).ok());
  EXPECT_TRUE(OpenSafetensors(dir + "/a.safetensors").ok());
  EXPECT_THAT(FilesIn(dir), ElementsAre("a.safetensors"));
}

// Rewriting a file that is being read: the reader keeps the old bytes.
TEST(SafetensorsWriterTest, ReadersKeepTheOldFile) {
  const std::string path = MakeTestFolder() + "/a.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, {SomeTensor("t")}).ok());
  const auto source = OpenSafetensors(path);
  ASSERT_TRUE(source.ok()) << source.status();
  const std::vector<float> other = {9};
  ASSERT_TRUE(
      WriteSafetensors(
          path, {{"t", MakeTensorView(absl::MakeConstSpan(other), Shape({1}))}})
          .ok());
  EXPECT_THAT((*source)->Find("t")->As<float>(),
              ElementsAreArray(SomeFloats()));
  EXPECT_THAT((*OpenSafetensors(path))->Find("t")->As<float>(), ElementsAre(9));
}

TEST(SafetensorsWriterTest, RejectsWhatTheFormatCannotHold) {
  const std::string dir = MakeTestFolder();
  const std::string path = dir + "/a.safetensors";
  const auto error = [&](std::vector<NamedTensor> tensors,
                         std::map<std::string, std::string> metadata = {}) {
    const absl::Status status = WriteSafetensors(path, tensors, metadata);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), HasSubstr(path));
    return Message(status);
  };
  EXPECT_THAT(error({SomeTensor("t"), SomeTensor("t")}),
              HasSubstr("tensor 't' is given twice"));
  EXPECT_THAT(error({SomeTensor("__metadata__")}), HasSubstr("metadata"));
  EXPECT_THAT(error({SomeTensor("\xff")}), HasSubstr("is not UTF-8"));
  EXPECT_THAT(error({SomeTensor("t")}, {{"k", "\xc3"}}),
              HasSubstr("is not UTF-8"));
  const std::vector<std::byte> block(18);
  EXPECT_THAT(
      error({{"q", TensorView{DType::kQ4_0, Shape({32}), block.data(), 18}}}),
      HasSubstr("has dtype q4_0"));
  EXPECT_THAT(
      error({{"cut", TensorView{DType::kU8, Shape({32}), block.data(), 18}}}),
      HasSubstr("has 18 bytes where its shape needs 32"));
  EXPECT_TRUE(FilesIn(dir).empty());
}

TEST(SafetensorsWriterTest, RefusesToReplaceADeviceOrFolder) {
  EXPECT_THAT(Message(WriteSafetensors("/dev/full", {SomeTensor("t")})),
              HasSubstr("no regular file"));
  struct stat info;
  ASSERT_EQ(stat("/dev/full", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode));
  const std::string dir = MakeTestFolder();
  EXPECT_FALSE(WriteSafetensors(dir, {SomeTensor("t")}).ok());
}

TEST(SafetensorsWriterTest, MissingFolderIsNamed) {
  const std::string path = MakeTestFolder() + "/none/a.safetensors";
  const absl::Status status = WriteSafetensors(path, {SomeTensor("t")});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr(path));
}

// A limit on file size stands in for a full disk: write() stops half-way and
// then fails.
TEST(SafetensorsWriterTest, FullDiskGivesAnErrorAndLeavesTheOldFile) {
  const std::string dir = MakeTestFolder();
  const std::string path = dir + "/a.safetensors";
  WriteFile(path, "old");
  const std::vector<float> values(100000, 1.0f);
  struct rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  const struct rlimit limit = {65536, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status status = WriteSafetensors(
      path,
      {{"t", MakeTensorView(absl::MakeConstSpan(values), Shape({100000}))}});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(Message(status), HasSubstr(path));
  EXPECT_EQ(ReadFile(path), "old");
  EXPECT_THAT(FilesIn(dir), ElementsAre("a.safetensors"));
}

}  // namespace
}  // namespace nibble
