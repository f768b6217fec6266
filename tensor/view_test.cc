#include "tensor/view.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/block_format.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(TensorBytesTest, CountsElementsAndBlocks) {
  EXPECT_EQ(*TensorBytes(DType::kF32, Shape({2, 3})), 24);
  EXPECT_EQ(*TensorBytes(DType::kBF16, Shape()), 2);
  EXPECT_EQ(*TensorBytes(DType::kQ4_0, Shape({3, 64})), 3 * 2 * 18);
  EXPECT_EQ(*TensorBytes(DType::kQ6_K, Shape({512})), 2 * 210);
  EXPECT_EQ(*TensorBytes(DType::kQ8_0, Shape({0, 32})), 0);
}

TEST(TensorBytesTest, RejectsRowsThatDoNotDivideIntoBlocks) {
  // 4 * 8 elements fill one block, but rows of 8 would share it.
  const absl::Status status = TensorBytes(DType::kQ4_0, Shape({4, 8})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("rows of 8 elements do not divide into q4_0 blocks"));
  EXPECT_FALSE(TensorBytes(DType::kQ4_K, Shape({32})).ok());
  EXPECT_FALSE(TensorBytes(DType::kQ8_0, Shape()).ok());
}

TEST(TensorBytesTest, RejectsByteCountThatWraps) {
  const Shape shape({std::numeric_limits<int64_t>::max() / 2});
  EXPECT_THAT(std::string(TensorBytes(DType::kF32, shape).status().message()),
              HasSubstr("more bytes than 64 bits"));
}

TEST(TensorViewTest, ReadsBackWhatItViews) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const TensorView view =
      MakeTensorView(absl::MakeConstSpan(values), Shape({2, 3}));
  EXPECT_EQ(view.dtype, DType::kF32);
  EXPECT_EQ(view.bytes, 24u);
  EXPECT_THAT(view.As<float>(), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(TensorViewTest, ReadsBlocks) {
  std::vector<BlockQ8_0> blocks(4);
  blocks[3].qs[31] = -7;
  const TensorView view{DType::kQ8_0, Shape({2, 64}),
                        reinterpret_cast<const std::byte*>(blocks.data()),
                        blocks.size() * sizeof(BlockQ8_0)};
  ASSERT_EQ(view.As<BlockQ8_0>().size(), 4u);
  EXPECT_EQ(view.As<BlockQ8_0>()[3].qs[31], -7);
}

TEST(TensorViewDeathTest, RefusesToReadAnotherType) {
  const std::vector<float> values = {1};
  const TensorView view =
      MakeTensorView(absl::MakeConstSpan(values), Shape({1}));
  EXPECT_DEATH(view.As<BF16>(), "dtype f32 read as bf16");
}

TEST(MatrixViewTest, RowsFollowTheStride) {
  std::vector<int> data = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  // [3, 2] with four elements from row to row.
  const MatrixView<int> view(data.data(), 3, 2, 4);
  EXPECT_EQ(view.row(0)[0], 0);
  EXPECT_THAT(view.row_span(1), ElementsAre(4, 5));
  EXPECT_THAT(view.row_span(2), ElementsAre(8, 9));
  view.row(1)[1] = 50;
  EXPECT_EQ(data[5], 50);
}

TEST(MatrixViewTest, CutsOutRowsAndColumns) {
  std::vector<int> data = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const MatrixView<const int> view(data.data(), 3, 4);
  const MatrixView<const int> part = view.Rows(1, 2).Columns(2, 2);
  EXPECT_EQ(part.rows, 2);
  EXPECT_EQ(part.stride, 4);
  EXPECT_THAT(part.row_span(0), ElementsAre(6, 7));
  EXPECT_THAT(part.row_span(1), ElementsAre(10, 11));
}

TEST(MatrixViewTest, MutableViewBecomesConst) {
  std::vector<int> data = {1, 2};
  const MatrixView<int> view(data.data(), 1, 2);
  const MatrixView<const int> read_only = view;
  EXPECT_THAT(read_only.row_span(0), ElementsAre(1, 2));
}

}  // namespace
}  // namespace nibble
