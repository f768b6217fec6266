#include "models/quantized/stored_codes.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/log/log.h"
#include "absl/types/span.h"
#include "models/quantized/code_stream.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"

namespace nibble {
namespace {

// Rows whose words are brought together before they are unpacked. A row of a
// column layout is a word in every line of the cache that holds 16 of them, so
// a block uses its lines whole; 64 rows of 11008 inputs at 4 bits are 352 KB of
// words, within an L2 of 512 KB.
constexpr int64_t kBlockRows = 64;

// The output of nibble i of an AWQ word, among its eight, and the reverse.
constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

const uint32_t* WordsOf(const TensorView& tensor) {
  return reinterpret_cast<const uint32_t*>(tensor.data);
}

// Eight words of eight nibbles each, as a matrix, transposed; one for each of
// kBlockRows / 8 columns of words at once, which compilers turn into vectors.
constexpr int64_t kColumns = kBlockRows / 8;
using NibbleTiles = uint32_t[8][kColumns];

void SwapNibbles(uint32_t* a, uint32_t* b, int shift, uint32_t mask) {
  for (int64_t c = 0; c < kColumns; ++c) {
    const uint32_t t = ((a[c] >> shift) ^ b[c]) & mask;
    b[c] ^= t;
    a[c] ^= t << shift;
  }
}

void TransposeNibbles(NibbleTiles& tiles) {
  for (int i = 0; i < 4; ++i) SwapNibbles(tiles[i], tiles[i + 4], 16, 0xFFFFu);
  for (const int i : {0, 1, 4, 5}) {
    SwapNibbles(tiles[i], tiles[i + 2], 8, 0x00FF00FFu);
  }
  for (const int i : {0, 2, 4, 6}) {
    SwapNibbles(tiles[i], tiles[i + 1], 4, 0x0F0F0F0Fu);
  }
}

struct RowBlock {
  int64_t first;
  int64_t rows;  // up to kBlockRows
};

// words [rows, row_words] of a [row_words, outputs] matrix's columns.
void TransposeWords(const uint32_t* in, int64_t outputs, RowBlock block,
                    int64_t row_words, uint32_t* words) {
  // A line of 16 words of each row is written at a time.
  constexpr int64_t kLine = 16;
  for (int64_t w = 0; w < row_words; w += kLine) {
    const int64_t end = std::min(w + kLine, row_words);
    for (int64_t i = w; i < end; ++i) {
      const uint32_t* line = in + i * outputs + block.first;
      for (int64_t r = 0; r < block.rows; ++r)
        words[r * row_words + i] = line[r];
    }
  }
}

// The same of kAwqGemm, whose words [inputs, outputs / 8] run along outputs.
// REQUIRES: block.first is a multiple of 8.
void TransposeAwq(const ModuleTensors& matrix, RowBlock block,
                  int64_t row_words, uint32_t* words) {
  const int64_t stride = matrix.outputs / 8;
  const int64_t columns = (block.rows + 7) / 8;
  const uint32_t* in = WordsOf(matrix.codes) + block.first / 8;
  for (int64_t w = 0; w < row_words; ++w) {
    NibbleTiles tiles = {};
    const int64_t inputs = std::min<int64_t>(8, matrix.inputs - 8 * w);
    for (int64_t k = 0; k < inputs; ++k) {
      std::copy_n(in + (8 * w + k) * stride, columns, tiles[k]);
    }
    TransposeNibbles(tiles);
    for (int i = 0; i < 8; ++i) {
      for (int64_t r = kAwqOrder[i]; r < block.rows; r += 8) {
        words[r * row_words + w] = tiles[i][r / 8];
      }
    }
  }
}

// scales [rows, groups].
template <class T>
void WidenScales(const ModuleTensors& matrix, RowBlock block, int64_t groups,
                 float* scales) {
  const T* stored = matrix.scales.As<T>().data();
  const bool by_row = matrix.layout == CodeLayout::kAwqGemv ||
                      matrix.layout == CodeLayout::kCompressedTensors;
  const int64_t stride = matrix.scales.shape.dim(1);
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t row = block.first + r;
    const T* in = by_row ? stored + row * stride : stored + row;
    const int64_t step = by_row ? 1 : stride;
    for (int64_t g = 0; g < groups; ++g) {
      if constexpr (std::is_same_v<T, float>) {
        scales[r * groups + g] = in[g * step];
      } else {
        scales[r * groups + g] = ToFloat(in[g * step]);
      }
    }
  }
}

// What UnpackCodes left, in the order of the groups.
void Reorder(absl::Span<const int32_t> order, const uint8_t* in, uint8_t* out) {
  for (size_t j = 0; j < order.size(); ++j) out[j] = in[order[j]];
}

}  // namespace

StoredCodes::StoredCodes(ModuleTensors matrix, const TensorSource* source)
    : matrix_(std::move(matrix)), source_(source) {
  DCHECK(matrix_.bits == 4 || (matrix_.layout != CodeLayout::kAwqGemm &&
                               matrix_.layout != CodeLayout::kAwqGemv));
  form_.outputs = matrix_.outputs;
  form_.inputs = matrix_.inputs;
  form_.bits = matrix_.bits;
  form_.group_size = matrix_.group_size;
  form_.offset = matrix_.zeros.data == nullptr ? CodeOffset::kSymmetric
                                               : CodeOffset::kZeros;
  form_.input_order = matrix_.input_order;
}

int64_t StoredCodes::stored_bytes() const {
  return static_cast<int64_t>(matrix_.codes.bytes + matrix_.scales.bytes +
                              matrix_.zeros.bytes +
                              matrix_.input_order.size() * sizeof(int32_t));
}

uint32_t StoredCodes::Zero(int64_t row, int64_t group) const {
  const uint32_t* words = WordsOf(matrix_.zeros);
  const int64_t stride = matrix_.zeros.shape.dim(1);
  const int bits = matrix_.bits;
  switch (matrix_.layout) {
    case CodeLayout::kGptq: {
      words += group * stride;
      const uint32_t mask = (1u << bits) - 1;
      const uint32_t less_one = matrix_.zeros_less_one ? 1 : 0;
      // 32-bit words of ones: 0x11111111 at 4 bits.
      const uint32_t ones = 32 % bits == 0 ? 0xFFFFFFFFu / mask * less_one : 0;
      const uint32_t zero =
          CodeAt([&](int64_t i) { return words[i] + ones; }, bits, row);
      return 32 % bits == 0 ? zero : (zero + less_one) & mask;
    }
    case CodeLayout::kAwqGemm:
      return words[group * stride + row / 8] >> (4 * kAwqNibble[row % 8]) & 15;
    case CodeLayout::kAwqGemv:
      return CodeAt([&](int64_t i) { return words[row * stride + i]; }, bits,
                    group);
    case CodeLayout::kCompressedTensors:
      return CodeAt([&](int64_t i) { return words[i * stride + group]; }, bits,
                    row);
  }
  LOG(FATAL) << "not a layout: " << static_cast<int>(matrix_.layout);
}

void StoredCodes::ReadCodes(int64_t first_row, int64_t rows,
                            uint8_t* codes) const {
  const int64_t row_words = CodeWords(matrix_.inputs, matrix_.bits);
  const bool by_row = matrix_.layout == CodeLayout::kAwqGemv ||
                      matrix_.layout == CodeLayout::kCompressedTensors;
  std::vector<uint32_t> gathered(
      by_row ? 0
             : static_cast<size_t>(std::min(kBlockRows, rows + 7) * row_words));
  std::vector<uint8_t> stored_order(matrix_.input_order.size());
  const size_t inputs = static_cast<size_t>(matrix_.inputs);
  for (int64_t row = first_row; row < first_row + rows;) {
    // Blocks start at multiples of 8 rows, as AWQ's words do.
    const int64_t begin = row / 8 * 8;
    const int64_t end = std::min(begin + kBlockRows, first_row + rows);
    const uint32_t* words = gathered.data();
    if (by_row) {
      words = WordsOf(matrix_.codes) + begin * row_words;
    } else if (matrix_.layout == CodeLayout::kGptq) {
      TransposeWords(WordsOf(matrix_.codes), matrix_.outputs,
                     {begin, end - begin}, row_words, gathered.data());
    } else {
      TransposeAwq(matrix_, {begin, end - begin}, row_words, gathered.data());
    }
    for (; row < end; ++row) {
      uint8_t* out = codes + (row - first_row) * matrix_.inputs;
      uint8_t* unpacked = stored_order.empty() ? out : stored_order.data();
      UnpackCodes(
          {words + (row - begin) * row_words, static_cast<size_t>(row_words)},
          matrix_.bits, {unpacked, inputs});
      if (unpacked != out) Reorder(matrix_.input_order, unpacked, out);
    }
  }
}

void StoredCodes::ReadScales(int64_t first_row, int64_t rows,
                             float* scales) const {
  const RowBlock block = {first_row, rows};
  switch (matrix_.scales.dtype) {
    case DType::kF16:
      return WidenScales<F16>(matrix_, block, form_.groups(), scales);
    case DType::kBF16:
      return WidenScales<BF16>(matrix_, block, form_.groups(), scales);
    default:
      return WidenScales<float>(matrix_, block, form_.groups(), scales);
  }
}

void StoredCodes::Read(int64_t first_row, int64_t rows,
                       const CodedRowsBuffer& out) const {
  DCHECK(first_row >= 0 && rows >= 0 && rows <= matrix_.outputs - first_row);
  const int64_t groups = form_.groups();
  if (!out.codes.empty()) ReadCodes(first_row, rows, out.codes.data());
  ReadScales(first_row, rows, out.scales.data());
  if (form_.offset == CodeOffset::kSymmetric) return;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      out.offsets[static_cast<size_t>(r * groups + g)] =
          static_cast<float>(Zero(first_row + r, g));
    }
  }
}

void StoredCodes::Release() const {
  for (const TensorView* tensor :
       {&matrix_.codes, &matrix_.scales, &matrix_.zeros}) {
    source_->Release({tensor->data, tensor->bytes});
  }
}

}  // namespace nibble
