#include "quantization/gptq/panel_solver.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace nibble {
namespace {

constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

// One column of INT4 codes with a zero of 8: steps -8 to 7.
struct Column {
  explicit Column(float scale) {
    std::fill_n(grid.divisor, kPanelRows, scale);
    std::fill_n(grid.scale, kPanelRows, scale);
    std::fill_n(grid.shift, kPanelRows, 0.0f);
    std::fill_n(grid.low, kPanelRows, -8.0f);
    std::fill_n(grid.high, kPanelRows, 7.0f);
    std::fill_n(grid.zero, kPanelRows, 8.0f);
    for (int64_t r = 0; r < kPanelRows; ++r) {
      steps[r] = static_cast<float>(r % 16) - 8.0f;
    }
  }

  void Descend(float slope, float curvature) {
    alignas(64) float slopes[kPanelRows];
    std::fill_n(slopes, kPanelRows, slope);
    DescendColumn(slopes, grid, curvature, steps, moved);
  }

  PanelGrid grid;
  alignas(64) float steps[kPanelRows];
  alignas(64) float moved[kPanelRows];
};

TEST(DescendColumn, MovesToTheCodeOfLeastLossAndNoFurther) {
  Column column(0.5f);
  column.Descend(/*slope=*/2.9f, /*curvature=*/2.0f);  // by 2.9 steps
  for (int64_t r = 0; r < kPanelRows; ++r) {
    const float before = static_cast<float>(r % 16) - 8.0f;
    const float after = std::min(before + 3.0f, 7.0f);
    EXPECT_EQ(column.steps[r], after) << r;
    EXPECT_EQ(column.moved[r], 0.5f * (after - before)) << r;
  }
}

TEST(DescendColumn, KeepsCodesThatItCannotJudge) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    float scale, slope, curvature;
  };
  for (const Case& c : {Case{0.5f, 0.0f, 0.0f}, Case{kDenormal, 0.0f, 1e-3f},
                        Case{kDenormal, kDenormal, 1e-3f},
                        Case{1e-30f, -1e-35f, 1e-30f}, Case{0.5f, nan, 1.0f}}) {
    Column column(c.scale);
    column.Descend(c.slope, c.curvature);
    for (int64_t r = 0; r < kPanelRows; ++r) {
      EXPECT_EQ(column.steps[r], static_cast<float>(r % 16) - 8.0f)
          << c.scale << " " << c.slope << " " << c.curvature;
      EXPECT_EQ(column.moved[r], 0.0f);
    }
  }
}

}  // namespace
}  // namespace nibble
