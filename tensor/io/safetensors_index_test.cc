// Folders of shards whose index is broken or built to break readers.
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::MakeTestFolder;
using testing::SafetensorsBytes;
using testing::WriteFile;

constexpr char kShard[] =
    R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})";

// The error of a folder with one shard, s.safetensors, that holds tensor "a".
std::string ErrorOfIndex(absl::string_view index) {
  const std::string dir = MakeTestFolder();
  WriteFile(dir + "/s.safetensors", SafetensorsBytes(kShard, "x"));
  WriteFile(dir + "/model.safetensors.index.json", index);
  const auto source = OpenSafetensorsFolder(dir);
  if (source.ok()) return "accepted";
  EXPECT_THAT(std::string(source.status().message()), HasSubstr(dir));
  return std::string(source.status().message());
}

TEST(SafetensorsIndexTest, TheSoundIndexIsSound) {
  EXPECT_EQ(ErrorOfIndex(R"({"weight_map":{"a":"s.safetensors"}})"),
            "accepted");
}

TEST(SafetensorsIndexTest, RejectsAbsentShard) {
  const std::string error =
      ErrorOfIndex(R"({"weight_map":{"a":"t.safetensors"}})");
  EXPECT_THAT(error, HasSubstr("index.json names a shard"));
  EXPECT_THAT(error, HasSubstr("t.safetensors"));
  EXPECT_THAT(error, HasSubstr("No such file"));
}

TEST(SafetensorsIndexTest, RejectsShardNamesThatLeaveTheFolder) {
  for (const char* name :
       {"../s.safetensors", "/etc/passwd", "sub/s", "..", ".", "", "a\\\\b",
        "./s.safetensors", "s\\u0000.safetensors"}) {
    EXPECT_THAT(
        ErrorOfIndex(absl::StrCat(R"({"weight_map":{"a":")", name, "\"}}")),
        HasSubstr("must be a plain file name"))
        << name;
  }
}

TEST(SafetensorsIndexTest, RejectsTensorThatIsNotInItsShard) {
  EXPECT_THAT(
      ErrorOfIndex(
          R"({"weight_map":{"a":"s.safetensors","b":"s.safetensors"}})"),
      HasSubstr("says that tensor 'b' is in s.safetensors, but it is not"));
}

TEST(SafetensorsIndexTest, RejectsTensorThatTheIndexDoesNotName) {
  const std::string dir = MakeTestFolder();
  const std::string json =
      R"({"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},)"
      R"("lm_head.weight":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})";
  WriteFile(dir + "/s.safetensors", SafetensorsBytes(json, ""));
  WriteFile(dir + "/model.safetensors.index.json",
            R"({"weight_map":{"a":"s.safetensors"}})");
  EXPECT_THAT(std::string(OpenSafetensorsFolder(dir).status().message()),
              HasSubstr("holds tensor 'lm_head.weight', which"));
}

// Which of the two would be read?
TEST(SafetensorsIndexTest, RejectsTensorInTwoShards) {
  const std::string dir = MakeTestFolder();
  const std::string both =
      R"({"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},)"
      R"("b":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})";
  WriteFile(dir + "/s.safetensors", SafetensorsBytes(kShard, "x"));
  WriteFile(dir + "/t.safetensors", SafetensorsBytes(both, ""));
  WriteFile(dir + "/model.safetensors.index.json",
            R"({"weight_map":{"a":"s.safetensors","b":"t.safetensors"}})");
  EXPECT_THAT(std::string(OpenSafetensorsFolder(dir).status().message()),
              HasSubstr("says is in another"));
}

TEST(SafetensorsIndexTest, RejectsWhatIsNoIndex) {
  EXPECT_THAT(ErrorOfIndex("nonsense"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOfIndex(std::string("{\"weight_map\":{}}\0x", 19)),
              HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOfIndex("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOfIndex("7"), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOfIndex("\"text\""), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOfIndex("{}"), HasSubstr("no weight_map"));
  EXPECT_THAT(ErrorOfIndex(R"({"metadata":{"weight_map":{}}})"),
              HasSubstr("no weight_map"));
  EXPECT_THAT(ErrorOfIndex(R"({"weight_map":[]})"), HasSubstr("no object"));
  EXPECT_THAT(ErrorOfIndex(R"({"weight_map":"s"})"), HasSubstr("no object"));
  for (const char* value : {"1", "null", "[\"s\"]", "{}", "true"}) {
    EXPECT_THAT(
        ErrorOfIndex(absl::StrCat(R"({"weight_map":{"a":)", value, "}}")),
        HasSubstr("tensor 'a' is not a file name"))
        << value;
  }
}

TEST(SafetensorsIndexTest, RejectsNamesThatStandTwice) {
  EXPECT_THAT(
      ErrorOfIndex(
          R"({"weight_map":{"a":"s.safetensors","a":"s.safetensors"}})"),
      HasSubstr("names tensor 'a' twice"));
  EXPECT_THAT(
      ErrorOfIndex(R"({"weight_map":{"a":"s.safetensors"},"weight_map":{}})"),
      HasSubstr("weight_map stands there twice"));
}

TEST(SafetensorsIndexTest, RejectsDeepNesting) {
  EXPECT_THAT(ErrorOfIndex("{\"metadata\":" + std::string(1'000'000, '[')),
              HasSubstr("nested too deep"));
}

TEST(SafetensorsFolderTest, NoticesAShardThatChangesWhileOpen) {
  const std::string dir = MakeTestFolder();
  WriteFile(dir + "/s.safetensors", SafetensorsBytes(kShard, "x"));
  WriteFile(dir + "/model.safetensors.index.json",
            R"({"weight_map":{"a":"s.safetensors"}})");
  const auto source = OpenSafetensorsFolder(dir);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE((*source)->CheckUnchanged().ok());
  WriteFile(dir + "/s.safetensors", SafetensorsBytes(kShard, "longer"));
  const absl::Status status = (*source)->CheckUnchanged();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("s.safetensors"));
}

TEST(SafetensorsFolderTest, RejectsFolderWithoutACheckpoint) {
  const std::string dir = MakeTestFolder();
  const absl::Status status = OpenSafetensorsFolder(dir).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  EXPECT_FALSE(OpenSafetensorsFolder(dir + "/none").ok());
  WriteFile(dir + "/file", "x");
  EXPECT_THAT(
      std::string(OpenSafetensorsFolder(dir + "/file").status().message()),
      HasSubstr("is not a folder"));
}

}  // namespace
}  // namespace nibble
