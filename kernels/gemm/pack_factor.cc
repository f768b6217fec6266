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

// Tiles that are packed together from [depth, columns]: pieces of 2 KiB again.
constexpr int64_t kTilesTogether = 32;

// Hardware fetches ahead within a row, not from row to row: rows of a block are
// fetched so many ahead.
constexpr int64_t kPrefetchedRows = 8;

void PrefetchRow(MatrixView<const float> block, int64_t k) {
  const float* row = block.row(std::min(k, block.rows - 1));
  for (int64_t j = 0; j < block.cols; j += kTileWords) {
    __builtin_prefetch(row + j);
  }
}

// Words of all columns of `block` [depth, columns]: values k, or the pairs of
// values 2 k and 2 k + 1.
void CopyWords(MatrixView<const float> block, bool pairs, int64_t k,
               uint32_t* words) {
  if (!pairs) {
    PrefetchRow(block, k + kPrefetchedRows);
    std::memcpy(words, block.row(k), block.cols * kWordBytes);
    return;
  }
  PrefetchRow(block, 2 * k + kPrefetchedRows);
  PrefetchRow(block, 2 * k + kPrefetchedRows + 1);
  PairRows(block.row(2 * k),
           2 * k + 1 < block.rows ? block.row(2 * k + 1) : nullptr, block.cols,
           words);
}

// Where the rows of one unit lie.
class UnitPanel {
 public:
  UnitPanel(const PanelUnits& units, int64_t unit, int64_t count, int64_t depth,
            std::byte* panels)
      : groups(std::min(units.rows, count - unit * units.rows), units.max_rows),
        row_bytes(kBlockInputs * DTypeBlockBytes(units.format.dtype)),
        panel_(panels + unit * units.bytes),
        blocks_(BlocksFor(depth)) {}

  // The first row of a group in one block of K; the others follow.
  std::byte* Group(int64_t g, int64_t block) const {
    return panel_ +
           (groups.Begin(g) * blocks_ + block * groups.Size(g)) * row_bytes;
  }

  const RowGroups groups;
  const int64_t row_bytes;  // of one block

 private:
  std::byte* const panel_;
  const int64_t blocks_;
};

int64_t UnitsOf(const Factor& a, const PanelUnits& units) {
  return CeilDiv(a.count(), units.rows);
}

// What a transposition leaves to do with rows of f32: rounding, and a zero
// behind an odd count.
void FinishRows(const Factor& a, const PanelUnits& units, int64_t block,
                int64_t depth, std::byte* panels) {
  if (!units.format.round_to_bf16 && depth % 2 == 0) return;
  const size_t size = static_cast<size_t>(depth);
  BF16 rounded[kBlockInputs];
  for (int64_t u = 0; u < UnitsOf(a, units); ++u) {
    const UnitPanel unit(units, u, a.count(), a.depth(), panels);
    for (int64_t g = 0; g < unit.groups.count; ++g) {
      std::byte* row = unit.Group(g, block);
      for (int64_t r = 0; r < unit.groups.Size(g); ++r, row += unit.row_bytes) {
        float* const values = reinterpret_cast<float*>(row);
        if (units.format.round_to_bf16) {
          F32ToBF16(absl::MakeConstSpan(values, size),
                    absl::MakeSpan(rounded, size));
          BF16ToF32(absl::MakeConstSpan(rounded, size),
                    absl::MakeSpan(values, size));
        }
        if (depth % 2 != 0) values[depth] = 0.0f;
      }
    }
  }
}

// Rows of words, [count, columns], become steps of tiles: tile by tile, each of
// whose steps lie together.
void StoreSteps(const uint32_t* words, int64_t count, int64_t columns,
                int64_t record_bytes, std::byte* out) {
  for (int64_t j = 0; j < columns; j += kTileWords, out += record_bytes) {
    const int64_t filled = std::min(kTileWords, columns - j) * kWordBytes;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t* in = words + i * columns + j;
      std::byte* step = out + i * kStepBytes;
      if (filled == kStepBytes) {
        std::memcpy(step, in, kStepBytes);
      } else {
        std::memcpy(step, in, filled);
        std::memset(step + filled, 0, kStepBytes - filled);
      }
    }
  }
}

// One block of K of `a` [depth, rows]; `tiles` as PackPanelsAndTiles has them,
// or null.
void PackTransposedPanels(const Factor& a, const PanelUnits& units,
                          int64_t block, std::byte* panels,
                          int64_t record_bytes, std::byte* tiles) {
  const int64_t k = block * kBlockInputs;
  const int64_t depth = std::min(kBlockInputs, a.depth() - k);
  const MatrixView<const float> values = a.values.Rows(k, depth);
  const bool pairs = units.format.dtype == DType::kBF16;
  const int64_t words = pairs ? CeilDiv(depth, 2) : depth;
  alignas(64) uint32_t buffer[kWordRows * kPackedRows];
  for (int64_t first = 0; first < words; first += kWordRows) {
    const int64_t count = std::min(kWordRows, words - first);
    for (int64_t i = 0; i < count; ++i) {
      CopyWords(values, pairs, first + i, buffer + i * values.cols);
    }
    if (tiles != nullptr) {
      const int64_t step = (pairs ? k / 2 : k) + first;
      StoreSteps(buffer, count, values.cols, record_bytes,
                 tiles + step * kStepBytes);
    }
    for (int64_t u = 0; u < UnitsOf(a, units); ++u) {
      const UnitPanel unit(units, u, a.count(), a.depth(), panels);
      for (int64_t g = 0; g < unit.groups.count; ++g) {
        TransposeWords(buffer + u * units.rows + unit.groups.Begin(g),
                       values.cols, count, unit.groups.Size(g),
                       unit.Group(g, block) + first * kWordBytes,
                       unit.row_bytes / kWordBytes);
      }
    }
  }
  if (!pairs) FinishRows(a, units, block, depth, panels);
}

// `a` is [rows, depth]: each row is read front to back.
void PackRowPanels(const Factor& a, const PanelUnits& units, int64_t begin,
                   int64_t end, std::byte* panels) {
  for (int64_t u = 0; u < UnitsOf(a, units); ++u) {
    const UnitPanel unit(units, u, a.count(), a.depth(), panels);
    for (int64_t g = 0; g < unit.groups.count; ++g) {
      for (int64_t r = 0; r < unit.groups.Size(g); ++r) {
        const float* row =
            a.values.row(u * units.rows + unit.groups.Begin(g) + r);
        for (int64_t block = begin; block < end; ++block) {
          const int64_t k = block * kBlockInputs;
          PackPanelRow(row + k, std::min(kBlockInputs, a.depth() - k),
                       units.format, unit.Group(g, block) + r * unit.row_bytes);
        }
      }
    }
  }
}

// Columns of `block` [depth, columns] as tiles, the first at `out`.
void PackColumns(MatrixView<const float> block, bool pairs,
                 int64_t record_bytes, std::byte* out) {
  const int64_t words = pairs ? CeilDiv(block.rows, 2) : block.rows;
  alignas(64) uint32_t buffer[kWordRows * kTilesTogether * kTileWords];
  for (int64_t first = 0; first < words; first += kWordRows) {
    const int64_t count = std::min(kWordRows, words - first);
    for (int64_t i = 0; i < count; ++i) {
      CopyWords(block, pairs, first + i, buffer + i * block.cols);
    }
    StoreSteps(buffer, count, block.cols, record_bytes,
               out + first * kStepBytes);
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

void PackPanels(const Factor& a, const PanelUnits& units, int64_t begin,
                int64_t end, std::byte* panels) {
  if (!a.transposed) return PackRowPanels(a, units, begin, end, panels);
  for (int64_t block = begin; block < end; ++block) {
    PackTransposedPanels(a, units, block, panels, 0, nullptr);
  }
}

void PackPanelsAndTiles(const Factor& x, const PanelUnits& units,
                        const PackedLayout& layout, int64_t block,
                        std::byte* panels, std::byte* tiles) {
  PackTransposedPanels(x, units, block, panels, layout.record_bytes(), tiles);
}

int64_t TileUnits(const Factor& b, const PackedLayout& layout) {
  return b.transposed ? CeilDiv(layout.records(), kTilesTogether) *
                            BlocksFor(layout.inputs)
                      : layout.records();
}

void PackTileUnits(const Factor& b, const PackedLayout& layout, int64_t begin,
                   int64_t end, std::byte* tiles) {
  const bool pairs = layout.format == WeightFormat::kBF16;
  const int64_t blocks = BlocksFor(layout.inputs);
  const auto pack = [&](int64_t tile, int64_t count, int64_t block) {
    const int64_t k = block * kBlockInputs;
    const int64_t depth = std::min(kBlockInputs, layout.inputs - k);
    const int64_t output = tile * kTileOutputs;
    const Factor part = b.Slice(
        output, std::min(layout.outputs - output, count * kTileOutputs));
    std::byte* out =
        tiles + tile * layout.record_bytes() + (pairs ? k / 2 : k) * kStepBytes;
    if (b.transposed) {
      PackColumns(part.values.Rows(k, depth), pairs, layout.record_bytes(),
                  out);
    } else {
      PackRows(part.values.Columns(k, depth), pairs, out);
    }
  };
  for (int64_t unit = begin; unit < end; ++unit) {
    if (b.transposed) {
      pack(unit / blocks * kTilesTogether, kTilesTogether, unit % blocks);
    } else {
      for (int64_t block = 0; block < blocks; ++block) pack(unit, 1, block);
    }
  }
}

}  // namespace nibble
