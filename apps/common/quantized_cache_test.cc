#include "apps/common/quantized_cache.h"

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/round_to_nearest.h"
#include "tensor/io/packed_file.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TinyModelOptions;
using ::nibble::testing::WriteText;
using ::nibble::testing::WriteTinyLlama;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class QuantizedCacheTest : public ::testing::Test {
 protected:
  QuantizedCacheTest() : pool_(1) {
    folder_ = ::testing::TempDir() + "/quantized_cache_test_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    model_ = folder_ + "/model";
    UseCache(folder_ + "/cache");
    EXPECT_THAT(WriteTinyLlama(model_, {}), IsOk());
  }

  static void UseCache(const std::string& folder) {
    setenv("XDG_CACHE_HOME", folder.c_str(), /*overwrite=*/1);
  }

  absl::StatusOr<std::string> Get(const RoundingOptions& options = {}) {
    return QuantizeIntoCache(model_, options, pool_, nullptr);
  }

  std::string MustGet(const RoundingOptions& options = {}) {
    const absl::StatusOr<std::string> path = Get(options);
    EXPECT_THAT(path, IsOk());
    return path.value_or("");
  }

  std::vector<std::string> CachedModels() const {
    std::vector<std::string> files;
    for (const auto& entry :
         fs::directory_iterator(folder_ + "/cache/nibble/quantized")) {
      if (entry.is_regular_file()) files.push_back(entry.path().string());
    }
    return files;
  }

  ThreadPool pool_;
  std::string folder_, model_;
};

TEST_F(QuantizedCacheTest, QuantizesOnce) {
  const std::string path = MustGet();
  EXPECT_THAT(path, StartsWith(folder_ + "/cache/nibble/quantized/"));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(path));
  EXPECT_EQ(file->manifest().record().bits(), 4);
  EXPECT_THAT(file->VerifyAll(), IsOk());
  const auto written = fs::last_write_time(path);
  EXPECT_EQ(MustGet(), path);
  EXPECT_EQ(fs::last_write_time(path), written);
  EXPECT_EQ(CachedModels().size(), 1u);
}

TEST_F(QuantizedCacheTest, EachSetOfOptionsIsAFileOfItsOwn) {
  const std::string path = MustGet();
  EXPECT_NE(MustGet({4, 32, false}), path);
  EXPECT_NE(MustGet({4, 128, true}), path);
  EXPECT_NE(MustGet({4, kWholeRow, false}), path);
  const std::string int8 = MustGet({8, 128, false});
  EXPECT_NE(int8, path);
  EXPECT_EQ(MustGet({8, 128, true}), int8) << "8 bits are always symmetric";
  EXPECT_EQ(CachedModels().size(), 5u);
}

TEST_F(QuantizedCacheTest, AChangedModelIsQuantizedAgain) {
  const std::string path = MustGet();
  TinyModelOptions other;
  other.seed = 2;
  ASSERT_THAT(WriteTinyLlama(model_, other), IsOk());
  const std::string changed = MustGet();
  EXPECT_NE(changed, path);
  WriteText(model_ + "/tokenizer_config.json", "{}");
  EXPECT_NE(MustGet(), changed) << "the tokenizer is part of the model";
}

TEST_F(QuantizedCacheTest, ACopyIsTheSameModel) {
  const std::string path = MustGet();
  fs::copy(model_, folder_ + "/copy", fs::copy_options::recursive);
  fs::remove_all(model_);
  model_ = folder_ + "/copy";
  EXPECT_EQ(MustGet(), path);
  EXPECT_EQ(CachedModels().size(), 1u);
}

TEST_F(QuantizedCacheTest, ADamagedFileIsMadeAgain) {
  const std::string path = MustGet();
  fs::resize_file(path, 1000);
  EXPECT_EQ(MustGet(), path);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(path));
  EXPECT_THAT(file->VerifyAll(), IsOk());
}

TEST_F(QuantizedCacheTest, ProcessesMayAskAtTheSameTime) {
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      const absl::StatusOr<std::string> path = Get();
      const bool good = path.ok() && PackedFile::Open(*path).ok();
      _exit(good ? 0 : 1);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = -1;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(CachedModels().size(), 1u) << "no temporary files stay behind";
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(MustGet()));
  EXPECT_THAT(file->VerifyAll(), IsOk());
}

TEST_F(QuantizedCacheTest, SaysWhatToDoWhereItCannotWrite) {
  WriteText(folder_ + "/file", "no folder");
  UseCache(folder_ + "/file");
  EXPECT_THAT(Get().status(), StatusIs(absl::StatusCode::kUnavailable,
                                       AllOf(HasSubstr(folder_ + "/file"),
                                             HasSubstr("XDG_CACHE_HOME"),
                                             HasSubstr("quantize --out"))));
  unsetenv("XDG_CACHE_HOME");
  unsetenv("HOME");
  EXPECT_THAT(Get().status(), StatusIs(absl::StatusCode::kNotFound,
                                       HasSubstr("XDG_CACHE_HOME")));
}

TEST_F(QuantizedCacheTest, ErrorsOfTheModelAreItsOwn) {
  model_ = folder_ + "/missing.gguf";
  EXPECT_THAT(Get().status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("missing.gguf")));
  EXPECT_THAT(
      Get({4, 31, false}).status(),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("group size 31")));
  model_ = folder_ + "/model";
  WriteText(model_ + "/config.json", "{}");
  const absl::Status status = Get().status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
  EXPECT_FALSE(absl::StrContains(status.message(), "XDG_CACHE_HOME"));
}

}  // namespace
}  // namespace nibble
