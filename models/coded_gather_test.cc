// Packed codes have the very values of the tensors that they came from.
#include "models/coded_gather.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"
#include "testing/coded_tensors.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using testing::CodedTensors;
using ::testing::HasSubstr;
using testing::MemoryCodes;
using testing::RandomCodes;
using testing::RandomValues;

constexpr CodeOffset kSymmetric = CodeOffset::kSymmetric;
constexpr CodeOffset kZeros = CodeOffset::kZeros;
constexpr CodeOffset kMinimums = CodeOffset::kMinimums;

// Tensors "a", "b", ... of one width.
class CodedGatherTest : public ::testing::Test {
 protected:
  MemoryCodes& Add(const CodedForm& form) {
    std::unique_ptr<MemoryCodes> matrix = RandomCodes(form, random_);
    parts_.push_back(matrix.get());
    tensors_.Add(Name(parts_.size() - 1), std::move(matrix));
    return *parts_.back();
  }

  static std::string Name(size_t part) { return std::string(1, 'a' + part); }

  // All rows of all tensors, the first tensor's in two ranges around the rest:
  // no range but the first begins at a record.
  std::vector<RowRange> Ranges() const {
    const int64_t rows = parts_[0]->shape.outputs;
    std::vector<RowRange> ranges = {{Name(0), rows / 2, rows - rows / 2}};
    for (size_t i = 1; i < parts_.size(); ++i) {
      ranges.push_back({Name(i), 0, parts_[i]->shape.outputs});
    }
    ranges.push_back({Name(0), 0, rows / 2});
    return ranges;
  }

  // The layout that packs the ranges; none where nothing holds them exactly.
  std::optional<PackedLayout> Layout() {
    const auto gather = CodedGather::Find(tensors_, Ranges());
    if (!gather) return std::nullopt;
    const auto layout = gather->Survey(pool_);
    EXPECT_THAT(layout.status(), testing::IsOk());
    return layout.ok() ? *layout : std::nullopt;
  }

  // Packs everything, once whole and once in blocks, and compares each value.
  void ExpectSameValues(const PackedLayout& layout) {
    const auto gather = CodedGather::Find(tensors_, Ranges());
    ASSERT_TRUE(gather.has_value());
    AlignedBuffer memory(static_cast<size_t>(layout.bytes()));
    gather->Pack(layout, 0, layout.outputs, pool_, memory.data());
    AlignedBuffer blocks(static_cast<size_t>(layout.bytes()));
    ThreadPool one(1);
    for (int64_t row = 0; row < layout.outputs; row += 32) {
      gather->Pack(layout, row, std::min<int64_t>(32, layout.outputs - row),
                   one, blocks.data() + row / 32 * layout.record_bytes());
    }
    EXPECT_EQ(std::memcmp(memory.data(), blocks.data(), memory.size()), 0);

    const PackedMatrix packed = PackedMatrix::Own(layout, std::move(memory));
    std::vector<float> row(static_cast<size_t>(layout.inputs));
    int64_t output = 0;
    for (const RowRange& range : Ranges()) {
      const MemoryCodes& part = *parts_[range.tensor[0] - 'a'];
      for (int64_t i = 0; i < range.rows; ++i, ++output) {
        DequantizeRow(packed, output, absl::MakeSpan(row));
        for (int64_t k = 0; k < layout.inputs; ++k) {
          ASSERT_EQ(row[k], part.Value(range.first_row + i, k))
              << range.tensor << " row " << range.first_row + i << " " << k;
        }
      }
    }
    EXPECT_EQ(output, layout.outputs);
  }

  ThreadPool pool_ = ThreadPool(3);
  RandomValues random_ = RandomValues(17);
  CodedTensors tensors_;
  std::vector<MemoryCodes*> parts_;
};

// Forms of the parts, as {outputs, inputs, bits, group size, offset}.
struct Mix {
  const char* name;
  std::vector<CodedForm> parts;
  WeightFormat format;
  int64_t group_size;
  bool symmetric;
  bool minimums;
};

class CodedMixTest : public CodedGatherTest,
                     public ::testing::WithParamInterface<Mix> {};

TEST_P(CodedMixTest, KeepsEveryValue) {
  const Mix& mix = GetParam();
  for (const CodedForm& form : mix.parts) Add(form);
  const std::optional<PackedLayout> layout = Layout();
  ASSERT_TRUE(layout.has_value());
  EXPECT_EQ(layout->format, mix.format);
  EXPECT_EQ(layout->group_size, mix.group_size);
  EXPECT_EQ(layout->symmetric, mix.symmetric);
  EXPECT_EQ(layout->minimums, mix.minimums);
  EXPECT_FALSE(layout->wide_scales && !mix.minimums);
  ExpectSameValues(*layout);
}

// The same with scales that f16 has no room for: bf16's.
TEST_P(CodedMixTest, KeepsEveryValueOfWideScales) {
  for (const CodedForm& form : GetParam().parts) {
    for (float& scale : Add(form).scales) {
      scale = ToFloat(ToBF16(scale * (random_.Below(2) == 0 ? 1e-9f : 1e9f)));
    }
  }
  const std::optional<PackedLayout> layout = Layout();
  ASSERT_TRUE(layout.has_value());
  EXPECT_TRUE(layout->wide_scales);
  ExpectSameValues(*layout);
}

TEST_P(CodedMixTest, KeepsEveryValueOfOneInputOrder) {
  for (const CodedForm& form : GetParam().parts) Add(form);
  parts_[0]->Shuffle(random_);
  for (MemoryCodes* part : parts_) {
    part->order = parts_[0]->order;
    part->shape.input_order = part->order;
  }
  const auto gather = CodedGather::Find(tensors_, Ranges());
  ASSERT_TRUE(gather.has_value());
  EXPECT_EQ(gather->input_order(), absl::MakeConstSpan(parts_[0]->order));
  const std::optional<PackedLayout> layout = Layout();
  ASSERT_TRUE(layout.has_value());
  ExpectSameValues(*layout);  // of codes, which stay where they are
}

INSTANTIATE_TEST_SUITE_P(
    Mixes, CodedMixTest,
    ::testing::Values(
        Mix{"Symmetric4",
            {{40, 96, 4, 32, kSymmetric, {}}},
            WeightFormat::kInt4,
            32,
            true,
            false},
        Mix{"Symmetric2And3And4",
            {{40, 96, 2, 32, kSymmetric, {}},
             {7, 96, 3, 32, kSymmetric, {}},
             {33, 96, 4, 32, kSymmetric, {}}},
            WeightFormat::kInt4,
            32,
            true,
            false},
        Mix{"Zeros4",
            {{65, 96, 4, 32, kZeros, {}}},
            WeightFormat::kInt4,
            32,
            false,
            false},
        Mix{"SymmetricAndZeros",
            {{40, 128, 4, 64, kSymmetric, {}},
             {9, 128, 4, 64, kZeros, {}},
             {5, 128, 2, 64, kSymmetric, {}},
             {20, 128, 3, 64, kZeros, {}}},
            WeightFormat::kInt4,
            64,
            false,
            false},
        Mix{"Minimums",
            {{40, 96, 4, 32, kMinimums, {}}},
            WeightFormat::kInt4,
            32,
            false,
            true},
        Mix{"MinimumsAndZerosAndSymmetric",
            {{40, 128, 4, 32, kMinimums, {}},
             {9, 128, 4, 64, kZeros, {}},
             {3, 128, 3, 128, kSymmetric, {}},
             {11, 128, 2, 32, kMinimums, {}}},
            WeightFormat::kInt4,
            32,
            false,
            true},
        Mix{"Symmetric8",
            {{40, 96, 8, 32, kSymmetric, {}}},
            WeightFormat::kInt8,
            32,
            true,
            false},
        Mix{"Symmetric8AndSmaller",
            {{40, 128, 8, 128, kSymmetric, {}},
             {9, 128, 4, 64, kZeros, {}},
             {3, 128, 3, 32, kSymmetric, {}},
             {2, 128, 7, 32, kZeros, {}},
             {2, 128, 5, 32, kSymmetric, {}}},
            WeightFormat::kInt8,
            32,
            true,
            false},
        Mix{"GroupsOf64And96",
            {{40, 192, 4, 64, kZeros, {}}, {9, 192, 4, 96, kZeros, {}}},
            WeightFormat::kInt4,
            32,
            false,
            false},
        Mix{"WholeRowsAndGroups",
            {{40, 192, 4, 192, kZeros, {}}, {9, 192, 4, 64, kZeros, {}}},
            WeightFormat::kInt4,
            64,
            false,
            false},
        Mix{"WholeRowsOfAnyLength",
            {{40, 75, 4, 75, kZeros, {}}, {9, 75, 4, 75, kSymmetric, {}}},
            WeightFormat::kInt4,
            75,
            false,
            false},
        Mix{"RaggedLastGroup",
            {{40, 4544 / 32, 4, 128, kZeros, {}},
             {9, 4544 / 32, 4, 64, kSymmetric, {}}},
            WeightFormat::kInt4,
            64,
            false,
            false},
        Mix{"RaggedWholeRow8",
            {{33, 101, 8, 101, kSymmetric, {}}, {9, 101, 3, 32, kZeros, {}}},
            WeightFormat::kInt8,
            32,
            true,
            false}),
    [](const auto& info) { return info.param.name; });

TEST_F(CodedGatherTest, ScalesAreF32OnlyWhereF16LosesOne) {
  MemoryCodes& part = Add({8, 64, 4, 32, kSymmetric, {}});
  EXPECT_FALSE(Layout()->wide_scales);
  for (const float odd : {0x1p-15f, 1.0f + 0x1p-12f, 65536.0f, -0x1p-20f}) {
    const float kept = std::exchange(part.scales[5], odd);
    EXPECT_TRUE(Layout()->wide_scales) << odd;
    ExpectSameValues(*Layout());
    part.scales[5] = kept;
  }
  for (const float good : {0.0f, -0.0f, 0x1p-14f, -65504.0f}) {
    part.scales[5] = good;
    EXPECT_FALSE(Layout()->wide_scales) << good;
    ExpectSameValues(*Layout());
  }
}

TEST_F(CodedGatherTest, MinimumsMadeOfZerosAreExact) {
  Add({8, 64, 4, 32, kMinimums, {}});
  MemoryCodes& zeros = Add({8, 64, 4, 32, kZeros, {}});
  // 11 bits of the scale times 4 of the zero: too long for f16.
  zeros.scales[0] = ToFloat(ToF16(0.0199432373046875f));
  zeros.offsets[0] = 13.0f;
  const std::optional<PackedLayout> layout = Layout();
  ASSERT_TRUE(layout.has_value());
  EXPECT_TRUE(layout->wide_scales);
  ExpectSameValues(*layout);
}

TEST_F(CodedGatherTest, NoLayoutWhereAValueWouldBeRounded) {
  MemoryCodes& part = Add({8, 64, 4, 32, kMinimums, {}});
  EXPECT_TRUE(Layout().has_value());
  const float kept = std::exchange(part.scales[3], 1.0f + 0x1p-23f);
  EXPECT_FALSE(Layout().has_value()) << "scale * code has more than 24 bits";
  part.scales[3] = kept;
  part.offsets[3] = 3e38f;
  EXPECT_FALSE(Layout().has_value()) << "a sum may pass f32's range";
}

TEST_F(CodedGatherTest, NoLayoutWhereAWeightMayPassTheRangeOfF32) {
  Add({8, 64, 4, 32, kZeros, {}}).scales[3] = 3e37f;
  EXPECT_FALSE(Layout().has_value());
}

TEST_F(CodedGatherTest, NoLayoutForFormsThatNoneHolds) {
  const std::vector<std::vector<CodedForm>> cases = {
      {{8, 64, 8, 32, kZeros, {}}},
      {{8, 64, 8, 32, kMinimums, {}}},
      {{8, 64, 8, 32, kSymmetric, {}}, {8, 64, 4, 32, kMinimums, {}}},
      {{8, 64, 4, 16, kSymmetric, {}}},
      {{8, 192, 4, 48, kSymmetric, {}}, {8, 192, 4, 32, kSymmetric, {}}},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    CodedTensors tensors;
    std::vector<RowRange> ranges;
    for (const CodedForm& form : cases[i]) {
      const std::string name = Name(ranges.size());
      tensors.Add(name, RandomCodes(form, random_));
      ranges.push_back({name, 0, form.outputs});
    }
    EXPECT_FALSE(CodedGather::Find(tensors, ranges).has_value()) << i;
    EXPECT_TRUE(HasCodes(tensors, ranges)) << i;
  }
}

TEST_F(CodedGatherTest, NoLayoutForDifferentInputOrders) {
  Add({8, 64, 4, 32, kSymmetric, {}});
  MemoryCodes& other = Add({8, 64, 4, 32, kSymmetric, {}});
  EXPECT_TRUE(Layout().has_value());
  other.Shuffle(random_);
  EXPECT_FALSE(Layout().has_value());
  parts_[0]->Shuffle(random_);
  EXPECT_FALSE(Layout().has_value());
  other.order = parts_[0]->order;
  other.shape.input_order = other.order;
  EXPECT_TRUE(Layout().has_value());
}

TEST_F(CodedGatherTest, NamesTheTensorWithABadScale) {
  Add({8, 64, 4, 32, kMinimums, {}});
  MemoryCodes& bad = Add({70, 64, 4, 32, kMinimums, {}});
  const auto message = [&] {
    return CodedGather::Find(tensors_, Ranges())->Survey(pool_).status();
  };
  for (const float value : {std::numeric_limits<float>::quiet_NaN(),
                            -std::numeric_limits<float>::infinity()}) {
    for (std::vector<float>* values : {&bad.scales, &bad.offsets}) {
      const float kept = std::exchange(values->back(), value);
      EXPECT_THAT(message(),
                  testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("coded: tensor b: holds a scale "
                                              "or a minimum that is not")));
      values->back() = kept;
    }
  }
  EXPECT_THAT(message(), testing::IsOk());
}

}  // namespace
}  // namespace nibble
