#include "tensor/shape.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

std::string ErrorOf(const std::vector<int64_t>& dims) {
  const absl::StatusOr<Shape> shape = Shape::Create(dims);
  if (shape.ok()) return "accepted " + shape->ToString();
  EXPECT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(shape.status().message());
}

TEST(ShapeTest, HoldsDimensionsOutermostFirst) {
  const absl::StatusOr<Shape> shape = Shape::Create({2, 3, 5});
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_EQ(shape->rank(), 3);
  EXPECT_EQ(shape->dim(0), 2);
  EXPECT_EQ(shape->dim(2), 5);
  EXPECT_THAT(shape->dims(), ElementsAre(2, 3, 5));
  EXPECT_EQ(shape->elements(), 30);
  EXPECT_EQ(shape->ToString(), "[2, 3, 5]");
}

TEST(ShapeTest, ScalarHasOneElement) {
  const absl::StatusOr<Shape> shape = Shape::Create({});
  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->rank(), 0);
  EXPECT_EQ(shape->elements(), 1);
  EXPECT_EQ(shape->ToString(), "[]");
  EXPECT_EQ(*shape, Shape());
}

TEST(ShapeTest, ZeroDimensionMakesItEmpty) {
  EXPECT_EQ(Shape::Create({4, 0})->elements(), 0);
}

TEST(ShapeTest, ComparesDimensions) {
  EXPECT_EQ(Shape({2, 3}), Shape({2, 3}));
  EXPECT_NE(Shape({2, 3}), Shape({3, 2}));
  EXPECT_NE(Shape({2}), Shape({2, 1}));
}

TEST(ShapeTest, RejectsFiveDimensions) {
  EXPECT_THAT(ErrorOf({1, 1, 1, 1, 1}), HasSubstr("5 dimensions"));
}

TEST(ShapeTest, RejectsNegativeDimension) {
  EXPECT_THAT(ErrorOf({4, -1}), HasSubstr("negative dimension"));
}

TEST(ShapeTest, RejectsProductThatWraps) {
  EXPECT_THAT(ErrorOf({int64_t{1} << 32, int64_t{1} << 32}),
              HasSubstr("more elements than 64 bits"));
  EXPECT_THAT(ErrorOf({3, kMax / 2}), HasSubstr("more elements"));
  // Also where a zero would hide it.
  EXPECT_THAT(ErrorOf({0, kMax, kMax}), HasSubstr("more elements"));
}

TEST(ShapeTest, AcceptsTheLargestProduct) {
  EXPECT_EQ(Shape::Create({kMax})->elements(), kMax);
  EXPECT_EQ(Shape::Create({kMax / 7, 7})->elements(), kMax / 7 * 7);
}

}  // namespace
}  // namespace nibble
