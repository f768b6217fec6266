#include "apps/common/file_fingerprint.h"

#include <chrono>  // NOLINT: file times are its types
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class FileFingerprintTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/file_fingerprint_test_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    file_ = folder_ + "/file";
  }

  void Write(const std::string& text) const { std::ofstream(file_) << text; }

  // Until the file's times are old enough for its hash to be remembered.
  static void Settle() { absl::SleepFor(absl::Milliseconds(150)); }

  // The hash, and whether the file was read for it.
  struct Answer {
    uint64_t hash = 0;
    bool was_read = false;
  };
  Answer Ask() const {
    Answer answer;
    const absl::StatusOr<uint64_t> hash =
        FileFingerprints(folder_ + "/hashes")
            .Hash(file_, [&](int64_t, int64_t) { answer.was_read = true; });
    EXPECT_TRUE(hash.ok()) << hash.status();
    answer.hash = hash.value_or(0);
    return answer;
  }

  std::string folder_, file_;
};

TEST_F(FileFingerprintTest, ReadsAFileOnce) {
  Write("some bytes");
  Settle();
  const Answer first = Ask();
  EXPECT_TRUE(first.was_read);
  const Answer second = Ask();
  EXPECT_FALSE(second.was_read);
  EXPECT_EQ(second.hash, first.hash);
}

TEST_F(FileFingerprintTest, ReadsATouchedFileAgain) {
  Write("some bytes");
  Settle();
  const Answer first = Ask();
  fs::last_write_time(file_,
                      fs::last_write_time(file_) + std::chrono::hours(1));
  const Answer touched = Ask();
  EXPECT_TRUE(touched.was_read);
  EXPECT_EQ(touched.hash, first.hash);
}

TEST_F(FileFingerprintTest, SeesAChangeThatPretendsNotToBeOne) {
  Write("some bytes");
  Settle();
  const auto time = fs::last_write_time(file_);
  const Answer first = Ask();
  Write("same bytes");
  fs::last_write_time(file_, time);
  const Answer changed = Ask();
  EXPECT_TRUE(changed.was_read);
  EXPECT_NE(changed.hash, first.hash);
}

TEST_F(FileFingerprintTest, DoesNotTrustAFileThatWasJustWritten) {
  Write("some bytes");
  Ask();
  EXPECT_FALSE(fs::exists(folder_ + "/hashes"));
}

TEST_F(FileFingerprintTest, ABrokenMemoryIsNone) {
  Write("some bytes");
  Settle();
  const Answer first = Ask();
  for (const std::string text : {"", "12", "zzzzzzzzzzzzzzzz\n"}) {
    for (const auto& entry : fs::directory_iterator(folder_ + "/hashes")) {
      std::ofstream(entry.path()) << text;
    }
    const Answer again = Ask();
    EXPECT_TRUE(again.was_read);
    EXPECT_EQ(again.hash, first.hash);
  }
}

TEST_F(FileFingerprintTest, WorksWithoutAFolderToRememberIn) {
  Write("some bytes");
  Settle();
  std::ofstream(folder_ + "/hashes") << "a file where the folder should be";
  const Answer first = Ask();
  const Answer second = Ask();
  EXPECT_TRUE(second.was_read);
  EXPECT_EQ(second.hash, first.hash);
}

TEST_F(FileFingerprintTest, NamesAFileThatCannotBeRead) {
  const FileFingerprints fingerprints(folder_ + "/hashes");
  const auto missing = fingerprints.Hash(file_, nullptr);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr(file_));
  const auto folder = fingerprints.Hash(folder_, nullptr);
  EXPECT_FALSE(folder.ok());
  EXPECT_THAT(std::string(folder.status().message()), HasSubstr(folder_));
}

}  // namespace
}  // namespace nibble
