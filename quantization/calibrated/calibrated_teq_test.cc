// TEQ in the flow: what it is given where GPTQ rounds behind it, and where not.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/calibrated/calibrated_flow.h"
#include "quantization/calibrated/calibrated_test_fixture.h"
#include "quantization/calibrated/report.pb.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;

class CalibratedTeqTest : public CalibratedTest {
 protected:
  // The report of block 0.
  BlockReport ReportOf(const std::string& recipe) {
    const auto result =
        Quantize(absl::StrCat("grid { group_size: 32 } "
                              "calibration { samples: 12 length: 24 } ",
                              recipe),
                 Options());
    EXPECT_THAT(result, IsOk());
    if (!result.ok()) return BlockReport();
    EXPECT_THAT(result->work.Remove(), IsOk());
    return result->report.blocks(0);
  }
};

bool IsOne(const ScaleReport& scales) {
  return scales.least() == 1 && scales.greatest() == 1;
}

// Steps too small to change anything show what training starts from, and what
// it is judged by.
constexpr char kUntrained[] =
    "transform: TEQ teq { iterations: 1 batch: 1 learning_rate: 1e-9 } ";

TEST_F(CalibratedTeqTest, StartsFromAwqsScalesBeforeGptq) {
  for (const char* family : {"llama", "gptj", "gpt_neox", "falcon-7b"}) {
    SCOPED_TRACE(family);
    OpenFamily(family);
    const BlockReport awq = ReportOf("transform: AWQ rounding: GPTQ");
    const BlockReport teq =
        ReportOf(absl::StrCat(kUntrained, "rounding: GPTQ"));
    ASSERT_EQ(teq.scales_size(), awq.scales_size());
    int taken = 0;
    for (int i = 0; i < teq.scales_size(); ++i) {
      EXPECT_EQ(teq.scales(i).input(), awq.scales(i).input());
      if (IsOne(teq.scales(i))) continue;
      ++taken;
      EXPECT_NEAR(teq.scales(i).least() / awq.scales(i).least(), 1, 1e-5);
      EXPECT_NEAR(teq.scales(i).greatest() / awq.scales(i).greatest(), 1, 1e-5);
    }
    EXPECT_GT(taken, 0);
  }
}

// GPTQ makes up for a part of what rounding loses, and training knows of it.
TEST_F(CalibratedTeqTest, IsTrainedForWhatGptqLeaves) {
  for (const char* family : {"llama", "gptj"}) {
    SCOPED_TRACE(family);
    OpenFamily(family);
    const BlockReport nearest = ReportOf(kUntrained);
    const BlockReport gptq =
        ReportOf(absl::StrCat(kUntrained, "rounding: GPTQ"));
    EXPECT_GT(gptq.start_loss(), 0);
    EXPECT_LT(gptq.start_loss(), 0.9 * nearest.start_loss());
  }
}

// A block that an exception takes from GPTQ is trained as without it.
TEST_F(CalibratedTeqTest, LeavesToItselfWhatGptqDoesNotRound) {
  OpenFamily("llama");
  const std::string text =
      "transform: TEQ teq { iterations: 2 batch: 2 learning_rate: 0.01 } "
      "layers { pattern: \"layers.0\" bits: 8 } ";
  const BlockReport nearest = ReportOf(text);
  const BlockReport gptq = ReportOf(text + "rounding: GPTQ");
  EXPECT_EQ(gptq.start_loss(), nearest.start_loss());
  EXPECT_EQ(gptq.loss(), nearest.loss());
  ASSERT_EQ(gptq.scales_size(), nearest.scales_size());
  for (int i = 0; i < gptq.scales_size(); ++i) {
    EXPECT_EQ(gptq.scales(i).least(), nearest.scales(i).least());
    EXPECT_EQ(gptq.scales(i).greatest(), nearest.scales(i).greatest());
  }
}

}  // namespace
}  // namespace nibble
