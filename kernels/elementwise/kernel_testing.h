// Walking a table of kernel variants in a test.
//
//   class NormTest : public VariantTest<NormKernels> {};
//   TEST_P(NormTest, MatchesFormula) { kernels().rms_norm(...); }
//   INSTANTIATE_VARIANTS(NormTest, NormTable());
//
// A row whose ISA this machine lacks is skipped, never passed.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_KERNEL_TESTING_H_
#define NIBBLE_KERNELS_ELEMENTWISE_KERNEL_TESTING_H_

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"

namespace nibble {

template <class Row>
class VariantTest : public testing::TestWithParam<Row> {
 public:
  const Row& kernels() const { return this->GetParam(); }

 protected:
  void SetUp() override {
    if (!CpuSupports(kernels().isa)) {
      GTEST_SKIP() << "this machine lacks " << IsaName(kernels().isa);
    }
  }
};

// Rows print as their name.
template <class Row>
auto operator<<(std::ostream& os, const Row& row)
    -> decltype(static_cast<void>(row.isa), os << row.name) {
  return os << row.name;
}

#define INSTANTIATE_VARIANTS(Test, table)                            \
  INSTANTIATE_TEST_SUITE_P(                                          \
      Variants, Test, testing::ValuesIn(table.begin(), table.end()), \
      [](const auto& info) { return std::string(info.param.name); })

// Seeded normal numbers. The generator and the sum of uniforms are spelled out
// by the standard, so every platform draws the same ones.
class NormalNumbers {
 public:
  explicit NormalNumbers(uint32_t seed) : generator_(seed) {}

  float operator()() {
    double sum = -6.0;
    for (int i = 0; i < 12; ++i) sum += generator_() * 0x1p-32;
    return static_cast<float>(sum);
  }
  std::vector<float> Vector(int64_t n, float scale = 1.0f) {
    std::vector<float> values(n);
    for (float& v : values) v = scale * (*this)();
    return values;
  }

 private:
  std::mt19937 generator_;
};

// A copy of `values` that starts `offset` floats past a vector boundary, with
// guards around it: Intact() says whether they still hold.
class Misaligned {
 public:
  Misaligned(const std::vector<float>& values, int offset)
      : storage_(values.size() + 2 * kGuard + kAlign, kSentinel),
        size_(values.size()) {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    const int to_boundary =
        static_cast<int>((64 - address % 64) % 64 / sizeof(float));
    begin_ = kGuard / kAlign * kAlign + to_boundary + offset;
    std::copy(values.begin(), values.end(), data());
  }

  float* data() { return storage_.data() + begin_; }
  std::vector<float> Values() { return {data(), data() + size_}; }
  bool Intact() {
    for (size_t i = 0; i < storage_.size(); ++i) {
      if (i >= begin_ && i < begin_ + size_) continue;
      if (storage_[i] != kSentinel) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kAlign = 16;
  static constexpr size_t kGuard = 32;
  static constexpr float kSentinel = -12345.0f;

  std::vector<float> storage_;
  size_t size_;
  size_t begin_;
};

// Sizes around whole vectors of 8 and 16 lanes and unrolled loops of four.
inline std::vector<int64_t> SweepSizes() {
  return {1,  2,  3,  7,  8,  9,  15, 16,  17,  24,  31,  32,
          33, 47, 63, 64, 65, 80, 96, 127, 128, 129, 257, 1000};
}

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_KERNEL_TESTING_H_
