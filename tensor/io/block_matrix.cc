#include "tensor/io/block_matrix.h"

#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "tensor/bf16.h"
#include "tensor/block_format.h"
#include "tensor/dtype.h"

namespace nibble {
namespace {

constexpr int64_t kGroupSize = 32;

// Element i of a block of 32 stands beside element i + 16.
void UnpackNibbles(const uint8_t (&qs)[16], uint8_t* codes) {
  for (int i = 0; i < 16; ++i) codes[i] = qs[i] & 15;
  for (int i = 0; i < 16; ++i) codes[16 + i] = qs[i] >> 4;
}

// What one block type says of its form, and how one block is read.

struct Q4_0 {
  using Block = BlockQ4_0;
  static constexpr int kBits = 4;
  static constexpr CodeOffset kOffset = CodeOffset::kSymmetric;
  static constexpr int kGroups = 1;
  static float Scale(const Block& block, int) { return ToFloat(block.d); }
  static float Minimum(const Block&, int) { return 0; }
  static void Codes(const Block& block, uint8_t* codes) {
    UnpackNibbles(block.qs, codes);
  }
};

struct Q4_1 {
  using Block = BlockQ4_1;
  static constexpr int kBits = 4;
  static constexpr CodeOffset kOffset = CodeOffset::kMinimums;
  static constexpr int kGroups = 1;
  static float Scale(const Block& block, int) { return ToFloat(block.d); }
  static float Minimum(const Block& block, int) { return ToFloat(block.m); }
  static void Codes(const Block& block, uint8_t* codes) {
    UnpackNibbles(block.qs, codes);
  }
};

struct Q4_K {
  using Block = BlockQ4_K;
  static constexpr int kBits = 4;
  static constexpr CodeOffset kOffset = CodeOffset::kMinimums;
  static constexpr int kGroups = 8;
  static float Scale(const Block& block, int j) {
    const uint8_t* s = block.scales;
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    return ToFloat(block.d) * static_cast<float>(scale);
  }
  static float Minimum(const Block& block, int j) {
    const uint8_t* s = block.scales;
    const int minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    return -(ToFloat(block.dmin) * static_cast<float>(minimum));
  }
  static void Codes(const Block& block, uint8_t* codes) {
    for (int pair = 0; pair < 4; ++pair) {
      const uint8_t* qs = block.qs + 32 * pair;
      uint8_t* out = codes + 64 * pair;
      for (int i = 0; i < 32; ++i) out[i] = qs[i] & 15;
      for (int i = 0; i < 32; ++i) out[32 + i] = qs[i] >> 4;
    }
  }
};

struct Q8_0 {
  using Block = BlockQ8_0;
  static constexpr int kBits = 8;
  static constexpr CodeOffset kOffset = CodeOffset::kSymmetric;
  static constexpr int kGroups = 1;
  static float Scale(const Block& block, int) { return ToFloat(block.d); }
  static float Minimum(const Block&, int) { return 0; }
  static void Codes(const Block& block, uint8_t* codes) {
    for (int i = 0; i < kGroupSize; ++i) {
      codes[i] = static_cast<uint8_t>(block.qs[i]) ^ 0x80;  // + 128
    }
  }
};

template <class Type>
class BlockMatrix : public CodedMatrix {
 public:
  using Block = typename Type::Block;

  BlockMatrix(const TensorView& view, const TensorSource& source)
      : view_(view), source_(source) {
    form_.outputs = view.shape.dim(0);
    form_.inputs = view.shape.dim(1);
    form_.bits = Type::kBits;
    form_.group_size = kGroupSize;
    form_.offset = Type::kOffset;
  }

  const CodedForm& form() const override { return form_; }
  int64_t stored_bytes() const override {
    return static_cast<int64_t>(view_.bytes);
  }

  void Read(int64_t first_row, int64_t rows,
            const CodedRowsBuffer& out) const override {
    DCHECK(first_row >= 0 && rows >= 0 && first_row + rows <= form_.outputs);
    const int64_t groups = form_.groups();
    DCHECK_EQ(static_cast<int64_t>(out.scales.size()), rows * groups);
    const absl::Span<const Block> blocks = view_.As<Block>().subspan(
        static_cast<size_t>(first_row * groups / Type::kGroups),
        static_cast<size_t>(rows * groups / Type::kGroups));
    for (size_t i = 0; i < out.scales.size(); ++i) {
      const Block& block = blocks[i / Type::kGroups];
      const int group = static_cast<int>(i % Type::kGroups);
      out.scales[i] = Type::Scale(block, group);
      if constexpr (Type::kOffset == CodeOffset::kMinimums) {
        out.offsets[i] = Type::Minimum(block, group);
      }
    }
    if (out.codes.empty()) return;
    DCHECK_EQ(static_cast<int64_t>(out.codes.size()), rows * form_.inputs);
    uint8_t* codes = out.codes.data();
    for (const Block& block : blocks) {
      Type::Codes(block, codes);
      codes += Type::kGroups * kGroupSize;
    }
  }

  void Release() const override {
    source_.Release(absl::MakeConstSpan(view_.data, view_.bytes));
  }

 private:
  const TensorView view_;  // [outputs, inputs] of Block
  const TensorSource& source_;
  CodedForm form_;
};

}  // namespace

std::unique_ptr<const CodedMatrix> MakeBlockMatrix(const TensorView& view,
                                                   const TensorSource& source) {
  if (view.shape.rank() != 2 || view.shape.elements() == 0) return nullptr;
  switch (view.dtype) {
    case DType::kQ4_0:
      return std::make_unique<BlockMatrix<Q4_0>>(view, source);
    case DType::kQ4_1:
      return std::make_unique<BlockMatrix<Q4_1>>(view, source);
    case DType::kQ4_K:
      return std::make_unique<BlockMatrix<Q4_K>>(view, source);
    case DType::kQ8_0:
      return std::make_unique<BlockMatrix<Q8_0>>(view, source);
    default:
      return nullptr;
  }
}

}  // namespace nibble
