// What a group becomes and how the loss changes with it, against the
// definitions of grid.h and finite differences in doubles.
#include "quantization/tuning/fake_quant.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/rounding/grid.h"
#include "quantization/tuning/batch_order.h"
#include "quantization/tuning/tuned_range.h"
#include "tensor/coded_matrix.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::nibble::testing::RandomValues;
using ::testing::Each;
using ::testing::ElementsAre;

constexpr GridSpec kSpecs[] = {
    {4, 32, CodeOffset::kZeros},     {4, 32, CodeOffset::kSymmetric},
    {4, 32, CodeOffset::kMinimums},  {2, 32, CodeOffset::kZeros},
    {2, 32, CodeOffset::kSymmetric}, {2, 32, CodeOffset::kMinimums},
    {3, 32, CodeOffset::kZeros},     {3, 32, CodeOffset::kSymmetric},
    {3, 32, CodeOffset::kMinimums},  {8, 32, CodeOffset::kSymmetric}};

std::string NameOf(const GridSpec& spec) {
  constexpr const char* kOffsets[] = {" symmetric", " zeros", " minimums"};
  return std::to_string(spec.bits) + " bits" +
         kOffsets[static_cast<int>(spec.offset)];
}

// A group with every variable away from its start.
struct Group {
  Group(const GridSpec& spec, int64_t count, uint64_t seed) : spec(spec) {
    RandomValues random(seed);
    weights = random.Normal(count, 0.05f);
    gradient = random.Normal(count, 1.0f);
    for (const float v : random.Uniform(count, -0.45f, 0.45f)) {
      shifts.push_back(static_cast<int16_t>(v * kShiftOne));
    }
    range = RangeOf(weights, spec);
    range.low_ratio = 0.8f;
    range.high_ratio = 0.7f;
    grid = GridOf(range, spec);
    loops = FakeQuantGridOf(grid, spec);
  }

  int64_t count() const { return static_cast<int64_t>(weights.size()); }
  FakeQuantSums Descend(int step) {
    return ActiveFakeQuantKernels().descend(
        weights.data(), gradient.data(), count(), loops, step, shifts.data());
  }

  GridSpec spec;
  std::vector<float> weights;
  std::vector<float> gradient;
  std::vector<int16_t> shifts;
  TunedRange range;
  GroupGrid grid;
  FakeQuantGrid loops;
};

TEST(FakeQuantTest, WithoutShiftsIsRoundToNearest) {
  RandomValues random(1);
  for (const GridSpec& spec : kSpecs) {
    SCOPED_TRACE(NameOf(spec));
    for (const int64_t count : {1, 7, 16, 32, 37, 128}) {
      const std::vector<float> weights = random.Normal(count, 0.1f);
      const GroupGrid grid = GridOf(RangeOf(weights, spec), spec);
      const GroupGrid fitted = FitGroup(weights, spec);
      ASSERT_EQ(grid.scale, fitted.scale);
      ASSERT_EQ(grid.offset, fitted.offset);
      std::vector<uint8_t> codes(weights.size() + 1, 77);
      std::vector<float> values(weights.size() + 1, 77.0f);
      const FakeQuantGrid loops = FakeQuantGridOf(grid, spec);
      const FakeQuantKernels& kernels = ActiveFakeQuantKernels();
      kernels.encode(weights.data(), nullptr, count, loops, codes.data());
      kernels.decode(weights.data(), nullptr, count, loops, values.data());
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(codes[i], EncodeWeight(weights[i], grid, spec)) << i;
        ASSERT_EQ(values[i], DecodeWeight(codes[i], grid, spec)) << i;
      }
      // What lies behind the group stays.
      EXPECT_EQ(codes.back(), 77);
      EXPECT_EQ(values.back(), 77.0f);
    }
  }
}

TEST(FakeQuantTest, ShiftedCodesAreTheDefinition) {
  for (const GridSpec& spec : kSpecs) {
    SCOPED_TRACE(NameOf(spec));
    const Group group(spec, 45, 2);
    std::vector<uint8_t> codes(group.weights.size());
    std::vector<float> values(group.weights.size());
    const FakeQuantKernels& kernels = ActiveFakeQuantKernels();
    kernels.encode(group.weights.data(), group.shifts.data(), group.count(),
                   group.loops, codes.data());
    kernels.decode(group.weights.data(), group.shifts.data(), group.count(),
                   group.loops, values.data());
    for (size_t i = 0; i < codes.size(); ++i) {
      const float shift = static_cast<float>(group.shifts[i]) / kShiftOne;
      const float position =
          (group.weights[i] - group.loops.minimum) / group.loops.scale;
      const float code =
          std::clamp(std::nearbyint(position + shift) + group.loops.zero,
                     group.loops.min_code, group.loops.max_code);
      ASSERT_EQ(codes[i], code) << i;
      ASSERT_EQ(values[i], DecodeWeight(codes[i], group.grid, spec)) << i;
    }
  }
}

// sum G ŵ as a smooth function of the ratios: rounding residuals, clamped
// codes, and the scale's rounding to f16 are what they are at the start.
class FrozenLoss {
 public:
  explicit FrozenLoss(const Group& group) : group_(group) {
    const double scale = group.grid.scale;
    const Ends ends = EndsAt(group.range.low_ratio, group.range.high_ratio);
    scale_residual_ = scale - ends.scale;
    minimum_residual_ = group.loops.minimum - ends.minimum;
    zero_residual_ = group.loops.zero + ends.low / scale;
    for (size_t i = 0; i < group.weights.size(); ++i) {
      const double steps = Steps(i, scale, group.loops.minimum);
      const double free = std::nearbyint(steps) + group.loops.zero;
      const double code =
          std::clamp<double>(free, group.loops.min_code, group.loops.max_code);
      inside_.push_back(code == free);
      residuals_.push_back(std::nearbyint(steps) - steps);
      codes_.push_back(code);
    }
  }

  double At(double low_ratio, double high_ratio) const {
    const Ends ends = EndsAt(low_ratio, high_ratio);
    const double scale = ends.scale + scale_residual_;
    const double minimum = ends.minimum + minimum_residual_;
    const double zero = group_.spec.offset == CodeOffset::kZeros
                            ? zero_residual_ - ends.low / scale
                            : group_.loops.zero;
    double sum = 0;
    for (size_t i = 0; i < codes_.size(); ++i) {
      const double steps = inside_[i] ? Steps(i, scale, minimum) + residuals_[i]
                                      : codes_[i] - zero;
      sum += group_.gradient[i] * (scale * steps + minimum);
    }
    return sum;
  }

  bool inside(size_t i) const { return inside_[i]; }

 private:
  struct Ends {
    double low = 0;
    double scale = 0;
    double minimum = 0;
  };

  Ends EndsAt(double low_ratio, double high_ratio) const {
    const TunedRange& range = group_.range;
    const bool minimums = group_.spec.offset == CodeOffset::kMinimums;
    const double middle =
        minimums ? (static_cast<double>(range.low) + range.high) / 2 : 0.0;
    const double low = middle + low_ratio * (range.low - middle);
    const double high = middle + high_ratio * (range.high - middle);
    Ends ends;
    ends.low = low;
    ends.minimum = minimums ? low : 0.0;
    ends.scale = (high - low) / group_.spec.max_code();
    if (group_.spec.offset == CodeOffset::kSymmetric) {
      const double end = high >= -low ? high : low;
      ends.scale = group_.spec.bits == 8 ? std::abs(end) / 127
                                         : -end / group_.spec.middle_code();
    }
    return ends;
  }

  double Steps(size_t i, double scale, double minimum) const {
    return (group_.weights[i] - minimum) / scale +
           static_cast<double>(group_.shifts[i]) / kShiftOne;
  }

  const Group& group_;
  double scale_residual_ = 0;
  double minimum_residual_ = 0;
  double zero_residual_ = 0;
  std::vector<bool> inside_;
  std::vector<double> residuals_;
  std::vector<double> codes_;
};

TEST(FakeQuantTest, SlopesOfRatiosAreFiniteDifferences) {
  constexpr double kStep = 1e-5;
  for (const GridSpec& spec : kSpecs) {
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      SCOPED_TRACE(NameOf(spec) + " seed " + std::to_string(seed));
      Group group(spec, 32 + static_cast<int64_t>(seed), seed);
      const FrozenLoss loss(group);
      const double low = group.range.low_ratio, high = group.range.high_ratio;
      const RangeSlopes want = {
          (loss.At(low + kStep, high) - loss.At(low - kStep, high)) /
              (2 * kStep),
          (loss.At(low, high + kStep) - loss.At(low, high - kStep)) /
              (2 * kStep)};
      const RangeSlopes got =
          SlopesOf(group.Descend(/*step=*/1), group.range, group.grid, spec);
      // Each term of the sums in floats is off by some roundings of itself, at
      // most |G| max_code times 2^-24; the ends turn sums into slopes.
      double terms = 0;
      for (const float g : group.gradient) terms += std::abs(g);
      const double tolerance =
          8 * 0x1p-24 * terms * (group.range.high - group.range.low);
      EXPECT_NEAR(got.low, want.low, tolerance);
      EXPECT_NEAR(got.high, want.high, tolerance);
    }
  }
}

// The gradient by a shift is G m s: both its sign and its zeros.
TEST(FakeQuantTest, ShiftsDescendAgainstTheSignOfTheirGradient) {
  constexpr int kStep = 164;
  for (const GridSpec& spec : kSpecs) {
    SCOPED_TRACE(NameOf(spec));
    Group group(spec, 77, 3);
    group.gradient[5] = 0.0f;
    group.gradient[6] = std::numeric_limits<float>::quiet_NaN();
    const FrozenLoss loss(group);
    const std::vector<int16_t> before = group.shifts;
    group.Descend(kStep);
    int clamped = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      const double slope =
          loss.inside(i) && i != 6 ? group.gradient[i] * group.grid.scale : 0.0;
      const int want = slope > 0 ? -kStep : slope < 0 ? kStep : 0;
      EXPECT_EQ(group.shifts[i] - before[i], want) << i;
      clamped += loss.inside(i) ? 0 : 1;
    }
    EXPECT_GT(clamped, 0);
  }
}

TEST(FakeQuantTest, ShiftsStayWithinTwoSteps) {
  Group group(kSpecs[0], 40, 4);
  for (int i = 0; i < 4; ++i) {
    // Gradients that push both ways; clamped ones stay where they are.
    group.Descend(kShiftOne - 1);
    for (const int16_t shift : group.shifts) {
      EXPECT_LT(std::abs(static_cast<int>(shift)), 2 * kShiftOne);
    }
  }
}

TEST(FakeQuantTest, DeadConstantAndHugeGroupsStayFinite) {
  std::vector<std::vector<float>> groups = {
      std::vector<float>(40, 0.0f), std::vector<float>(40, 0.3f),
      std::vector<float>(40, -1e-42f), std::vector<float>(40, 0x1p126f)};
  groups.push_back(groups[1]);
  groups.back()[3] = 1e30f;
  for (const GridSpec& spec : kSpecs) {
    for (const std::vector<float>& weights : groups) {
      SCOPED_TRACE(NameOf(spec) + " of " + std::to_string(weights[0]));
      Group group(spec, 40, 5);
      group.weights = weights;
      std::fill(group.shifts.begin(), group.shifts.end(), int16_t{0});
      group.range = RangeOf(weights, spec);
      std::vector<float> values(weights.size());
      for (int i = 0; i < 5; ++i) {
        group.grid = GridOf(group.range, spec);
        group.loops = FakeQuantGridOf(group.grid, spec);
        const RangeSlopes slopes =
            SlopesOf(group.Descend(1000), group.range, group.grid, spec);
        EXPECT_FALSE(std::isnan(slopes.low) || std::isnan(slopes.high));
        group.range.low_ratio -= 0.2f;
        ActiveFakeQuantKernels().decode(group.weights.data(),
                                        group.shifts.data(), group.count(),
                                        group.loops, values.data());
        EXPECT_THAT(
            values,
            Each(::testing::Truly([](float v) { return std::isfinite(v); })));
      }
    }
  }
}

TEST(BatchOrderTest, ShowsEveryWindowOnceARound) {
  BatchOrder order(/*windows=*/12, /*batch=*/4, /*seed=*/9);
  for (int round = 0; round < 3; ++round) {
    std::vector<int64_t> seen;
    for (int i = 0; i < 3; ++i) {
      const absl::Span<const int64_t> batch = order.Next();
      ASSERT_EQ(batch.size(), 4u);
      seen.insert(seen.end(), batch.begin(), batch.end());
    }
    std::sort(seen.begin(), seen.end());
    for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(seen[i], i);
  }
}

TEST(BatchOrderTest, DependsOnTheSeedAlone) {
  const auto first = [](uint64_t seed) {
    BatchOrder order(/*windows=*/64, /*batch=*/8, seed);
    const absl::Span<const int64_t> batch = order.Next();
    return std::vector<int64_t>(batch.begin(), batch.end());
  };
  // The generator's numbers are laid down by the standard, so these are too.
  EXPECT_THAT(first(1), ElementsAre(5, 11, 31, 25, 10, 37, 39, 3));
  EXPECT_NE(first(1), first(2));
}

TEST(BatchOrderTest, BatchHasAtMostAllWindows) {
  BatchOrder order(/*windows=*/3, /*batch=*/8, /*seed=*/1);
  EXPECT_EQ(order.Next().size(), 3u);
  EXPECT_EQ(order.Next().size(), 3u);
}

}  // namespace
}  // namespace nibble
