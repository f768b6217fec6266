#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/awq/awq.h"
#include "quantization/awq/fake_block.h"
#include "quantization/block/block_weights.h"
#include "quantization/rounding/grid.h"

namespace nibble {
namespace {

using ::testing::Each;

// The error of a group's part of the outputs, in doubles.
double GroupError(const BlockLinear<float>& linear, int64_t row, int64_t first,
                  int64_t size, const GroupGrid& grid, const GridSpec& spec,
                  const InputStatistics& statistics,
                  const std::vector<float>& scales) {
  std::vector<double> error;
  for (int64_t j = first; j < first + size; ++j) {
    const float w = linear.view().row(row)[j];
    error.push_back(
        (DecodeWeight(EncodeWeight(w, grid, spec), grid, spec) - double{w}) /
        scales[static_cast<size_t>(j)]);
  }
  double sum = 0;
  for (int64_t j = 0; j < size; ++j) {
    for (int64_t k = 0; k < size; ++k) {
      sum += error[static_cast<size_t>(j)] * error[static_cast<size_t>(k)] *
             statistics.gram.row(first + j)[first + k];
    }
  }
  return sum;
}

TEST(ClipTest, LosesAtMostWhatTheWholeRangeLoses) {
  const AwqOptions options = Options();
  const GridSpec spec = *options.grids[0];
  ThreadPool pool(2);
  FakeBlock fake(Config());
  const BlockStatistics statistics = fake.Statistics();
  const AwqResult result =
      TransformAwq(fake.config(), statistics, options, fake.weights(), pool);
  double whole = 0;
  double clipped = 0;
  for (const LinearId id : kAllLinears) {
    const BlockLinear<float>& linear = fake.weights()[id];
    const int64_t groups = spec.groups(linear.inputs);
    const std::vector<float> scales = Columns(result, id, linear.inputs);
    ASSERT_EQ(static_cast<int64_t>(result.clip_of(id).size()),
              linear.outputs * groups);
    for (int64_t i = 0; i < linear.outputs; ++i) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t size = std::min<int64_t>(32, linear.inputs - g * 32);
        const absl::Span<const float> weights =
            linear.view().row_span(i).subspan(static_cast<size_t>(g * 32),
                                              static_cast<size_t>(size));
        const float ratio =
            result.clip_of(id)[static_cast<size_t>(i * groups + g)];
        const double all =
            GroupError(linear, i, g * 32, size, FitGroup(weights, spec), spec,
                       statistics[Index(id)], scales);
        const double part = GroupError(linear, i, g * 32, size,
                                       FitClippedGroup(weights, ratio, spec),
                                       spec, statistics[Index(id)], scales);
        EXPECT_LE(part, all * (1 + 1e-4)) << ratio;
        whole += all;
        clipped += part;
      }
    }
  }
  EXPECT_LT(clipped, 0.97 * whole);
}

TEST(ClipTest, LeavesQueriesAndKeysAlone) {
  ThreadPool pool(2);
  FakeBlock fake(Config());
  const AwqResult result = TransformAwq(fake.config(), fake.Statistics(),
                                        Options(), fake.weights(), pool);
  const absl::Span<const float> clip = result.clip_of(LinearId::kQkv);
  const size_t kept = static_cast<size_t>(
      (fake.config().q_dim() + fake.config().kv_dim()) * 3);  // groups
  EXPECT_THAT(clip.subspan(0, kept), Each(1.0f));
  EXPECT_LT(*std::min_element(clip.begin() + kept, clip.end()), 1.0f);
}

}  // namespace
}  // namespace nibble
