#include "models/synthetic/synthetic_matrix.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

PackedLayout Layout(WeightFormat format, int64_t outputs, int64_t inputs,
                    bool symmetric = true) {
  const int64_t group_size = IsInteger(format) ? 64 : 0;
  return *PackedLayout::Create(format, outputs, inputs, group_size, symmetric);
}

std::vector<float> Row(const PackedMatrix& w, int64_t output) {
  std::vector<float> values(static_cast<size_t>(w.inputs()));
  DequantizeRow(w, output, absl::MakeSpan(values));
  return values;
}

class SyntheticMatrix : public ::testing::TestWithParam<PackedLayout> {
 protected:
  ThreadPool pool_{2};
};

TEST_P(SyntheticMatrix, HasWeightsThatKeepTheScaleOfActivations) {
  const PackedMatrix w = SyntheticMatrices(1).Make(GetParam(), pool_);
  double sum = 0, squares = 0;
  for (int64_t output = 0; output < w.outputs(); ++output) {
    for (const float value : Row(w, output)) {
      sum += value;
      squares += value * value;
    }
  }
  const double count = static_cast<double>(w.outputs() * w.inputs());
  const double deviation = 1 / std::sqrt(static_cast<double>(w.inputs()));
  // A tenth: what rounding, the spread of scales and chance add together.
  EXPECT_NEAR(std::sqrt(squares / count), deviation, 0.1 * deviation);
  EXPECT_NEAR(sum / count, 0, 0.05 * deviation);
}

TEST_P(SyntheticMatrix, DiffersFromRecordToRecord) {
  const PackedMatrix w = SyntheticMatrices(1).Make(GetParam(), pool_);
  int equal = 0, compared = 0;
  for (int64_t output = 0; output + 32 < w.outputs(); output += 32) {
    equal += Row(w, output) == Row(w, output + 32);
    ++compared;
  }
  EXPECT_GT(compared, 5);
  EXPECT_LT(equal, compared / 2);
}

TEST_P(SyntheticMatrix, IsTheSameForTheSameSeedAndAnyThreads) {
  ThreadPool one(1);
  const PackedMatrix a = SyntheticMatrices(5).Make(GetParam(), pool_);
  const PackedMatrix b = SyntheticMatrices(5).Make(GetParam(), one);
  const PackedMatrix c = SyntheticMatrices(6).Make(GetParam(), one);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.bytes()), 0);
  EXPECT_NE(std::memcmp(a.data(), c.data(), a.bytes()), 0);
}

TEST_P(SyntheticMatrix, PadsTheLastRecordWithZeros) {
  const PackedLayout& layout = GetParam();
  const PackedMatrix w = SyntheticMatrices(1).Make(layout, pool_);
  // The padding as outputs of a larger matrix in the same place.
  PackedLayout padded = layout;
  padded.outputs = layout.records() * layout.record_outputs();
  ASSERT_EQ(padded.bytes(), layout.bytes());
  const PackedMatrix whole = PackedMatrix::View(padded, w.data());
  for (int64_t output = layout.outputs; output < padded.outputs; ++output) {
    for (const float value : Row(whole, output)) EXPECT_EQ(value, 0.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, SyntheticMatrix,
                         ::testing::Values(Layout(WeightFormat::kInt4, 500, 96),
                                           Layout(WeightFormat::kInt4, 500, 200,
                                                  false),
                                           Layout(WeightFormat::kInt8, 500, 96),
                                           Layout(WeightFormat::kBF16, 500, 96),
                                           Layout(WeightFormat::kF32, 512, 97)),
                         [](const auto& info) {
                           return absl::StrCat(
                               WeightFormatName(info.param.format),
                               info.param.symmetric ? "" : "Asymmetric");
                         });

}  // namespace
}  // namespace nibble
