#include "quantization/matrix_packer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/matrix_rows.h"
#include "quantization/round_to_nearest.h"
#include "tensor/bf16.h"
#include "tensor/block_format.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::RandomValues;
using ::nibble::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kInputs = 64;

// Two tensors of one matrix: "floats" [40, 64], and "blocks" [30, 64] of Q8_0.
class TwoTensors : public TensorSource {
 public:
  TwoTensors()
      : floats_(RandomValues(1).Normal(40 * kInputs, 0.1f)),
        blocks_(30 * kInputs / 32) {
    RandomValues random(2);
    for (BlockQ8_0& block : blocks_) {
      block.d = ToF16(0.001f);
      for (int8_t& q : block.qs) q = static_cast<int8_t>(random.Bits());
    }
    views_["floats"] = MakeTensorView<float>(floats_, Shape({40, kInputs}));
    views_["blocks"] =
        TensorView{DType::kQ8_0, Shape({30, kInputs}),
                   reinterpret_cast<const std::byte*>(blocks_.data()),
                   blocks_.size() * sizeof(BlockQ8_0)};
  }

  float& weight(int64_t row, int64_t input) {
    return floats_[row * kInputs + input];
  }
  BlockQ8_0& block(int64_t row) { return blocks_[row * kInputs / 32]; }

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override {
    return views_.count(std::string(name)) > 0;
  }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    return views_.at(std::string(name));
  }
  void Release(absl::Span<const std::byte> range) const override {
    released_ += range.size();
  }
  size_t released() const { return released_; }

 private:
  const std::string path_ = "model.gguf";
  const std::vector<std::string> names_ = {"blocks", "floats"};
  std::vector<float> floats_;
  std::vector<BlockQ8_0> blocks_;
  std::map<std::string, TensorView> views_;
  mutable size_t released_ = 0;
};

// Rows 20..39 of the floats, all blocks, rows 0..19 of the floats.
const std::vector<RowRange> kRanges = {
    {"floats", 20, 20}, {"blocks", 0, 30}, {"floats", 0, 20}};

absl::Status GoOn(int64_t) { return absl::OkStatus(); }

class MatrixPackerTest : public ::testing::Test {
 protected:
  MatrixPackerTest() : pool_(2), packer_(pool_) {}

  absl::StatusOr<PackedLayout> Survey(WeightFormat format) {
    const auto rows = MatrixRows::Find(source_, kRanges);
    EXPECT_THAT(rows, IsOk());
    const int64_t group = IsInteger(format) ? 32 : 0;
    const auto layout = PackedLayout::Create(format, rows->rows(), kInputs,
                                             group, format != kInt4);
    EXPECT_THAT(layout, IsOk());
    return packer_.Survey(*rows, *layout, GoOn);
  }

  static constexpr WeightFormat kInt4 = WeightFormat::kInt4;

  TwoTensors source_;
  ThreadPool pool_;
  MatrixPacker packer_;
};

TEST_F(MatrixPackerTest, PutsRowsOfSeveralTensorsTogether) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const MatrixRows rows,
                              MatrixRows::Find(source_, kRanges));
  EXPECT_EQ(rows.rows(), 70);
  EXPECT_EQ(rows.inputs(), kInputs);
  EXPECT_EQ(rows.stored_bytes(), 40 * kInputs * 4 + 30 * 2 * 34);
  std::vector<float> row(kInputs);
  ASSERT_THAT(rows.Read(19, absl::MakeSpan(row)), IsOk());
  EXPECT_EQ(row[5], source_.weight(39, 5));
  ASSERT_THAT(rows.Read(20, absl::MakeSpan(row)), IsOk());
  EXPECT_EQ(row[5], ToFloat(source_.block(0).d) *
                        static_cast<float>(source_.block(0).qs[5]));
  ASSERT_THAT(rows.Read(69, absl::MakeSpan(row)), IsOk());
  EXPECT_EQ(row[5], source_.weight(19, 5));
}

TEST_F(MatrixPackerTest, PacksWhatItReadsAndReleasesAllOfIt) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const MatrixRows rows,
                              MatrixRows::Find(source_, kRanges));
  for (const WeightFormat format :
       {kInt4, WeightFormat::kInt8, WeightFormat::kBF16}) {
    NIBBLE_ASSERT_OK_AND_ASSIGN(const PackedLayout layout, Survey(format));
    const size_t before = source_.released();
    AlignedBuffer packed(static_cast<size_t>(layout.bytes()));
    size_t end = 0;
    const auto loss = packer_.Pack(
        rows, layout,
        [&](absl::Span<const std::byte> bytes) {
          std::copy(bytes.begin(), bytes.end(), packed.data() + end);
          end += bytes.size();
          return absl::OkStatus();
        },
        GoOn);
    ASSERT_THAT(loss, IsOk());
    ASSERT_EQ(static_cast<int64_t>(end), layout.bytes());
    EXPECT_EQ(static_cast<int64_t>(source_.released() - before),
              rows.stored_bytes());
    const PackedMatrix matrix = PackedMatrix::Own(layout, std::move(packed));
    std::vector<float> got(kInputs), want(kInputs);
    double error = 0;
    for (int64_t i = 0; i < rows.rows(); ++i) {
      DequantizeRow(matrix, i, absl::MakeSpan(got));
      ASSERT_THAT(rows.Read(i, absl::MakeSpan(want)), IsOk());
      for (int64_t k = 0; k < kInputs; ++k) {
        const double off = double{got[k]} - double{want[k]};
        error += off * off;
        // Half a step, and the zero point's rounding.
        ASSERT_NEAR(got[k], want[k], format == kInt4 ? 0.08 : 0.003) << i;
      }
    }
    if (IsInteger(format)) {
      EXPECT_NEAR(loss->error, error, 1e-3 * error);
    }
  }
}

TEST_F(MatrixPackerTest, NamesTheTensorThatCannotBeRounded) {
  source_.block(17).d = F16{0x7E00};  // NaN, the scale of 32 weights
  EXPECT_THAT(Survey(kInt4),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("model.gguf: tensor blocks"),
                             HasSubstr("finite"))));
  EXPECT_THAT(
      Survey(WeightFormat::kBF16),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tensor blocks")));
  source_.block(17).d = F16{0x7C00};  // infinity
  EXPECT_FALSE(Survey(kInt4).ok());
  source_.block(17).d = F16{0};
  EXPECT_THAT(Survey(kInt4), IsOk());
  source_.weight(0, 63) = 1e38f;
  EXPECT_THAT(Survey(kInt4),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("tensor floats"), HasSubstr("2^126"))));
}

TEST_F(MatrixPackerTest, SurveyWidensTheScalesOfAMatrixThatNeedsIt) {
  EXPECT_FALSE(Survey(kInt4)->wide_scales);
  source_.weight(25, 40) = 2e6f;
  EXPECT_TRUE(Survey(kInt4)->wide_scales);
  EXPECT_FALSE(Survey(WeightFormat::kBF16)->wide_scales);
}

TEST_F(MatrixPackerTest, StopsAtTheFirstErrorOfTheSink) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const MatrixRows rows,
                              MatrixRows::Find(source_, kRanges));
  for (const WeightFormat format : {kInt4, WeightFormat::kBF16}) {
    NIBBLE_ASSERT_OK_AND_ASSIGN(const PackedLayout layout, Survey(format));
    const auto loss = packer_.Pack(
        rows, layout,
        [](absl::Span<const std::byte>) {
          return absl::ResourceExhaustedError("disk full");
        },
        GoOn);
    EXPECT_THAT(loss, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("disk full")));
  }
}

}  // namespace
}  // namespace nibble
