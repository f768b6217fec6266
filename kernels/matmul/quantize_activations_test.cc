#include "kernels/matmul/quantize_activations.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// The header's words in plain C++, for one group of one row.
struct Expected {
  explicit Expected(const std::vector<float>& x) {
    std::vector<float> sizes;
    bool finite = true;
    for (float v : x) {
      finite = finite && std::isfinite(v);
      sizes.push_back(std::fabs(v));
    }
    values.assign(x.size(), 0);
    if (!finite) {
      scale = std::numeric_limits<float>::quiet_NaN();
      return;
    }
    std::sort(sizes.rbegin(), sizes.rend());
    const float smallest = std::ldexp(1.0f, -100);
    if (sizes[0] < smallest) return;
    const bool stands_out = sizes.size() > 1 && sizes[1] >= smallest &&
                            sizes[0] > kOutlierRatio * sizes[1];
    const float amax = sizes[stands_out ? 1 : 0];
    scale = amax / 127.0f;
    const float inverse = 127.0f / amax;
    for (size_t i = 0; i < x.size(); ++i) {
      const float steps = std::clamp(x[i] * inverse, -127.0f, 127.0f);
      values[i] = static_cast<int>(std::nearbyint(steps));
      if (stands_out && std::fabs(x[i]) == sizes[0]) {
        outlier = static_cast<int64_t>(i);
        excess = std::fma(-scale, static_cast<float>(values[i]), x[i]);
      }
    }
  }

  std::vector<int> values;
  float scale = 0;
  int64_t outlier = -1;  // in the group, or none
  float excess = 0;
};

void ExpectAsWritten(const std::vector<float>& x, int64_t rows, int64_t inputs,
                     int64_t group_size, int64_t max_rows, ThreadPool& pool) {
  const RowGroups groups(rows, max_rows);
  AlignedBuffer memory(
      static_cast<size_t>(QuantizedPanelBytes(rows, inputs, group_size)));
  std::fill(memory.data(), memory.data() + memory.size(), std::byte{0xAA});
  const Panel panel =
      QuantizeActivations(MatrixView<const float>(x.data(), rows, inputs),
                          groups, group_size, memory.data(), pool);
  const int64_t k_groups = CeilDiv(inputs, group_size);
  const int64_t blocks = Int8BlocksFor(inputs);
  const int8_t* values = reinterpret_cast<const int8_t*>(panel.values);
  for (int64_t group = 0; group < groups.count; ++group) {
    const int64_t first = groups.Begin(group), size = groups.Size(group);
    for (int64_t r = 0; r < size; ++r) {
      const float* row = x.data() + (first + r) * inputs;
      const auto value = [&](int64_t k) {
        return values[(first * blocks + k / 64 * size + r) * 64 + k % 64];
      };
      int32_t outliers = 0;
      for (int64_t g = 0; g < k_groups; ++g) {
        const int64_t begin = g * group_size;
        const int64_t end = std::min(inputs, begin + group_size);
        const Expected want(std::vector<float>(row + begin, row + end));
        int32_t sum = 0;
        for (int64_t k = begin; k < end; ++k) {
          ASSERT_EQ(value(k), want.values[k - begin]) << first + r << " " << k;
          sum += value(k);
        }
        if (want.outlier >= 0) {
          const Outlier& outlier =
              panel.outliers[(first + r) * k_groups + outliers++];
          ASSERT_EQ(outlier.input, begin + want.outlier);
          ASSERT_EQ(outlier.excess, want.excess);
        }
        const int64_t at = first * k_groups + g * size + r;
        ASSERT_EQ(panel.minus_sums[at], -sum);
        if (std::isnan(want.scale)) {
          ASSERT_TRUE(std::isnan(panel.scales[at]));
        } else {
          ASSERT_EQ(panel.scales[at], want.scale);
        }
      }
      ASSERT_EQ(panel.outlier_counts[first + r], outliers);
      for (int64_t k = inputs; k < blocks * 64; ++k) ASSERT_EQ(value(k), 0);
    }
  }
}

class QuantizeActivationsTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!CpuSupports(GetParam())) GTEST_SKIP() << IsaName(GetParam());
    ASSERT_TRUE(LimitIsa(GetParam()).ok());
  }
  void TearDown() override { ASSERT_TRUE(LimitIsa(BestIsa()).ok()); }

  ThreadPool pool_{2};
};

TEST_P(QuantizeActivationsTest, GroupsTailsAndRowsOfAnySize) {
  for (int64_t inputs : {1, 5, 31, 32, 33, 63, 64, 65, 100, 200, 1000}) {
    for (int64_t group_size : {32, 64, 96, 128, 1024}) {
      for (int64_t rows : {1, 5, 13}) {
        SCOPED_TRACE(testing::Message()
                     << rows << " " << inputs << " " << group_size);
        ExpectAsWritten(RandomValues(rows * inputs, 3), rows, inputs,
                        group_size, 6, pool_);
      }
    }
  }
}

TEST_P(QuantizeActivationsTest, ManyRowsAreSharedAmongThreads) {
  ExpectAsWritten(RandomValues(100 * 256, 3), 100, 256, 64, 12, pool_);
}

TEST_P(QuantizeActivationsTest, ValuesAtTheEdges) {
  constexpr float kMax = std::numeric_limits<float>::max();
  for (float edge :
       {0.0f, -0.0f, std::ldexp(1.0f, -100), std::ldexp(1.0f, -101),
        std::ldexp(1.0f, -149), kMax, -kMax, 1.0f, -127.5f}) {
    std::vector<float> x(64, edge);
    x[5] = -edge;
    x[33] = edge / 2;
    ExpectAsWritten(x, 1, 64, 32, 1, pool_);
    ExpectAsWritten(x, 1, 64, 64, 1, pool_);
  }
}

TEST_P(QuantizeActivationsTest, OneValueThatStandsOutIsCutAndListed) {
  for (float size : {1.9f, 2.0f, 2.001f, 50.0f, -50.0f, 1e30f}) {
    for (int64_t at : {0, 17, 40, 95}) {
      std::vector<float> x(96, 1.0f);
      for (size_t i = 0; i < x.size(); i += 2) x[i] = -0.75f;
      x[at] = size;
      ExpectAsWritten(x, 1, 96, 32, 1, pool_);
      ExpectAsWritten(x, 1, 96, 96, 1, pool_);
      x[(at + 32) % 96] = -size;  // no longer alone where both are in a group
      ExpectAsWritten(x, 1, 96, 32, 1, pool_);
      ExpectAsWritten(x, 1, 96, 96, 1, pool_);
    }
  }
}

TEST_P(QuantizeActivationsTest, ANaNOrInfinitySpoilsItsGroupOnly) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
    for (int64_t at : {0, 31, 40, 70}) {
      std::vector<float> x = RandomValues(2 * 71, 3);
      x[at] = bad;
      ExpectAsWritten(x, 2, 71, 32, 2, pool_);
    }
  }
}

std::string IsaOf(const ::testing::TestParamInfo<Isa>& info) {
  return std::string(IsaName(info.param));
}

INSTANTIATE_TEST_SUITE_P(Isas, QuantizeActivationsTest,
                         ::testing::ValuesIn(kAllIsas), IsaOf);

}  // namespace
}  // namespace nibble
