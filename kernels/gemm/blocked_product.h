// A product cut into rectangles that threads share, each multiplied by the
// kernels of kernels/matmul and added to the result.
#ifndef NIBBLE_KERNELS_GEMM_BLOCKED_PRODUCT_H_
#define NIBBLE_KERNELS_GEMM_BLOCKED_PRODUCT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/gemm/factor.h"
#include "kernels/gemm/pack_factor.h"
#include "kernels/matmul/activations.h"
#include "kernels/matmul/kernel.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {

// Where the sums go: one of the two is set.
struct Sums {
  MatrixView<float> floats;
  MatrixView<double> doubles;
  bool accumulate = false;
  bool upper = false;  // only on and above the diagonal

  // Rows [row, row + rows) and columns [col, col + cols) of `totals`'s kind.
  void Store(const Totals& totals, int64_t row, int64_t rows, int64_t col,
             int64_t cols) const;
};

// Scratch for packed factors; what is larger is packed in parts. Tiles of a 7B
// model's widest matrix would take 360 MB. For each part of them the first
// factor is packed again, which takes its bytes read and written once: under a
// twentieth of the product's time at 1000 columns to a part.
struct PackingLimits {
  int64_t tile_bytes = int64_t{64} << 20;
  int64_t panel_bytes = int64_t{32} << 20;
};

// c = a b for factors with one depth.
class BlockedProduct {
 public:
  // `m` rows, tiles of `layout`, kF32 or kBF16. `upper` as in Sums.
  BlockedProduct(int64_t m, const PackedLayout& layout, bool upper,
                 const PackingLimits& limits = {});

  // Packs both, a part at a time; with `upper`, both are one factor.
  void Run(const Factor& a, const Factor& b, const Sums& c,
           ThreadPool& pool) const;
  // `tiles` hold the second factor.
  void RunPacked(const Factor& a, const std::byte* tiles, const Sums& c,
                 ThreadPool& pool) const;

  // For the calling thread alone, in `memory` of SerialBytes().
  int64_t SerialBytes() const;
  void RunSerially(const Factor& a, const Factor& b, const Sums& c,
                   std::byte* memory) const;

 private:
  // Columns [first_tile * 16, ...) whose tiles are packed.
  struct Part {
    PackedLayout layout;
    int64_t first_output;
    const std::byte* tiles;
  };

  int64_t unit_rows(int64_t unit) const;
  int64_t UnitPanelBytes() const;
  int64_t ThreadBytes() const;
  PackedLayout LayoutOf(int64_t outputs) const;
  // Outputs whose tiles are packed at a time.
  int64_t OutputsAtOnce() const;

  // Units of rows whose panels are packed at a time.
  int64_t UnitsAtOnce() const;
  PanelUnits Units() const;
  // Panels of units [first, first + count), and with them `tiles` of the same
  // factor unless null.
  void PackRowUnits(const Factor& a, int64_t first, int64_t count,
                    std::byte* panels, std::byte* tiles,
                    ThreadPool& pool) const;
  void PackTiles(const Factor& b, const PackedLayout& layout, std::byte* tiles,
                 ThreadPool& pool) const;
  void MultiplyUnits(const Part& part, int64_t first, int64_t count,
                     const Sums& c, std::byte* panels, ThreadPool& pool) const;
  // True if kernels may write to c itself: whole tiles, each written once. With
  // more blocks of K its rows, which may fight over a cache set, would have to
  // stay in L2.
  bool SumsMayStandIn(const Sums& c) const;
  // Sums of a unit of rows and tiles [first, end) of `part`.
  void Multiply(const Part& part, int64_t unit, const std::byte* panel,
                int64_t first, int64_t end, const Sums& c,
                std::byte* memory) const;
  void RunPart(const Factor& a, const Part& part, const Sums& c,
               std::byte* memory, ThreadPool& pool) const;

  const int64_t m_;
  const PackedLayout layout_;
  const bool upper_;
  const PackingLimits limits_;
  const MatMulKernel& kernel_;
  const PanelFormat format_;
  const int64_t rows_per_unit_;
  const int64_t units_;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GEMM_BLOCKED_PRODUCT_H_
