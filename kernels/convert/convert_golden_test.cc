// Dequantization against values from outside: the Python package `gguf`
// (0.19.0), ggml's own reader of these formats. Made with
// gguf.quants.dequantize(bytes, type), first over generated blocks and then
// over real files; kept as a few values and a hash of the bits of all.
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// FNV-1a over the bits of each float as a word, or over each of its bytes.
uint64_t HashWords(absl::Span<const float> values) {
  uint64_t hash = 0xcbf29ce484222325;
  for (float value : values) hash = (hash ^ Bits(value)) * 0x100000001b3;
  return hash;
}

uint64_t HashBytes(absl::Span<const float> values) {
  uint64_t hash = 0xcbf29ce484222325;
  for (float value : values) {
    for (int byte = 0; byte < 4; ++byte) {
      hash = (hash ^ (Bits(value) >> (8 * byte) & 255)) * 0x100000001b3;
    }
  }
  return hash;
}

struct Golden {
  DType dtype;
  std::vector<int> half_offsets;
  uint32_t first, second, at17, at31, last;  // Bits of five elements.
  uint64_t hash;                             // Of the bytes of all.
};

// clang-format off
const Golden kGoldens[] = {
    {DType::kQ4_0, {0}, 0xbd7be000, 0xbd172000, 0xbd7be000, 0x3db05000,
     0x0, 0xbb8777cd5e3a26c1},
    {DType::kQ4_1, {0, 2}, 0x3e172000, 0x3cc98000, 0x3dc98000, 0x3d972000,
     0x37500000, 0xc8305f66463e8ebc},
    {DType::kQ5_0, {0}, 0x3db05000, 0x3c498000, 0x3de2b000, 0xbd972000,
     0x0, 0xf5b429c166a094d0},
    {DType::kQ5_1, {0, 2}, 0x3e305000, 0x3eaa0400, 0x3ebce800, 0x3e6f4800,
     0x37500000, 0xb4bdfdc1b2a3408e},
    {DType::kQ8_0, {0}, 0x3edc6400, 0x3f26de00, 0x3f6c2200, 0xbfb37600,
     0x39bc8000, 0x9e2a4542b6810fa4},
    {DType::kQ4_K, {0, 2}, 0xbeef4800, 0xbf8a8800, 0x3f23b800, 0xbdc98000,
     0x3aac4000, 0xbf0b3447c7c2479d},
    {DType::kQ5_K, {0, 2}, 0x3fff0600, 0x3ec98000, 0x3e172000, 0xbf172000,
     0x38b60000, 0xcbaa957c6295cfff},
    {DType::kQ6_K, {208}, 0xc1bcced0, 0xc01eff00, 0x40172000, 0xbe172000,
     0x3b60a800, 0x7d66e6315beb80dc},
};
// clang-format on

// Three blocks: byte i is ((7 i^2 + 113 i + 29) >> 3) & 255, and the f16 field
// k of block b is {0.0123, -1.75, 3.1e-6}[b] * (k + 1).
TEST(ConvertGoldenTest, GeneratedBlocksEqualGgml) {
  constexpr int kBlocks = 3;
  const float scales[kBlocks] = {0.0123f, -1.75f, 3.1e-6f};
  for (const Golden& golden : kGoldens) {
    SCOPED_TRACE(DTypeName(golden.dtype));
    const int64_t block_bytes = DTypeBlockBytes(golden.dtype);
    std::vector<uint16_t> storage(kBlocks * block_bytes / 2);
    uint8_t* bytes = reinterpret_cast<uint8_t*>(storage.data());
    for (int i = 0; i < kBlocks * block_bytes; ++i) {
      bytes[i] = static_cast<uint8_t>((i * i * 7 + i * 113 + 29) >> 3);
    }
    for (int b = 0; b < kBlocks; ++b) {
      for (size_t k = 0; k < golden.half_offsets.size(); ++k) {
        const F16 half = ToF16(scales[b] * (k + 1));
        std::memcpy(bytes + b * block_bytes + golden.half_offsets[k], &half,
                    sizeof(half));
      }
    }
    const int64_t elements = kBlocks * DTypeBlockElements(golden.dtype);
    const TensorView view{golden.dtype, Shape({elements}),
                          reinterpret_cast<const std::byte*>(bytes),
                          storage.size() * 2};
    std::vector<float> out(elements);
    ASSERT_TRUE(ConvertToF32(view, absl::MakeSpan(out)).ok());
    EXPECT_EQ(Bits(out[0]), golden.first);
    EXPECT_EQ(Bits(out[1]), golden.second);
    EXPECT_EQ(Bits(out[17]), golden.at17);
    EXPECT_EQ(Bits(out[31]), golden.at31);
    EXPECT_EQ(Bits(out.back()), golden.last);
    EXPECT_EQ(HashBytes(out), golden.hash);
  }
}

struct FileGolden {
  const char* recipe;  // Part of the file's name.
  const char* tensor;
  const char* type;
  Shape shape;
  uint64_t hash;  // Of the words.
};

TEST(ConvertGoldenTest, RealFilesEqualGgml) {
  const FileGolden goldens[] = {
      {"q4_0", "blk.0.attn_q.weight", "Q4_0", {256, 256}, 0xefde380a31cc2325},
      {"q4_0", "blk.0.attn_norm.weight", "F32", {256}, 0xd97287ed9151b725},
      {"q4_0", "token_embd.weight", "Q6_K", {4096, 256}, 0x18c87b2580c772fd},
      {"q4_1", "blk.0.attn_q.weight", "Q4_1", {256, 256}, 0x337bf45aec131325},
      {"q4_k_m", "blk.0.attn_q.weight", "Q4_K", {256, 256}, 0xdf1441ca1653b65},
      {"q4_k_m", "blk.2.attn_v.weight", "Q6_K", {128, 256}, 0x32d979cdbf444355},
      {"q8_0", "blk.0.attn_q.weight", "Q8_0", {256, 256}, 0xe92f2ca8a353b925},
  };
  for (const FileGolden& golden : goldens) {
    SCOPED_TRACE(absl::StrCat(golden.recipe, " ", golden.tensor));
    const std::string name = absl::StrCat("tolstoy-llama-gguf-", golden.recipe);
    const std::optional<std::string> path = testing::SharedDataPath(
        absl::StrCat("quantized/", name, "/", name, ".gguf"));
    if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
    const auto file = GgufFile::Open(*path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(*(*file)->TensorTypeName(golden.tensor), golden.type);
    const absl::StatusOr<TensorView> view = (*file)->Find(golden.tensor);
    ASSERT_TRUE(view.ok()) << view.status();
    ASSERT_EQ(view->shape, golden.shape);
    std::vector<float> out(view->shape.elements());
    ASSERT_TRUE(ConvertToF32(*view, absl::MakeSpan(out)).ok());
    EXPECT_EQ(HashWords(out), golden.hash);
  }
}

}  // namespace
}  // namespace nibble
