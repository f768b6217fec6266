#include "quantization/rounding/group_search.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/rounding_testing.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::nibble::testing::RandomValues;

constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

// Groups of several kinds, each with an importance.
struct Group {
  std::vector<float> weights;
  std::vector<float> importance;
};

std::vector<Group> SomeGroups(int64_t size) {
  RandomValues random(13);
  std::vector<Group> groups;
  for (int i = 0; i < 40; ++i) {
    Group group;
    group.weights = i % 4 == 0   ? random.Normal(size, 0.02f)
                    : i % 4 == 1 ? random.Uniform(size, 0.5f, 2.0f)
                    : i % 4 == 2 ? random.Uniform(size, -9.0f, 0.5f)
                                 : random.Normal(size, 100.0f);
    if (i % 5 == 0) group.weights[3] *= 20;
    if (i % 3 != 0) {
      group.importance = random.Uniform(size, 0.0f, 1.0f);
      for (float& value : group.importance) value *= value * value * 1e-3f;
    }
    groups.push_back(group);
  }
  return groups;
}

TEST(SearchGroup, IsNeverWorseThanTheExtremes) {
  for (const int64_t size : {1, 5, 32, 100}) {
    for (const Group& group : SomeGroups(std::max<int64_t>(size, 4))) {
      for (const GridSpec& spec : AllSpecs(32)) {
        const auto error = [&](const GroupGrid& grid) {
          return WeightedError(group.weights, group.importance, grid, spec);
        };
        const GroupGrid found =
            SearchGroup(group.weights, group.importance, spec, {});
        // The sums have importance scaled by its largest in f32.
        EXPECT_LE(error(found),
                  error(FitGroup(group.weights, spec)) * (1 + 1e-6))
            << NameOf(spec);
        EXPECT_EQ(found.scale, StoredParameter(found.scale));
        if (spec.offset == CodeOffset::kMinimums) {
          EXPECT_EQ(found.offset, StoredParameter(found.offset));
        } else {
          EXPECT_EQ(found.offset, std::nearbyint(found.offset));
          EXPECT_GE(found.offset, 0.0f);
          EXPECT_LE(found.offset, static_cast<float>(spec.max_code()));
        }
      }
    }
  }
}

// The best of a fine lattice of scales and offsets.
double BestByExhaustion(const Group& group, const GridSpec& spec) {
  const auto [min, max] =
      std::minmax_element(group.weights.begin(), group.weights.end());
  const float extreme = std::max(std::abs(*min), std::abs(*max));
  double best = std::numeric_limits<double>::infinity();
  const auto consider = [&](const GroupGrid& grid) {
    best = std::min(best,
                    WeightedError(group.weights, group.importance, grid, spec));
  };
  for (int i = 1; i <= 400; ++i) {
    const float scale =
        StoredParameter(extreme * 2.0f * static_cast<float>(i) /
                        (400.0f * static_cast<float>(spec.middle_code() - 1)));
    if (spec.offset == CodeOffset::kSymmetric) {
      for (const float sign : {1.0f, -1.0f}) {
        consider({sign * scale, static_cast<float>(spec.middle_code())});
      }
    } else if (spec.offset == CodeOffset::kZeros) {
      for (int zero = 0; zero <= spec.max_code(); ++zero) {
        consider({scale, static_cast<float>(zero)});
      }
    } else {
      for (int k = -40; k <= 20; ++k) {
        consider({scale, StoredParameter(*min - 0.1f * k * scale)});
      }
    }
  }
  return best;
}

TEST(SearchGroup, ComesCloseToTheBestGridThereIs) {
  for (const GridSpec& spec : AllSpecs(32)) {
    if (spec.bits == 8) continue;
    double fitted = 0, found = 0, best = 0;
    for (const Group& group : SomeGroups(32)) {
      const auto relative = [&](double error) {
        return error / WeightedError(group.weights, group.importance, {0, 0},
                                     {4, 32, CodeOffset::kZeros});
      };
      const auto error = [&](const GroupGrid& grid) {
        return relative(
            WeightedError(group.weights, group.importance, grid, spec));
      };
      fitted += error(FitGroup(group.weights, spec));
      found += error(SearchGroup(group.weights, group.importance, spec, {}));
      best += relative(BestByExhaustion(group, spec));
    }
    EXPECT_LT(found, best * 1.05) << NameOf(spec);
    EXPECT_LT(found, fitted * 0.95) << NameOf(spec);
  }
}

// Weights on a grid, in bf16, which is all that a checkpoint made of a
// quantized model has left.
TEST(SearchGroup, RestoresAGridFromItsBf16Values) {
  RandomValues random(17);
  for (const GridSpec& spec : AllSpecs(32)) {
    if (spec.bits != 4) continue;
    SCOPED_TRACE(NameOf(spec));
    for (int repeat = 0; repeat < 200; ++repeat) {
      GroupGrid grid;
      grid.scale =
          ToFloat(ToF16(0.01f + 0.02f * static_cast<float>(random.Unit())));
      if (spec.offset == CodeOffset::kSymmetric) {
        grid = {repeat % 2 == 0 ? grid.scale : -grid.scale, 8};
      } else if (spec.offset == CodeOffset::kZeros) {
        grid.offset = static_cast<float>(3 + random.Below(10));
      } else {
        grid.offset =
            ToFloat(ToF16(-0.1f - 0.1f * static_cast<float>(random.Unit())));
      }
      std::vector<float> weights;
      std::vector<int> codes;
      for (int i = 0; i < 32; ++i) {
        // Not always up to the ends.
        const int code =
            1 + repeat % 3 / 2 + static_cast<int>(random.Below(13));
        codes.push_back(code);
        weights.push_back(ToFloat(
            ToBF16(DecodeWeight(static_cast<uint8_t>(code), grid, spec))));
      }
      const GroupGrid found = SearchGroup(weights, {}, spec, {});
      // Least squares move the values by no more than bf16 did, 2^-8 of each;
      // then scale and minimum are rounded to f16, 2^-11 of their parts.
      double error = 0, allowed = 0, parts = 0;
      for (int i = 0; i < 32; ++i) {
        const float want =
            DecodeWeight(static_cast<uint8_t>(codes[i]), grid, spec);
        const float got =
            DecodeWeight(EncodeWeight(weights[i], found, spec), found, spec);
        error += std::pow(got - want, 2);
        allowed += std::pow(want, 2);
        parts += std::pow(std::abs(want) + 2 * std::abs(grid.offset), 2);
      }
      const bool minimums = spec.offset == CodeOffset::kMinimums;
      EXPECT_LT(std::sqrt(error),
                0x1p-8 * std::sqrt(allowed) +
                    0x1p-11 * std::sqrt(minimums ? parts : allowed))
          << repeat << " " << found.scale << " instead of " << grid.scale;
    }
  }
}

// ---- Hostile weights

TEST(SearchGroup, StaysFiniteOnHostileGroups) {
  std::vector<std::vector<float>> groups = {
      std::vector<float>(32, 0.0f),       std::vector<float>(32, 0.37f),
      std::vector<float>(32, -250.0f),    std::vector<float>(32, kDenormal),
      std::vector<float>(32, 0x1p126f),   std::vector<float>(1, -3.0f),
      RandomValues(19).Normal(32, 1e-38f)};
  groups.push_back(RandomValues(21).Normal(32, 0.02f));
  groups.back()[5] = 30000.0f;
  groups.push_back(RandomValues(23).Uniform(32, -0x1p126f, 0x1p126f));
  for (const std::vector<float>& weights : groups) {
    const float most = std::abs(*std::max_element(
        weights.begin(), weights.end(),
        [](float a, float b) { return std::abs(a) < std::abs(b); }));
    for (const bool weighted : {false, true}) {
      const std::vector<float> importance(weighted ? weights.size() : 0, 0.0f);
      for (const GridSpec& spec : AllSpecs(32)) {
        const GroupGrid grid = SearchGroup(weights, importance, spec, {});
        ASSERT_TRUE(std::isfinite(grid.scale)) << NameOf(spec);
        for (const float w : weights) {
          const float got =
              DecodeWeight(EncodeWeight(w, grid, spec), grid, spec);
          // 2 bits have steps as large as a half of the range.
          ASSERT_LE(std::abs(got - w), most * (spec.bits == 2 ? 0.52 : 0.27))
              << NameOf(spec) << " " << w;
        }
      }
    }
  }
}

TEST(SearchGroup, IgnoresWeightsThatDoNotMatter) {
  std::vector<float> weights = RandomValues(25).Normal(32, 0.02f);
  weights[7] = 100.0f;
  std::vector<float> importance(32, 1.0f);
  importance[7] = 0.0f;
  for (const GridSpec& spec : AllSpecs(32)) {
    if (spec.bits != 4) continue;
    const GroupGrid grid = SearchGroup(weights, importance, spec, {});
    const double fitted =
        WeightedError(weights, importance, FitGroup(weights, spec), spec);
    EXPECT_LT(WeightedError(weights, importance, grid, spec), fitted)
        << NameOf(spec);
  }
}

}  // namespace
}  // namespace nibble
