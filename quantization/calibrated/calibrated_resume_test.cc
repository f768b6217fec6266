// Runs that end in the middle, and those that go on behind them.

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/gemm/gemm.h"
#include "quantization/calibrated/calibrated_flow.h"
#include "quantization/calibrated/calibrated_test_fixture.h"
#include "quantization/flow_test_fixture.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGptq[] =
    "grid { group_size: 32 } rounding: GPTQ "
    "calibration { samples: 12 length: 24 }";

class CalibratedResume : public CalibratedTest {
 protected:
  CalibratedResume() { OpenFamily("llama"); }

  std::string Block(int layer) const {
    return Options().work_folder + "/block-" + std::to_string(layer) + ".nib";
  }

  CalibratedOptions Resuming() const {
    CalibratedOptions options = Options();
    options.resume = true;
    return options;
  }

  // Ends when the first block is finished.
  void Interrupt(const std::string& recipe) {
    std::atomic<bool> cancelled(false);
    CalibratedOptions options = Options();
    options.cancelled = &cancelled;
    options.progress = [&cancelled](const CalibratedProgress& progress) {
      if (progress.block == 1) cancelled = true;
    };
    ASSERT_THAT(
        Quantize(recipe, options),
        StatusIs(absl::StatusCode::kCancelled,
                 AllOf(HasSubstr("1 of 2 blocks"), HasSubstr("--resume"))));
    ASSERT_TRUE(fs::exists(Block(0)));
  }

  void ExpectRefused(const CalibratedOptions& options,
                     const std::string& recipe, const std::string& problem) {
    EXPECT_THAT(Quantize(recipe, options),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         AllOf(HasSubstr(options.work_folder),
                               HasSubstr(problem), HasSubstr("remove"))));
    EXPECT_TRUE(fs::exists(Block(0)));
  }
};

TEST_F(CalibratedResume, GivesTheSameBitsWithEveryMethod) {
  for (const char* family : {"llama", "gpt_neox"}) {
    OpenFamily(family);
    for (const std::string& recipe : AllRecipes()) {
      SCOPED_TRACE(absl::StrCat(family, ":", recipe));
      const std::string whole =
          ReadAll(Write(Quantize(recipe, Options()), "whole"));
      Interrupt(recipe);
      auto result = Quantize(recipe, Resuming());
      ASSERT_THAT(result, IsOk());
      EXPECT_EQ(result->report.resumed_blocks(), 1);
      EXPECT_EQ(result->report.blocks_size(), 2);
      EXPECT_TRUE(ReadAll(Write(std::move(result), "resumed")) == whole);
    }
  }
}

TEST_F(CalibratedResume, GoesOnAfterAKill) {
  const std::string whole = ReadAll(Write(Quantize(kGptq, Options()), "whole"));
  EXPECT_EXIT(
      {
        CalibratedOptions options = Options();
        options.progress = [](const CalibratedProgress& progress) {
          if (progress.block == 1) kill(getpid(), SIGKILL);
        };
        const auto result = Quantize(kGptq, options, /*threads=*/1);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  auto result = Quantize(kGptq, Resuming());
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->report.resumed_blocks(), 1);
  EXPECT_TRUE(ReadAll(Write(std::move(result), "resumed")) == whole);
}

TEST_F(CalibratedResume, OpensFinishedWorkWithoutDoingItAgain) {
  auto first = Quantize(kGptq, Options());
  ASSERT_THAT(first, IsOk());
  const std::string whole = ReadAll(Block(1));
  auto again = Quantize(kGptq, Resuming());
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->report.resumed_blocks(), 2);
  EXPECT_TRUE(ReadAll(Block(1)) == whole);
}

TEST_F(CalibratedResume, DoesDamagedBlocksAgain) {
  const std::string whole = ReadAll(Write(Quantize(kGptq, Options()), "whole"));
  for (const bool cut : {false, true}) {
    ASSERT_THAT(Quantize(kGptq, Options()), IsOk());
    std::string damaged = ReadAll(Block(0));
    if (cut) {
      damaged.resize(damaged.size() / 2);
    } else {
      damaged[damaged.size() / 2] ^= 1;
    }
    testing::WriteText(Block(0), damaged);
    auto result = Quantize(kGptq, Resuming());
    ASSERT_THAT(result, IsOk());
    EXPECT_EQ(result->report.resumed_blocks(), 0);
    EXPECT_THAT(result->report.notes(),
                ElementsAre(AllOf(HasSubstr("block 0"), HasSubstr(Block(0)))));
    EXPECT_TRUE(ReadAll(Write(std::move(result), "again")) == whole);
  }
}

TEST_F(CalibratedResume, DoesAMissingBlockAndThoseBehindItAgain) {
  const std::string whole = ReadAll(Write(Quantize(kGptq, Options()), "whole"));
  ASSERT_THAT(Quantize(kGptq, Options()), IsOk());
  fs::remove(Block(0));
  auto result = Quantize(kGptq, Resuming());
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->report.resumed_blocks(), 0);
  EXPECT_THAT(result->report.notes(),
              ElementsAre(AllOf(HasSubstr("block 0"), HasSubstr("1 behind"),
                                HasSubstr(Block(0)))));
  EXPECT_TRUE(ReadAll(Write(std::move(result), "again")) == whole);
}

TEST_F(CalibratedResume, LeavesBlocksThatCannotBeReadForNow) {
  ASSERT_THAT(Quantize(kGptq, Options()), IsOk());
  const std::string first = ReadAll(Block(0)), second = ReadAll(Block(1));
  // An error of the file system's that is no damage: a loop of links.
  fs::rename(Block(0), folder_ + "/aside");
  fs::create_symlink("block-0.nib", Block(0));
  const auto refused = Quantize(kGptq, Resuming());
  EXPECT_THAT(refused.status().message(), HasSubstr(Block(0)));
  EXPECT_FALSE(refused.ok());
  EXPECT_TRUE(fs::is_symlink(Block(0)));
  EXPECT_TRUE(ReadAll(Block(1)) == second);
  fs::remove(Block(0));
  fs::rename(folder_ + "/aside", Block(0));
  const auto result = Quantize(kGptq, Resuming());
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->report.resumed_blocks(), 2);
  EXPECT_TRUE(ReadAll(Block(0)) == first);
}

// Their sums have other bits: the file would be that of neither run.
TEST_F(CalibratedResume, RefusesBlocksOfOtherArithmetic) {
  Interrupt(kGptq);
  CalibratedOptions floats = Resuming();
  floats.precision = GemmPrecision::kF32;
  ExpectRefused(floats, kGptq,
                "another precision of the products (bf16; this run has f32)");
  const Isa active = ActiveIsa();
  if (active == Isa::kScalar) GTEST_SKIP() << "there is no other ISA";
  ASSERT_THAT(LimitIsa(Isa::kScalar), IsOk());
  ExpectRefused(Resuming(), kGptq,
                absl::StrCat("another instruction set (", IsaName(active),
                             "; this run has scalar)"));
  ASSERT_THAT(LimitIsa(active), IsOk());
  EXPECT_THAT(Quantize(kGptq, Resuming()), IsOk());
}

TEST_F(CalibratedResume, RefusesBlocksOfOtherWork) {
  Interrupt(kGptq);
  ExpectRefused(Options(), kGptq, "--resume");
  ExpectRefused(Resuming(), std::string(kGptq) + " gptq { damping: 0.02 }",
                "another recipe");
  CalibratedOptions other = Resuming();
  other.program_version = "other";
  ExpectRefused(other, kGptq, "another version");
  windows_ = Windows(/*seed=*/2);
  ExpectRefused(Resuming(), kGptq, "another calibration text");
  testing::TinyModelOptions model = testing::ExportLlama();
  model.seed = 5;
  ASSERT_THAT(testing::WriteTinyLlama(model_, model), IsOk());
  checkpoint_ = *OpenCheckpoint(model_);
  windows_ = Windows(/*seed=*/1);
  ExpectRefused(Resuming(), kGptq, "another model");
}

TEST_F(CalibratedResume, ResumesNothingAsABeginning) {
  auto result = Quantize(kGptq, Resuming());
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->report.resumed_blocks(), 0);
}

TEST_F(CalibratedResume, LeavesWhatIsNotItsOwnAlone) {
  const std::string work = Options().work_folder;
  fs::create_directories(work);
  testing::WriteText(work + "/thesis.txt", "text");
  EXPECT_THAT(Quantize(kGptq, Options()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(work), HasSubstr("thesis.txt"))));
  EXPECT_EQ(ReadAll(work + "/thesis.txt"), "text");
  fs::remove_all(work);
  testing::WriteText(work, "text");
  EXPECT_THAT(Quantize(kGptq, Options()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(work)));
  EXPECT_EQ(ReadAll(work), "text");
}

TEST_F(CalibratedResume, SharesBlocksBetweenRecipesThatHaveThemInCommon) {
  const std::string awq =
      "grid { group_size: 32 } transform: AWQ "
      "calibration { samples: 12 length: 24 }";
  for (const auto& [method, behind] :
       {std::pair(std::string(kGptq), 0), std::pair(awq, 1)}) {
    const std::string second =
        method + " layers { pattern: \"layers.1.up\" bits: 8 }";
    const std::string first =
        method + " layers { pattern: \"layers.0.up\" bits: 8 }";
    const std::string whole =
        ReadAll(Write(Quantize(second, Options()), "whole"));
    CalibratedOptions options = Options();
    options.cache_folder = folder_ + "/cache";
    Write(Quantize(method, options), "plain");
    auto result = Quantize(second, options);
    ASSERT_THAT(result, IsOk());
    EXPECT_EQ(result->report.cached_blocks(), 1);
    EXPECT_TRUE(ReadAll(Write(std::move(result), "cached")) == whole);
    // What follows a block that differs is shared only where it does not see
    // the quantized blocks before it.
    auto other = Quantize(first, options);
    ASSERT_THAT(other, IsOk());
    EXPECT_EQ(other->report.cached_blocks(), behind);
    Write(std::move(other), "other");
    auto again = Quantize(method, options);
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(again->report.cached_blocks(), 2);
    Write(std::move(again), "again");
  }
}

// The only disk that a test can fill: one where files have a size limit.
TEST_F(CalibratedResume, FullDiskLeavesFinishedBlocks) {
  const std::string whole = ReadAll(Write(Quantize(kGptq, Options()), "whole"));
  signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  CalibratedOptions options = Options();
  options.progress = [&before](const CalibratedProgress& progress) {
    if (progress.block != 1) return;
    const rlimit tight = {1000, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &tight);
  };
  const auto full = Quantize(kGptq, options);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(full.status().message(),
              AllOf(HasSubstr(Block(1)), HasSubstr("1 of 2 blocks"),
                    HasSubstr("--resume")));
  auto result = Quantize(kGptq, Resuming());
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->report.resumed_blocks(), 1);
  EXPECT_TRUE(ReadAll(Write(std::move(result), "resumed")) == whole);
}

}  // namespace
}  // namespace nibble
