// Blocks of a GGUF file, packed as codes, have the very values that
// dequantizing them gives.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/coded_gather.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/gguf_builder.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using testing::RandomValues;

// Random blocks of a GGUF file, subnormal scales among them, as
// kernels/convert reads them.
struct BlockType {
  DType dtype;
  uint32_t number;  // in GGUF
  size_t halves;    // f16 numbers at the start of a block
};
class CodedBlocksTest : public ::testing::TestWithParam<BlockType> {};

TEST_P(CodedBlocksTest, BlocksHaveTheValuesOfTheirDequantization) {
  constexpr int64_t kRows = 37, kInputs = 512;
  const auto [dtype, number, halves] = GetParam();
  const size_t block = static_cast<size_t>(DTypeBlockBytes(dtype));
  const size_t half = sizeof(F16);
  RandomValues random(5);
  std::vector<std::byte> bytes(kRows * kInputs / DTypeBlockElements(dtype) *
                               block);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.Bits());
  for (size_t at = 0; at < bytes.size(); at += block) {
    for (size_t i = 0; i < halves; ++i) {
      const F16 value =
          ToF16(random.Normal(1, 1e-3f)[0] * (at == 5 * block ? 1e-3f : 1.0f));
      std::memcpy(&bytes[at + i * half], &value, half);
    }
  }
  testing::GgufBuilder gguf;
  gguf.Tensor("w", {kRows, kInputs}, number, bytes);
  const std::string path = ::testing::TempDir() + "/coded_blocks.gguf";
  gguf.Write(path);
  const auto file = GgufFile::Open(path);
  ASSERT_THAT(file.status(), testing::IsOk());

  ThreadPool pool(2);
  const auto gather = CodedGather::Find(**file, {{"w", 0, kRows}});
  ASSERT_TRUE(gather.has_value());
  const auto layout = gather->Survey(pool);
  ASSERT_TRUE(layout.ok() && layout->has_value());
  EXPECT_TRUE((*layout)->wide_scales);
  AlignedBuffer memory(static_cast<size_t>((*layout)->bytes()));
  gather->Pack(**layout, 0, kRows, pool, memory.data());
  const PackedMatrix packed = PackedMatrix::Own(**layout, std::move(memory));
  const TensorView dense = *(*file)->Find("w");
  std::vector<float> got(kInputs), want(kInputs);
  for (int64_t row = 0; row < kRows; ++row) {
    DequantizeRow(packed, row, absl::MakeSpan(got));
    ASSERT_THAT(ConvertRowToF32(dense, row, absl::MakeSpan(want)),
                testing::IsOk());
    ASSERT_EQ(got, want) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CodedBlocksTest,
                         ::testing::Values(BlockType{DType::kQ4_0, 2, 1},
                                           BlockType{DType::kQ4_1, 3, 2},
                                           BlockType{DType::kQ8_0, 8, 1},
                                           BlockType{DType::kQ4_K, 12, 2}),
                         [](const auto& info) {
                           return std::string(DTypeName(info.param.dtype));
                         });

}  // namespace
}  // namespace nibble
