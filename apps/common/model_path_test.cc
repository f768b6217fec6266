#include "apps/common/model_path.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

bool IsFile(const std::string& path) { return std::ifstream(path).good(); }

TEST(ResolveModelPath, FindsTheBundledModelWithoutAName) {
  const absl::StatusOr<std::string> path = ResolveModelPath("");
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_THAT(*path, HasSubstr("tolstoy-llama.nib"));
  EXPECT_TRUE(IsFile(*path)) << *path;
}

TEST(ResolveModelPath, FindsTheCheckpointOfTheBundledModel) {
  const absl::StatusOr<std::string> path = BundledFloatModelPath();
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_TRUE(IsFile(*path + "/config.json")) << *path;
  EXPECT_TRUE(IsFile(*path + "/model.safetensors")) << *path;
  EXPECT_TRUE(IsFile(*path + "/tokenizer.json")) << *path;
}

TEST(ResolveModelPath, TellsHowToFetchAMissingCachedModel) {
  const std::string cache = ::testing::TempDir() + "/empty_cache";
  setenv("XDG_CACHE_HOME", cache.c_str(), 1);
  const absl::StatusOr<std::string> path = ResolveModelPath("smollm2");
  ASSERT_FALSE(path.ok());
  EXPECT_THAT(path.status().message(),
              HasSubstr(cache + "/nibble/models/smollm2.gguf"));
  EXPECT_THAT(path.status().message(), HasSubstr("tools/fetch_model smollm2"));
}

TEST(ResolveModelPath, FindsACachedModel) {
  const std::string cache = ::testing::TempDir() + "/full_cache";
  for (absl::string_view folder : {"", "/nibble", "/nibble/models"}) {
    mkdir(absl::StrCat(cache, folder).c_str(), 0755);
  }
  std::ofstream(cache + "/nibble/models/smollm2.gguf") << "GGUF";
  setenv("XDG_CACHE_HOME", cache.c_str(), 1);
  const absl::StatusOr<std::string> path = ResolveModelPath("smollm2");
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(*path, cache + "/nibble/models/smollm2.gguf");
}

TEST(ResolveModelPath, SaysWhereItLookedForAnUnknownName) {
  setenv("XDG_CACHE_HOME", "/cache", 1);
  const absl::StatusOr<std::string> path = ResolveModelPath("smolm2");
  ASSERT_EQ(path.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(path.status().message(),
              HasSubstr("/cache/nibble/models/smolm2.gguf"));
}

TEST(ResolveModelPath, NamesAMissingPath) {
  const absl::StatusOr<std::string> path = ResolveModelPath("no/such/model");
  ASSERT_EQ(path.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(path.status().message(),
              HasSubstr("no/such/model: No such file"));
}

TEST(ResolveModelPath, LeavesAPathAsItIs) {
  const absl::StatusOr<std::string> path = ResolveModelPath("./");
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(*path, "./");
}

TEST(ModelCacheFolder, PrefersXdgAndFallsBackToHome) {
  setenv("HOME", "/home/reader", 1);
  setenv("XDG_CACHE_HOME", "/cache", 1);
  EXPECT_EQ(*ModelCacheFolder(), "/cache/nibble/models");
  unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(*ModelCacheFolder(), "/home/reader/.cache/nibble/models");
  unsetenv("HOME");
  EXPECT_EQ(ModelCacheFolder().status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace nibble
