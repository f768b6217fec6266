// What exports leave when they are killed, and what the next one makes of it.

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/export/export_test_models.h"
#include "quantization/export/gguf_export.h"
#include "quantization/export/gptq_export.h"
#include "quantization/flow.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::IsOk;

// Every format has a function of one form.
using Export = decltype(&ExportGguf);

class ExportDeathTest : public ::testing::Test {
 protected:
  ExportDeathTest()
      : folder_(testing::ExportTestFolder()),
        model_(folder_ + "/model"),
        out_(folder_ + "/out") {
    options_.rounding = {4, 32, true};
    testing::WriteFamily("gptj", model_);
  }

  // Exports in a process that kills itself once `quarters` quarters of the
  // matrices are written; 4: all of them, and the rest is not. The threads are
  // its own: those of a process do not survive a fork.
  void ExpectKilled(Export write, int quarters) const {
    EXPECT_EXIT(
        {
          ThreadPool pool(1);
          const auto report = write(model_, out_, options_, pool,
                                    [quarters](int64_t done, int64_t total) {
                                      if (done * 4 >= total * quarters) {
                                        kill(getpid(), SIGKILL);
                                      }
                                    });
        },
        ::testing::KilledBySignal(SIGKILL), "");
  }

  // What is in the folder beside the model.
  int Others() const {
    int others = -1;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder_)) {
      ++others;
    }
    return others;
  }

  bool HasFilesWithoutNames() const {
    const int fd = open(folder_.c_str(), O_TMPFILE | O_WRONLY, 0600);
    if (fd >= 0) close(fd);
    return fd >= 0;
  }

  std::string folder_, model_, out_;
  QuantizationOptions options_;
};

TEST_F(ExportDeathTest, KilledGgufExportLeavesNoFile) {
  if (!HasFilesWithoutNames()) {
    GTEST_SKIP() << "the file system has no files without names";
  }
  for (int quarters = 0; quarters <= 4; ++quarters) {
    ExpectKilled(ExportGguf, quarters);
    EXPECT_EQ(Others(), 0) << quarters;
  }
}

TEST_F(ExportDeathTest, KilledGgufExportLeavesTheOldFile) {
  testing::WriteText(out_, "old");
  ExpectKilled(ExportGguf, 4);
  EXPECT_EQ(fs::file_size(out_), 3u);
}

TEST_F(ExportDeathTest, KilledGptqExportLeavesNoFolderOfThatName) {
  for (int quarters = 0; quarters <= 4; ++quarters) {
    ExpectKilled(ExportGptq, quarters);
    EXPECT_FALSE(fs::exists(out_)) << quarters;
    // Under its temporary name, and the one before is gone.
    EXPECT_EQ(Others(), 1) << quarters;
  }
  ThreadPool pool(1);
  EXPECT_THAT(ExportGptq(model_, out_, options_, pool, nullptr), IsOk());
  EXPECT_EQ(Others(), 1);
  EXPECT_TRUE(fs::exists(out_ + "/config.json"));
}

}  // namespace
}  // namespace nibble
