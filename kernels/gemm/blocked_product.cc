#include "kernels/gemm/blocked_product.h"

#include <algorithm>

#include "kernels/matmul/epilogue.h"
#include "kernels/matmul/matmul_options.h"
#include "kernels/matmul/panel_layout.h"
#include "kernels/matmul/table.h"
#include "tensor/dtype.h"

namespace nibble {
namespace {

// Groups of rows to a unit, whose activations of a block of K (120 rows of f32
// take 120 KiB) stay in L2 while tiles pass over them. 5, 10 and 20 measure
// within 3% of each other, 40 loses 5% where K is 4096.
constexpr int64_t kGroupsPerUnit = 10;
// Of a product's upper half: rectangles that the diagonal cuts are computed
// whole, from the tile in which it enters on. 48 rows, whole groups of 6, 12
// and 16 and three tiles, add a twelfth to the half of 576 columns; 96 and 144
// cost 6 and 12% of the product's speed there.
constexpr int64_t kUpperUnitRows = 48;
constexpr int64_t kColumnsPerUpperUnit = 1536;

// Tiles that pass over a unit's block of K together, and whose totals (30 KiB
// of 120 rows) stay in L2. 4, 8, 12 and 16 measure alike.
constexpr int64_t kTilesPerCall = 4;

constexpr int64_t kPrefetchedRows = 4;

int64_t RoundUpToLine(int64_t n) { return CeilDiv(n, kStepBytes) * kStepBytes; }

int64_t RowsPerUnit(const MatMulKernel& kernel, int64_t m, bool upper) {
  if (!upper) return std::min(m, kGroupsPerUnit * kernel.max_rows);
  return std::min(
      m, kUpperUnitRows * std::clamp<int64_t>(m / kColumnsPerUpperUnit, 1, 5));
}

}  // namespace

void Sums::Store(const Totals& totals, int64_t row, int64_t rows, int64_t col,
                 int64_t cols) const {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t skip =
        upper ? std::clamp<int64_t>(row + r - col, 0, cols) : 0;
    const float* sums = totals.data + r * totals.stride + skip;
    const int64_t count = cols - skip;
    if (doubles.data == nullptr) {
      if (r + kPrefetchedRows < rows) {
        const float* ahead = floats.row(row + r + kPrefetchedRows) + col;
        for (int64_t i = 0; i < cols; i += kTileOutputs) {
          __builtin_prefetch(ahead + i, 1);
        }
      }
      StoreSums(sums, nullptr, accumulate, count,
                floats.row(row + r) + col + skip);
    } else {
      double* out = doubles.row(row + r) + col + skip;
      for (int64_t i = 0; i < count; ++i) {
        out[i] = (accumulate ? out[i] : 0.0) + double{sums[i]};
      }
    }
  }
}

BlockedProduct::BlockedProduct(int64_t m, const PackedLayout& layout,
                               bool upper, const PackingLimits& limits)
    : m_(m),
      layout_(layout),
      upper_(upper),
      limits_(limits),
      kernel_(ChooseKernel(layout.format,
                           layout.format == WeightFormat::kBF16
                               ? Activations::kBF16
                               : Activations::kF32,
                           m)),
      format_{kernel_.panel, layout.format == WeightFormat::kBF16},
      rows_per_unit_(RowsPerUnit(kernel_, m, upper)),
      units_(CeilDiv(m, rows_per_unit_)) {}

int64_t BlockedProduct::unit_rows(int64_t unit) const {
  return std::min(rows_per_unit_, m_ - unit * rows_per_unit_);
}

int64_t BlockedProduct::UnitPanelBytes() const {
  return RoundUpToLine(
      PanelBytes(format_.dtype, rows_per_unit_, layout_.inputs));
}

int64_t BlockedProduct::ThreadBytes() const {
  int64_t bytes = rows_per_unit_ * kTilesPerCall * kTileOutputs * sizeof(float);
  if (kernel_.scratch_bytes != nullptr) {
    bytes += kernel_.scratch_bytes(layout_, rows_per_unit_);
  }
  return RoundUpToLine(bytes);
}

PackedLayout BlockedProduct::LayoutOf(int64_t outputs) const {
  PackedLayout layout = layout_;
  layout.outputs = outputs;
  return layout;
}

int64_t BlockedProduct::OutputsAtOnce() const {
  const int64_t tiles = std::max<int64_t>(
      kTilesPerCall, limits_.tile_bytes / layout_.record_bytes());
  return std::min(layout_.outputs, tiles * kTileOutputs);
}

int64_t BlockedProduct::UnitsAtOnce() const {
  return std::clamp<int64_t>(limits_.panel_bytes / UnitPanelBytes(), 1, units_);
}

PanelUnits BlockedProduct::Units() const {
  return {rows_per_unit_, kernel_.max_rows, UnitPanelBytes(), format_};
}

void BlockedProduct::PackRowUnits(const Factor& a, int64_t first, int64_t count,
                                  std::byte* panels, std::byte* tiles,
                                  ThreadPool& pool) const {
  // Of a transposed factor, some columns in one block of K; else some rows.
  const int64_t together =
      std::clamp<int64_t>(kPackedRows / rows_per_unit_, 1, count);
  const int64_t blocks = BlocksFor(layout_.inputs);
  const int64_t blocks_together = a.transposed ? 1 : blocks;
  const int64_t parts = blocks / blocks_together;
  pool.ParallelForStealing(
      CeilDiv(count, together) * parts, 1,
      [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t unit = i / parts * together;
          const int64_t row = (first + unit) * rows_per_unit_;
          const int64_t last =
              (first + std::min(count, unit + together)) * rows_per_unit_;
          const Factor part = a.Slice(row, std::min(m_, last) - row);
          const int64_t block = i % parts * blocks_together;
          std::byte* const out = panels + unit * UnitPanelBytes();
          if (tiles == nullptr) {
            PackPanels(part, Units(), block, block + blocks_together, out);
          } else {
            PackPanelsAndTiles(
                part, Units(), layout_, block, out,
                tiles + row / kTileOutputs * layout_.record_bytes());
          }
        }
      });
}

bool BlockedProduct::SumsMayStandIn(const Sums& c) const {
  return layout_.inputs <= kBlockInputs && !c.accumulate && !c.upper &&
         c.floats.data != nullptr && c.floats.stride % kTileOutputs == 0 &&
         c.floats.cols % kTileOutputs == 0 &&
         reinterpret_cast<uintptr_t>(c.floats.data) % kStepBytes == 0;
}

void BlockedProduct::Multiply(const Part& part, int64_t unit,
                              const std::byte* panel, int64_t first,
                              int64_t end, const Sums& c,
                              std::byte* memory) const {
  const int64_t rows = unit_rows(unit);
  const int64_t row = unit * rows_per_unit_;
  const Product product = {
      &part.layout, part.tiles, {RowGroups(rows, kernel_.max_rows), panel}};
  const Totals own_totals = {reinterpret_cast<float*>(memory),
                             kTilesPerCall * kTileOutputs};
  const bool direct = SumsMayStandIn(c);
  std::byte* const scratch =
      memory + rows_per_unit_ * own_totals.stride * sizeof(float);
  // The tile in which the diagonal enters.
  const int64_t diagonal =
      upper_ ? std::max<int64_t>(row - part.first_output, 0) / kTileOutputs : 0;
  for (int64_t tile = std::max(first, diagonal); tile < end;
       tile += kTilesPerCall) {
    const int64_t last = std::min(end, tile + kTilesPerCall);
    const int64_t output = tile * kTileOutputs;
    const int64_t outputs =
        std::min(part.layout.outputs, last * kTileOutputs) - output;
    const int64_t col = part.first_output + output;
    const Totals totals =
        direct ? Totals{c.floats.row(row) + col, c.floats.stride} : own_totals;
    kernel_.multiply(product, tile, last, totals, scratch);
    if (!direct) c.Store(totals, row, rows, col, outputs);
  }
}

void BlockedProduct::MultiplyUnits(const Part& part, int64_t first,
                                   int64_t count, const Sums& c,
                                   std::byte* panels, ThreadPool& pool) const {
  const int64_t records = part.layout.records();
  const int64_t calls = CeilDiv(records, kTilesPerCall);
  std::byte* const thread_memory = panels + UnitsAtOnce() * UnitPanelBytes();
  pool.ParallelForStealing(
      count * calls, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t tile = i % calls * kTilesPerCall;
          Multiply(part, first + i / calls,
                   panels + i / calls * UnitPanelBytes(), tile,
                   std::min(records, tile + kTilesPerCall), c,
                   thread_memory + thread * ThreadBytes());
        }
      });
}

void BlockedProduct::RunPart(const Factor& a, const Part& part, const Sums& c,
                             std::byte* memory, ThreadPool& pool) const {
  // Rows below the part's last column are in its upper half.
  const int64_t rows =
      upper_ ? std::min(m_, part.first_output + part.layout.outputs) : m_;
  const int64_t units = CeilDiv(rows, rows_per_unit_);
  for (int64_t first = 0; first < units; first += UnitsAtOnce()) {
    const int64_t count = std::min(UnitsAtOnce(), units - first);
    PackRowUnits(a, first, count, memory, nullptr, pool);
    MultiplyUnits(part, first, count, c, memory, pool);
  }
}

void BlockedProduct::PackTiles(const Factor& b, const PackedLayout& layout,
                               std::byte* tiles, ThreadPool& pool) const {
  pool.ParallelForStealing(TileUnits(b, layout), 1,
                           [&](int64_t begin, int64_t end, int) {
                             PackTileUnits(b, layout, begin, end, tiles);
                           });
}

void BlockedProduct::Run(const Factor& a, const Factor& b, const Sums& c,
                         ThreadPool& pool) const {
  const int64_t at_once = OutputsAtOnce();
  const int64_t tile_bytes = LayoutOf(at_once).bytes();
  std::byte* const tiles = pool.Scratch(
      static_cast<size_t>(tile_bytes + UnitsAtOnce() * UnitPanelBytes() +
                          pool.threads() * ThreadBytes()));
  std::byte* const memory = tiles + tile_bytes;
  const bool same_words = (format_.dtype == DType::kBF16) ==
                          (layout_.format == WeightFormat::kBF16);
  if (upper_ && same_words && at_once == layout_.outputs &&
      UnitsAtOnce() == units_) {
    PackRowUnits(a, 0, units_, memory, tiles, pool);
    MultiplyUnits({layout_, 0, tiles}, 0, units_, c, memory, pool);
    return;
  }
  for (int64_t first = 0; first < layout_.outputs; first += at_once) {
    const Part part = {LayoutOf(std::min(at_once, layout_.outputs - first)),
                       first, tiles};
    PackTiles(b.Slice(first, part.layout.outputs), part.layout, tiles, pool);
    RunPart(a, part, c, memory, pool);
  }
}

void BlockedProduct::RunPacked(const Factor& a, const std::byte* tiles,
                               const Sums& c, ThreadPool& pool) const {
  std::byte* const memory = pool.Scratch(static_cast<size_t>(
      UnitsAtOnce() * UnitPanelBytes() + pool.threads() * ThreadBytes()));
  RunPart(a, {layout_, 0, tiles}, c, memory, pool);
}

int64_t BlockedProduct::SerialBytes() const {
  return layout_.bytes() + UnitPanelBytes() + ThreadBytes();
}

void BlockedProduct::RunSerially(const Factor& a, const Factor& b,
                                 const Sums& c, std::byte* memory) const {
  const Part part = {layout_, 0, memory};
  PackTileUnits(b, layout_, 0, TileUnits(b, layout_), memory);
  std::byte* const panel = memory + layout_.bytes();
  for (int64_t unit = 0; unit < units_; ++unit) {
    PackPanels(a.Slice(unit * rows_per_unit_, unit_rows(unit)), Units(), 0,
               BlocksFor(layout_.inputs), panel);
    Multiply(part, unit, panel, 0, layout_.records(), c,
             panel + UnitPanelBytes());
  }
}

}  // namespace nibble
