#include "tensor/packed_layout.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

PackedLayout Layout(WeightFormat format, int64_t outputs, int64_t inputs,
                    int64_t group_size = 0, bool symmetric = true,
                    bool wide_scales = false) {
  const absl::StatusOr<PackedLayout> layout = PackedLayout::Create(
      format, outputs, inputs, group_size, symmetric, wide_scales);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return layout.value_or(PackedLayout());
}

std::string Refusal(WeightFormat format, int64_t outputs, int64_t inputs,
                    int64_t group_size = 0, bool symmetric = true,
                    bool wide_scales = false) {
  const absl::Status status =
      PackedLayout::Create(format, outputs, inputs, group_size, symmetric,
                           wide_scales)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(PackedLayout, FloatRecordsAreTilesOfSteps) {
  const PackedLayout f32 = Layout(WeightFormat::kF32, 35, 18);
  EXPECT_EQ(f32.records(), 3);
  EXPECT_EQ(f32.record_bytes(), 18 * 64);
  EXPECT_EQ(f32.bytes(), 3 * 18 * 64);
  const PackedLayout bf16 = Layout(WeightFormat::kBF16, 16, 7);
  EXPECT_EQ(bf16.records(), 1);
  EXPECT_EQ(bf16.record_bytes(), 4 * 64);
}

TEST(PackedLayout, Int4RecordsHoldScalesZerosAndCodes) {
  const PackedLayout symmetric = Layout(WeightFormat::kInt4, 33, 256, 64);
  EXPECT_EQ(symmetric.records(), 2);
  EXPECT_EQ(symmetric.groups(), 4);
  EXPECT_EQ(symmetric.codes_offset(), 4 * 64);
  EXPECT_EQ(symmetric.record_bytes(), 4 * 64 + 256 / 8 * 128);
  const PackedLayout asymmetric =
      Layout(WeightFormat::kInt4, 32, 320, 64, /*symmetric=*/false);
  EXPECT_EQ(asymmetric.zeros_offset(), 5 * 64);
  // 5 groups of 16 bytes, padded to two lines.
  EXPECT_EQ(asymmetric.codes_offset(), 5 * 64 + 128);
  const PackedLayout wide = Layout(WeightFormat::kInt4, 32, 256, 64,
                                   /*symmetric=*/true, /*wide_scales=*/true);
  EXPECT_EQ(wide.codes_offset(), 4 * 128);
}

// An INT4 layout with minimums, unchecked.
PackedLayout WithMinimums(int64_t outputs, int64_t inputs, int64_t group_size,
                          bool wide_scales = false) {
  PackedLayout layout;
  layout.format = WeightFormat::kInt4;
  layout.outputs = outputs;
  layout.inputs = inputs;
  layout.group_size = group_size;
  layout.symmetric = false;
  layout.wide_scales = wide_scales;
  layout.minimums = true;
  return layout;
}

TEST(PackedLayout, MinimumsTakeAsMuchAsScales) {
  for (const bool wide : {false, true}) {
    const PackedLayout layout =
        *PackedLayout::Checked(WithMinimums(33, 320, 64, wide));
    const int64_t line = wide ? 128 : 64;
    EXPECT_EQ(layout.minimums_offset(), 5 * line);
    EXPECT_EQ(layout.codes_offset(), 10 * line);
    EXPECT_EQ(layout.record_bytes(), 10 * line + 320 / 8 * 128);
    EXPECT_TRUE(layout.has_minimums());
    EXPECT_FALSE(layout.has_zeros());
    EXPECT_EQ(layout.symmetric_zero(), 0);
    PackedLayout zeros = layout;
    zeros.minimums = false;
    EXPECT_FALSE(zeros == layout);
    EXPECT_TRUE(zeros.has_zeros());
  }
}

TEST(PackedLayout, MinimumsWithGroupsAsLongAsTheRowAreOneGroup) {
  const auto layout = PackedLayout::Checked(WithMinimums(32, 100, 128));
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->group_size, 100);
}

TEST(PackedLayout, RefusesMinimumsOfOtherFormatsAndSymmetricOnes) {
  const auto refusal = [](const PackedLayout& wanted) {
    const absl::Status status = PackedLayout::Checked(wanted).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  PackedLayout layout = WithMinimums(32, 128, 32);
  layout.symmetric = true;
  EXPECT_THAT(refusal(layout), HasSubstr("not symmetric"));
  layout.format = WeightFormat::kInt8;
  EXPECT_THAT(refusal(layout), HasSubstr("not symmetric"));
  layout.symmetric = false;
  EXPECT_THAT(refusal(layout), HasSubstr("symmetric only"));
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    layout = PackedLayout{format, 32, 128};
    layout.minimums = true;
    EXPECT_THAT(refusal(layout), HasSubstr("no groups"));
  }
  EXPECT_THAT(refusal(WithMinimums(32, 128, 33)), HasSubstr("size 33"));
  EXPECT_THAT(refusal(WithMinimums(0, 128, 32)), HasSubstr("0 outputs"));
}

TEST(PackedLayout, Int8ChunksHoldFourInputs) {
  const PackedLayout layout = Layout(WeightFormat::kInt8, 32, 130, 64);
  EXPECT_EQ(layout.groups(), 3);
  EXPECT_EQ(layout.chunks(), 33);
  EXPECT_EQ(layout.record_bytes(), 3 * 64 + 33 * 128);
}

TEST(PackedLayout, PartsOfARecordStartAtWholeLines) {
  for (int64_t inputs : {1, 33, 100, 257, 4544, 11008}) {
    for (int64_t group_size : {32, 64, 96, 128, 1024, 65536}) {
      for (bool symmetric : {true, false}) {
        const PackedLayout layout =
            Layout(WeightFormat::kInt4, 70, inputs, group_size, symmetric);
        EXPECT_EQ(layout.zeros_offset() % 64, 0);
        EXPECT_EQ(layout.codes_offset() % 64, 0);
        EXPECT_EQ(layout.record_bytes() % 64, 0);
        EXPECT_EQ(layout.bytes(), 3 * layout.record_bytes());
      }
    }
  }
}

TEST(PackedLayout, AGroupAsLongAsTheRowBecomesTheRow) {
  EXPECT_EQ(Layout(WeightFormat::kInt4, 32, 100, 128).group_size, 100);
  EXPECT_EQ(Layout(WeightFormat::kInt4, 32, 100, 100).groups(), 1);
  EXPECT_EQ(Layout(WeightFormat::kInt4, 32, 129, 128).groups(), 2);
}

TEST(PackedLayout, RefusesWhatNoRecordCanHold) {
  EXPECT_THAT(Refusal(WeightFormat::kF32, 0, 5), HasSubstr("0 outputs"));
  EXPECT_THAT(Refusal(WeightFormat::kF32, 5, -1), HasSubstr("-1 inputs"));
  EXPECT_THAT(Refusal(WeightFormat::kF32, int64_t{1} << 39, int64_t{1} << 39),
              HasSubstr("too large"));
  EXPECT_THAT(Refusal(WeightFormat::kInt4, int64_t{1} << 62, 64, 64),
              HasSubstr("no matrix"));
}

TEST(PackedLayout, RefusesGroupsThatAreNotWholeChunks) {
  EXPECT_THAT(Refusal(WeightFormat::kInt4, 32, 256, 0), HasSubstr("size 0"));
  EXPECT_THAT(Refusal(WeightFormat::kInt4, 32, 256, -32), HasSubstr("-32"));
  EXPECT_THAT(Refusal(WeightFormat::kInt4, 32, 256, 48), HasSubstr("48"));
}

TEST(PackedLayout, RefusesOptionsOfOtherFormats) {
  EXPECT_THAT(Refusal(WeightFormat::kBF16, 32, 256, 32), HasSubstr("bf16"));
  EXPECT_THAT(Refusal(WeightFormat::kF32, 32, 256, 0, false),
              HasSubstr("no groups"));
  EXPECT_THAT(Refusal(WeightFormat::kInt8, 32, 256, 32, false),
              HasSubstr("symmetric only"));
}

TEST(PackedLayout, RefusesGroupsWhoseSumsCouldOverflow) {
  EXPECT_THAT(Refusal(WeightFormat::kInt8, 32, 70000, 70016),
              HasSubstr("65536"));
  EXPECT_EQ(Layout(WeightFormat::kInt8, 32, 70000, 65536).groups(), 2);
  EXPECT_THAT(
      Refusal(WeightFormat::kInt4, 32, int64_t{1} << 21, int64_t{1} << 21),
      HasSubstr("1048576"));
}

TEST(PackedLayout, FormatsHaveNamesThatParse) {
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16,
                                    WeightFormat::kInt8, WeightFormat::kInt4}) {
    const auto parsed = ParseWeightFormat(WeightFormatName(format));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, format);
  }
  EXPECT_THAT(std::string(ParseWeightFormat("int5").status().message()),
              HasSubstr("int5"));
}

}  // namespace
}  // namespace nibble
