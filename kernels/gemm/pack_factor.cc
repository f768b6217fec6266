#include "kernels/gemm/pack_factor.h"

#include <algorithm>
#include <cstring>

#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/gemm/words.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr int64_t kWordBytes = 4;
constexpr int64_t kTileWords = kTileOutputs;  // of a step

// Rows of words that are transposed at once: they become whole cache lines.
constexpr int64_t kWordRows = 16;

// Some values along the depth, of all vectors of a factor: [words, vectors].
struct WordRows {
  const void* words;
  int64_t stride;  // in words
  int64_t count;
};

// Rows of words [first, first + count) of `block` [depth, vectors]: where they
// lie, or paired in `buffer`.
WordRows ReadWords(MatrixView<const float> block, bool pairs, int64_t first,
                   int64_t count, uint32_t* buffer) {
  if (!pairs) return {block.row(first), block.stride, count};
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = 2 * (first + i);
    PairRows(block.row(k), k + 1 < block.rows ? block.row(k + 1) : nullptr,
             block.cols, buffer + i * block.cols);
  }
  return {buffer, block.cols, count};
}

const std::byte* WordAt(const WordRows& rows, int64_t row, int64_t vector) {
  return static_cast<const std::byte*>(rows.words) +
         (row * rows.stride + vector) * kWordBytes;
}

// The rows of a panel in one block of K. Those of the group that begins at row
// r begin at r * group_stride + offset * (rows of the group).
struct PanelBlock {
  std::byte* panel;
  int64_t row_bytes;     // of one block
  int64_t group_stride;  // bytes
  int64_t offset;        // bytes

  std::byte* Group(const RowGroups& groups, int64_t g) const {
    return panel + groups.Begin(g) * group_stride + groups.Size(g) * offset;
  }
};

// From `block` [depth, rows].
void PackTransposedPanel(MatrixView<const float> block, const RowGroups& groups,
                         PanelFormat format, const PanelBlock& out) {
  const bool pairs = format.dtype == DType::kBF16;
  const int64_t words = pairs ? CeilDiv(block.rows, 2) : block.rows;
  alignas(64) uint32_t buffer[kWordRows * kMaxPanelRows];
  for (int64_t first = 0; first < words; first += kWordRows) {
    const WordRows rows = ReadWords(block, pairs, first,
                                    std::min(kWordRows, words - first), buffer);
    for (int64_t g = 0; g < groups.count; ++g) {
      TransposeWords(WordAt(rows, 0, groups.Begin(g)), rows.stride, rows.count,
                     groups.Size(g), out.Group(groups, g) + first * kWordBytes,
                     out.row_bytes / kWordBytes);
    }
  }
}

// What PackTransposedPanel leaves to do with one row of f32.
void FinishRow(int64_t count, bool round, float* values) {
  if (round) {
    BF16 rounded[kBlockInputs];
    const absl::Span<BF16> span(rounded, static_cast<size_t>(count));
    F32ToBF16(absl::MakeConstSpan(values, span.size()), span);
    BF16ToF32(span, absl::MakeSpan(values, span.size()));
  }
  if (count % 2 != 0) values[count] = 0.0f;
}

// Columns of `block` [depth, columns] as tiles, the first at `out`.
void PackColumns(MatrixView<const float> block, bool pairs,
                 int64_t record_bytes, std::byte* out) {
  const int64_t words = pairs ? CeilDiv(block.rows, 2) : block.rows;
  uint32_t buffer[kTilesPerUnit * kTileWords];
  for (int64_t i = 0; i < words; ++i) {
    const WordRows row = ReadWords(block, pairs, i, 1, buffer);
    for (int64_t j = 0; j < block.cols; j += kTileWords) {
      const int64_t count = std::min(kTileWords, block.cols - j);
      std::byte* step = out + j / kTileWords * record_bytes + i * kStepBytes;
      std::memcpy(step, WordAt(row, 0, j), count * kWordBytes);
      std::memset(step + count * kWordBytes, 0,
                  (kTileWords - count) * kWordBytes);
    }
  }
}

// Up to 16 rows of at most 256 values as the steps of a tile.
void PackRows(MatrixView<const float> rows, bool pairs, std::byte* out) {
  const int64_t words = pairs ? CeilDiv(rows.cols, 2) : rows.cols;
  if (rows.rows < kTileWords) std::memset(out, 0, words * kStepBytes);
  if (!pairs) {
    TransposeWords(rows.data, rows.stride, rows.rows, words, out, kTileWords);
    return;
  }
  constexpr PanelFormat kFormat = {DType::kBF16, true};
  constexpr int64_t kRowBytes = kBlockInputs * sizeof(BF16);
  alignas(64) std::byte buffer[kTileOutputs * kRowBytes];
  for (int64_t i = 0; i < rows.rows; ++i) {
    PackPanelRow(rows.row(i), rows.cols, kFormat, buffer + i * kRowBytes);
  }
  TransposeWords(buffer, kRowBytes / kWordBytes, rows.rows, words, out,
                 kTileWords);
}

}  // namespace

void PackPanelBlock(const Factor& a, const RowGroups& groups,
                    PanelFormat format, int64_t block, std::byte* panel) {
  const int64_t k = block * kBlockInputs;
  const int64_t count = std::min(kBlockInputs, a.depth() - k);
  const int64_t row_bytes = kBlockInputs * DTypeBlockBytes(format.dtype);
  const PanelBlock out = {panel, row_bytes, BlocksFor(a.depth()) * row_bytes,
                          block * row_bytes};
  if (a.transposed) {
    PackTransposedPanel(a.values.Rows(k, count), groups, format, out);
    if (format.dtype == DType::kBF16) return;
  }
  for (int64_t g = 0; g < groups.count; ++g) {
    std::byte* row = out.Group(groups, g);
    for (int64_t r = 0; r < groups.Size(g); ++r, row += row_bytes) {
      if (a.transposed) {
        FinishRow(count, format.round_to_bf16, reinterpret_cast<float*>(row));
      } else {
        PackPanelRow(a.values.row(groups.Begin(g) + r) + k, count, format, row);
      }
    }
  }
}

void PackTileUnits(const Factor& b, const PackedLayout& layout, int64_t begin,
                   int64_t end, std::byte* tiles) {
  const bool pairs = layout.format == WeightFormat::kBF16;
  const int64_t blocks = BlocksFor(layout.inputs);
  const int64_t record_bytes = layout.record_bytes();
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t first = unit / blocks * kTilesPerUnit;
    const int64_t k = unit % blocks * kBlockInputs;
    const int64_t depth = std::min(kBlockInputs, layout.inputs - k);
    const int64_t last = std::min(layout.records(), first + kTilesPerUnit);
    std::byte* out =
        tiles + first * record_bytes + (pairs ? k / 2 : k) * kStepBytes;
    const int64_t output = first * kTileOutputs;
    const int64_t outputs =
        std::min(layout.outputs, last * kTileOutputs) - output;
    const Factor part = b.Slice(output, outputs);
    if (b.transposed) {
      PackColumns(part.values.Rows(k, depth), pairs, record_bytes, out);
      continue;
    }
    for (int64_t j = 0; j < outputs; j += kTileOutputs) {
      const int64_t rows = std::min(kTileOutputs, outputs - j);
      PackRows(part.values.Rows(j, rows).Columns(k, depth), pairs,
               out + j / kTileOutputs * record_bytes);
    }
  }
}

}  // namespace nibble
