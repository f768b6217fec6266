#include "tensor/io/gguf_writer.h"

#include <signal.h>
#include <sys/resource.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/io/test_files.h"
#include "tensor/shape.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MakeTestFolder;
using testing::ReadFile;
using testing::WriteFile;

absl::Span<const std::byte> Bytes(absl::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

GgufMetadata SomeMetadata() {
  GgufMetadata metadata;
  metadata.String("general.architecture", "llama")
      .U32("llama.block_count", 6)
      .F32("llama.eps", 0.25f)
      .Bool("flag", true)
      .Strings("words", std::vector<std::string>{"a", "", "\xC4\xA0the"})
      .I32s("types", std::vector<int32_t>{1, -3})
      .F32s("scores", std::vector<float>{-1.5f, 2});
  return metadata;
}

TEST(GgufWriterTest, WhatIsWrittenReadsBack) {
  const std::string path = MakeTestFolder() + "/a.gguf";
  auto writer = GgufWriter::Create(path, SomeMetadata(),
                                   {{"a", DType::kF32, {3}},
                                    {"b", DType::kQ8_0, {2, 32}},
                                    {"c", DType::kF16, {5}}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::string a(12, 'a'), b(68, 'b'), c(10, 'c');
  // Pieces need not end where tensors do.
  ASSERT_TRUE(writer->Append(Bytes(a.substr(0, 5))).ok());
  ASSERT_TRUE(writer->Append(Bytes(a.substr(5) + b + c.substr(0, 1))).ok());
  ASSERT_TRUE(writer->Append(Bytes(c.substr(1))).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(writer->Commit().ok());
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->version(), 3u);
  EXPECT_EQ(*(*file)->GetString("general.architecture"), "llama");
  EXPECT_EQ(*(*file)->GetUint("llama.block_count"), 6u);
  EXPECT_EQ(*(*file)->GetFloat("llama.eps"), 0.25);
  EXPECT_EQ(*(*file)->GetBool("flag"), true);
  EXPECT_THAT(*(*file)->GetStringArray("words"),
              ElementsAre("a", "", "\xC4\xA0the"));
  EXPECT_THAT(*(*file)->GetIntArray("types"), ElementsAre(1, -3));
  EXPECT_THAT(*(*file)->GetFloatArray("scores"), ElementsAre(-1.5f, 2.0f));
  EXPECT_THAT((*file)->names(), ElementsAre("a", "b", "c"));
  const std::vector<std::string> wanted = {a, b, c};
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto view = (*file)->Find((*file)->names()[i]);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(
        std::string(reinterpret_cast<const char*>(view->data), view->bytes),
        wanted[i]);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data) % 32, 0u);
  }
  EXPECT_EQ((*file)->Find("b")->shape, Shape({2, 32}));
  EXPECT_EQ(ReadFile(path).size() % 32, 0u);
}

TEST(GgufWriterTest, CopiesTheKeysOfAnotherFileAsTheyStand) {
  const std::string folder = MakeTestFolder();
  auto writer = GgufWriter::Create(folder + "/a.gguf", SomeMetadata(), {});
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->Commit().ok());
  const auto first = GgufFile::Open(folder + "/a.gguf");
  ASSERT_TRUE(first.ok()) << first.status();
  GgufMetadata metadata;
  metadata.CopyOf(**first, {"flag", "not there"}).Bool("flag", false);
  auto copy = GgufWriter::Create(folder + "/b.gguf", metadata, {});
  ASSERT_TRUE(copy.ok());
  ASSERT_TRUE(copy->Commit().ok());
  const auto second = GgufFile::Open(folder + "/b.gguf");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_THAT((*second)->keys(),
              ElementsAre("general.architecture", "llama.block_count",
                          "llama.eps", "words", "types", "scores", "flag"));
  EXPECT_EQ((*second)->ValueSummary("words"), (*first)->ValueSummary("words"));
  EXPECT_EQ(*(*second)->GetBool("flag"), false);
}

TEST(GgufWriterTest, RejectsWhatTheFormatCannotHold) {
  const std::string folder = MakeTestFolder();
  const auto error = [&](const GgufMetadata& metadata,
                         std::vector<GgufTensorPlan> tensors) {
    const auto writer =
        GgufWriter::Create(folder + "/a.gguf", metadata, tensors);
    EXPECT_EQ(writer.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(writer.status().message()), HasSubstr("a.gguf"));
    return std::string(writer.status().message());
  };
  EXPECT_THAT(error({}, {{"t", DType::kF32, {2}}, {"t", DType::kF32, {2}}}),
              HasSubstr("'t' is given twice"));
  EXPECT_THAT(error({}, {{"t", DType::kBool, {2}}}), HasSubstr("bool"));
  EXPECT_THAT(error({}, {{"t", DType::kQ4_0, {2, 33}}}), HasSubstr("'t'"));
  EXPECT_THAT(error({}, {{"t", DType::kF32, {0}}}), HasSubstr("empty"));
  GgufMetadata twice;
  twice.Bool("k", true).U32("k", 1);
  EXPECT_THAT(error(twice, {}), HasSubstr("'k' is given twice"));
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

// A limit on file size stands in for a full disk.
TEST(GgufWriterTest, FullDiskIsAnErrorAndLeavesTheOldFile) {
  const std::string folder = MakeTestFolder();
  const std::string path = folder + "/a.gguf";
  WriteFile(path, "old");
  const std::string bytes(400000, 'x');
  struct rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  const struct rlimit limit = {65536, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  absl::Status status;
  {
    auto writer = GgufWriter::Create(path, {}, {{"t", DType::kF32, {100000}}});
    status = writer.ok() ? writer->Append(Bytes(bytes)) : writer.status();
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  EXPECT_EQ(ReadFile(path), "old");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    EXPECT_EQ(entry.path().filename(), "a.gguf");
  }
}

}  // namespace
}  // namespace nibble
