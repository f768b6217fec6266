// The AMX loop nests by themselves: against scalar sums over the shapes that
// cut tiles, groups and blocks, and their instructions counted. kernels_test.cc
// holds them against all other variants as well.
#include "kernels/matmul/amx_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/emulated_tiles.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

struct Shape {
  int64_t rows, inputs, outputs;
};

int64_t RoundUp(int64_t n, int64_t multiple) {
  return CeilDiv(n, multiple) * multiple;
}

// An int8 panel of random values and scales, as panel_layout.h draws it.
class Int8Rows {
 public:
  Int8Rows(const Shape& shape, const PackedLayout& layout, int64_t max_rows)
      : values_(shape.rows * shape.inputs),
        scales_(shape.rows * layout.groups()),
        panel_values_(
            static_cast<size_t>(shape.rows * RoundUp(shape.inputs, 64)),
            AlignedBuffer::Fill::kZero),
        panel_scales_(scales_.size()),
        panel_{RowGroups(shape.rows, max_rows), panel_values_.data()} {
    std::mt19937 random(7);
    for (int8_t& value : values_)
      value = static_cast<int>(random() % 255) - 127;
    for (float& scale : scales_) scale = 0x1p-12f * (1 + random() % 1000);
    const RowGroups& groups = panel_.groups;
    for (int64_t g = 0; g < groups.count; ++g) {
      for (int64_t r = 0; r < groups.Size(g); ++r) {
        const int64_t row = groups.Begin(g) + r;
        for (int64_t k = 0; k < shape.inputs; ++k) {
          const int64_t line = groups.Begin(g) * Int8BlocksFor(shape.inputs) +
                               k / 64 * groups.Size(g) + r;
          panel_values_.data()[line * 64 + k % 64] =
              static_cast<std::byte>(values_[row * shape.inputs + k]);
        }
        for (int64_t i = 0; i < layout.groups(); ++i) {
          panel_scales_[groups.Begin(g) * layout.groups() + i * groups.Size(g) +
                        r] = scales_[row * layout.groups() + i];
        }
      }
    }
    panel_.scales = panel_scales_.data();
  }

  const Panel& panel() const { return panel_; }
  int Value(int64_t at) const { return values_[at]; }
  float Scale(int64_t at) const { return scales_[at]; }

 private:
  std::vector<int8_t> values_;  // [rows, inputs]
  std::vector<float> scales_;   // [rows, groups]
  AlignedBuffer panel_values_;
  std::vector<float> panel_scales_;
  Panel panel_;
};

// What kernel.h says an int8 product is.
float ScalarSum(const IntegerMatrix& w, const Int8Rows& x, int64_t row,
                int64_t output) {
  const PackedLayout& layout = w.layout;
  float total = 0;
  for (int64_t g = 0; g < layout.groups(); ++g) {
    int32_t sum = 0;
    const int64_t end = std::min(layout.inputs, (g + 1) * layout.group_size);
    const int zero = layout.has_zeros()
                         ? w.zeros[output * layout.groups() + g]
                         : static_cast<int>(layout.symmetric_zero());
    for (int64_t k = g * layout.group_size; k < end; ++k) {
      sum += (w.codes[output * layout.inputs + k] - zero) *
             x.Value(row * layout.inputs + k);
    }
    const float scale = w.scales[output * layout.groups() + g] *
                        x.Scale(row * layout.groups() + g);
    total = std::fma(static_cast<float>(sum), scale, total);
  }
  return total;
}

class AmxKernelTest : public ::testing::TestWithParam<size_t> {
 protected:
  const MatMulKernel& kernel() const { return AmxMatMulKernels()[GetParam()]; }

  void SetUp() override {
    if (!CpuSupports(kernel().isa)) {
      GTEST_SKIP() << WhyUnsupported(kernel().isa);
    }
  }

  // Totals [rows][padded outputs], all records a call at a time.
  std::vector<float> Run(const PackedLayout& layout, const std::byte* weights,
                         const Panel& panel) const {
    const int64_t rows = panel.groups.rows;
    const int64_t stride = RoundUp(layout.outputs, kRecordOutputs);
    AlignedBuffer totals(rows * stride * sizeof(float));
    float* data = reinterpret_cast<float*>(totals.data());
    // Garbage, which must not reach the sums.
    std::memset(totals.data(), 0xFF, totals.size());
    AlignedBuffer scratch(kernel().scratch_bytes(layout, rows));
    std::memset(scratch.data(), 0xFF, scratch.size());
    const Product product = {&layout, weights, panel};
    for (int64_t first = 0; first < layout.records();
         first += kernel().records_per_call) {
      const int64_t end =
          std::min(layout.records(), first + kernel().records_per_call);
      kernel().multiply(product, first, end,
                        {data + first * layout.record_outputs(), stride},
                        scratch.data());
    }
    return std::vector<float>(data, data + rows * stride);
  }
};

class AmxInt8KernelTest : public AmxKernelTest {};
class AmxBF16KernelTest : public AmxKernelTest {};

PackedLayout Layout(WeightFormat format, const Shape& shape, int64_t group_size,
                    bool symmetric, bool wide = false) {
  return PackedLayout::Create(format, shape.outputs, shape.inputs, group_size,
                              symmetric, wide)
      .value();
}

TEST_P(AmxInt8KernelTest, SumsEqualTheScalarOnesBitForBit) {
  struct Case {
    Shape shape;
    int64_t group_size;
  };
  for (const Case& c : std::vector<Case>{
           {{1, 64, 16}, 64},       // one row, one group, half a record
           {{16, 128, 32}, 32},     // half steps
           {{33, 96, 33}, 96},      // half steps across blocks of 64; 3 groups
           {{17, 200, 40}, 128},    // ragged last group
           {{32, 577, 32}, 64},     // two blocks of K, ragged by one input
           {{5, 100, 7}, 100},      // one group of no multiple of 32
           {{40, 1100, 20}, 1100},  // one group longer than a block
           {{20, 160, 160}, 32},    // more records than a call takes
           {{3, 1, 1}, 1}}) {
    for (bool symmetric : {true, false}) {
      if (!symmetric && kernel().weights == WeightFormat::kInt8) continue;
      const PackedLayout layout = Layout(kernel().weights, c.shape,
                                         c.group_size, symmetric, !symmetric);
      const IntegerMatrix w = RandomIntegers(layout, 3);
      const PackedMatrix packed = w.Pack();
      const Int8Rows x(c.shape, layout, kernel().max_rows);
      const std::vector<float> got = Run(layout, packed.data(), x.panel());
      const int64_t stride = RoundUp(layout.outputs, kRecordOutputs);
      for (int64_t m = 0; m < c.shape.rows; ++m) {
        for (int64_t n = 0; n < c.shape.outputs; ++n) {
          ASSERT_EQ(got[m * stride + n], ScalarSum(w, x, m, n))
              << m << ", " << n << " of " << c.shape.rows << " x "
              << c.shape.inputs << " x " << c.shape.outputs << " g"
              << c.group_size;
        }
      }
    }
  }
}

TEST_P(AmxBF16KernelTest, SumsStayWithinRoundingWhateverLiesBehindTheInputs) {
  ThreadPool pool(1);
  for (const Shape& shape :
       {Shape{1, 32, 16}, Shape{33, 300, 33}, Shape{17, 257, 48},
        Shape{16, 511, 16}, Shape{2, 3, 5}, Shape{20, 64, 150}}) {
    // A panel as panel_layout.h draws it; what is not set is NaN.
    const std::vector<float> x =
        RoundedToBF16(RandomValues(shape.rows * shape.inputs, 1));
    const RowGroups groups(shape.rows, kernel().max_rows);
    const int64_t blocks = BlocksFor(shape.inputs);
    AlignedBuffer values(shape.rows * blocks * kBlockInputs * 2);
    std::memset(values.data(), 0xFF, values.size());
    BF16* panel_values = reinterpret_cast<BF16*>(values.data());
    for (int64_t g = 0; g < groups.count; ++g) {
      for (int64_t r = 0; r < groups.Size(g); ++r) {
        for (int64_t k = 0; k < RoundUp(shape.inputs, 2); ++k) {
          const int64_t row =
              groups.Begin(g) * blocks + k / kBlockInputs * groups.Size(g) + r;
          panel_values[row * kBlockInputs + k % kBlockInputs] =
              k < shape.inputs
                  ? ToBF16(x[(groups.Begin(g) + r) * shape.inputs + k])
                  : BF16{0};
        }
      }
    }
    std::vector<float> w =
        RoundedToBF16(RandomValues(shape.outputs * shape.inputs, 2));
    PackedMatrix packed;
    if (IsInteger(kernel().weights)) {
      const IntegerMatrix integers =
          RandomIntegers(Layout(kernel().weights, shape, 64, true), 3);
      packed = integers.Pack();
      for (int64_t i = 0; i < shape.outputs * shape.inputs; ++i) {
        w[i] = integers.Weight(i / shape.inputs, i % shape.inputs);
      }
      w = RoundedToBF16(w);
    } else {
      packed = Pack(w, shape.outputs, shape.inputs, kernel().weights, pool);
    }
    const PackedLayout& layout = packed.layout();
    const std::vector<float> got =
        Run(layout, packed.data(), {groups, values.data()});
    const int64_t stride = RoundUp(layout.outputs, kRecordOutputs);
    for (int64_t m = 0; m < shape.rows; ++m) {
      for (int64_t n = 0; n < shape.outputs; ++n) {
        double sum = 0, magnitude = 0;
        for (int64_t k = 0; k < shape.inputs; ++k) {
          const double product =
              double{x[m * shape.inputs + k]} * w[n * shape.inputs + k];
          sum += product;
          magnitude += std::abs(product);
        }
        // A product is rounded at most 16 times in its tile, twice on the way
        // into the sum, and once for every tile of 32 inputs.
        const double roundings = 18 + CeilDiv(shape.inputs, 32);
        ASSERT_NEAR(got[m * stride + n], sum,
                    roundings * 0x1p-24 * 1.01 * magnitude)
            << m << ", " << n << " of " << shape.rows << " x " << shape.inputs;
      }
    }
  }
}

// Indices of the rows that take activations of `panel`.
std::vector<size_t> KernelsWith(DType panel) {
  std::vector<size_t> found;
  for (size_t i = 0; i < AmxMatMulKernels().size(); ++i) {
    if (AmxMatMulKernels()[i].panel == panel) found.push_back(i);
  }
  return found;
}

std::string KernelName(const ::testing::TestParamInfo<size_t>& info) {
  return AmxMatMulKernels()[info.param].name;
}

INSTANTIATE_TEST_SUITE_P(Table, AmxInt8KernelTest,
                         ::testing::ValuesIn(KernelsWith(DType::kI8)),
                         KernelName);
INSTANTIATE_TEST_SUITE_P(Table, AmxBF16KernelTest,
                         ::testing::ValuesIn(KernelsWith(DType::kBF16)),
                         KernelName);
// A build without AVX-512 holds no such rows.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(AmxInt8KernelTest);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(AmxBF16KernelTest);

// The counts that docs/amx.md reasons with, of 32 rows x 32 outputs.
class AmxCountTest : public ::testing::Test {
 protected:
  static constexpr Shape kShape = {32, 512, 32};

  TileCounts Count(const char* name, int64_t group_size) {
    for (const MatMulKernel& kernel : AmxMatMulKernels()) {
      if (name != std::string(kernel.name)) continue;
      const PackedLayout layout =
          Layout(kernel.weights, kShape, group_size, true);
      const IntegerMatrix w = RandomIntegers(layout, 3);
      const PackedMatrix packed = w.Pack();
      const Int8Rows x(kShape, layout, kernel.max_rows);
      AlignedBuffer bf16(32 * 512 * 2, AlignedBuffer::Fill::kZero);
      Panel panel = x.panel();
      if (kernel.panel == DType::kBF16) panel.values = bf16.data();
      AlignedBuffer totals(32 * 32 * sizeof(float));
      AlignedBuffer scratch(kernel.scratch_bytes(layout, kShape.rows));
      EmulatedTiles::TakeCounts();
      kernel.multiply({&layout, packed.data(), panel}, 0, 1,
                      {reinterpret_cast<float*>(totals.data()), 32},
                      scratch.data());
      return EmulatedTiles::TakeCounts();
    }
    return {};
  }

  void SetUp() override {
    if (!CpuSupports(Isa::kEmulatedAmx)) {
      GTEST_SKIP() << WhyUnsupported(Isa::kEmulatedAmx);
    }
  }
};

TEST_F(AmxCountTest, GroupsOf128TakeFullTiles) {
  const TileCounts counts = Count("int4_int8_emulated_amx", 128);
  EXPECT_EQ(counts.i8_multiplies, 32);  // 32 x 32 x 512 / 16384
  EXPECT_EQ(counts.loads, 32);          // 4 tiles for 4 multiplies
  EXPECT_EQ(counts.stores, 4 * 4);      // a group's sums leave
  EXPECT_EQ(counts.zeros, 4 * 4);
  EXPECT_EQ(counts.configurations, 1);
  EXPECT_EQ(counts.releases, 1);
}

TEST_F(AmxCountTest, GroupsOf32TakeHalfTiles) {
  const TileCounts counts = Count("int4_int8_emulated_amx", 32);
  EXPECT_EQ(counts.i8_multiplies, 64);
  EXPECT_EQ(counts.loads, 64);
  EXPECT_EQ(counts.stores, 4 * 16);
}

TEST_F(AmxCountTest, BF16TilesKeepTheirSumsThroughABlock) {
  for (int64_t group_size : {32, 128}) {
    const TileCounts counts = Count("int4_bf16_dot_emulated_amx", group_size);
    EXPECT_EQ(counts.bf16_multiplies, 64);
    EXPECT_EQ(counts.loads, 64 + 4);  // the second block's sums
    EXPECT_EQ(counts.stores, 2 * 4);
    EXPECT_EQ(counts.configurations, 1);
  }
}

}  // namespace
}  // namespace nibble
