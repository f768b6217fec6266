// What the tests of the flow share: a model in a folder of its own, and the
// file that it becomes.
#ifndef NIBBLE_QUANTIZATION_FLOW_TEST_FIXTURE_H_
#define NIBBLE_QUANTIZATION_FLOW_TEST_FIXTURE_H_

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/flow.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {

inline std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class FlowTest : public ::testing::Test {
 protected:
  FlowTest() : pool_(2) {
    folder_ = ::testing::TempDir() + "/flow_test_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    model_ = folder_ + "/model";
    out_ = folder_ + "/model.nib";
  }

  void WriteModel(const testing::TinyModelOptions& options) {
    ASSERT_THAT(testing::WriteTinyLlama(model_, options), testing::IsOk());
  }

  absl::StatusOr<QuantizationReport> Quantize(
      const QuantizationOptions& options = {}) {
    return QuantizeCheckpoint(model_, out_, options, pool_, nullptr);
  }

  // Neither the file nor a part of it.
  void ExpectNothingWritten() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      EXPECT_FALSE(absl::StrContains(entry.path().string(), ".nib"))
          << entry.path();
    }
  }

  ThreadPool pool_;
  std::string folder_, model_, out_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FLOW_TEST_FIXTURE_H_
