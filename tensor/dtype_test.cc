#include "tensor/dtype.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(DTypeTest, NamesAreDistinctAndParseBack) {
  std::set<std::string> names;
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType dtype = static_cast<DType>(i);
    const std::string name(DTypeName(dtype));
    EXPECT_TRUE(names.insert(name).second) << name;
    const absl::StatusOr<DType> parsed = ParseDType(name);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, dtype);
  }
  EXPECT_EQ(DTypeName(DType::kQ6_K), "q6_k");
}

TEST(DTypeTest, ParsesAnyCase) {
  EXPECT_EQ(*ParseDType("BF16"), DType::kBF16);
  EXPECT_EQ(*ParseDType("q4_K"), DType::kQ4_K);
}

TEST(DTypeTest, UnknownNameListsTheKnownOnes) {
  const absl::Status status = ParseDType("fp8").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'fp8'"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("bf16"));
}

// Bits per weight as ggml documents them: scales and minima included.
TEST(DTypeTest, BlocksHaveTheBitsPerElementOfTheirFormats) {
  const auto bits = [](DType dtype) {
    return 8.0 * DTypeBlockBytes(dtype) / DTypeBlockElements(dtype);
  };
  EXPECT_EQ(bits(DType::kF32), 32);
  EXPECT_EQ(bits(DType::kBF16), 16);
  EXPECT_EQ(bits(DType::kQ4_0), 4.5);
  EXPECT_EQ(bits(DType::kQ4_1), 5.0);
  EXPECT_EQ(bits(DType::kQ5_0), 5.5);
  EXPECT_EQ(bits(DType::kQ5_1), 6.0);
  EXPECT_EQ(bits(DType::kQ8_0), 8.5);
  EXPECT_EQ(bits(DType::kQ4_K), 4.5);
  EXPECT_EQ(bits(DType::kQ5_K), 5.5);
  EXPECT_EQ(bits(DType::kQ6_K), 6.5625);
}

TEST(DTypeTest, OnlyBlockFormatsAreQuantized) {
  EXPECT_FALSE(IsQuantized(DType::kF32));
  EXPECT_FALSE(IsQuantized(DType::kI8));
  EXPECT_TRUE(IsQuantized(DType::kQ8_0));
  EXPECT_TRUE(IsQuantized(DType::kQ4_K));
}

}  // namespace
}  // namespace nibble
