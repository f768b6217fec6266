#include "kernels/gemm/double_product.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/log/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/double_product.cc"
#include "kernels/elementwise/simd_targets.h"
// After simd_targets.h.
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

// Loops over registers: the compiler must unroll them completely.
#ifndef NIBBLE_UNROLL
#define NIBBLE_UNROLL _Pragma("GCC unroll 32")
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Doubles = hn::CappedTag<double, 8>;
using VD = hn::Vec<Doubles>;
inline constexpr int64_t kLanes = hn::MaxLanes(Doubles());

// The register budget: with 32 registers, 12 rows x 2 vectors make 24 sums;
// with 16, 6 x 2 make 12.
inline constexpr int kMaxRows = HWY_CAP_GE512 ? 12 : 6;
inline constexpr int kVectors = 2;

// Rows of a panel times some columns of a tile.
struct BlockArgs {
  const double* a;
  const double* b;
  int64_t depth;
  double* c;
  int64_t c_stride;
};

template <int kRows>
void SubtractBlock(const BlockArgs& args) {
  const Doubles d;
  VD sums[kRows][kVectors];
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(d);
  }
  double* const c = args.c;
  const int64_t c_stride = args.c_stride;
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    hwy::Prefetch(c + r * c_stride);
    hwy::Prefetch(c + r * c_stride + 8);
  }
  const double* a = args.a;
  const double* b = args.b;
  for (int64_t k = 0; k < args.depth; ++k, ++a, b += kDoubleTile) {
    VD columns[kVectors];
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      columns[v] = hn::Load(d, b + v * kLanes);
    }
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VD value = hn::Set(d, a[r * kDoubleDepth]);
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = hn::MulAdd(columns[v], value, sums[r][v]);
      }
    }
  }
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      double* at = c + r * c_stride + v * kLanes;
      hn::StoreU(hn::Sub(hn::LoadU(d, at), sums[r][v]), d, at);
    }
  }
}

using BlockFunction = void (*)(const BlockArgs&);

template <int... kRowsMinusOne>
BlockFunction FindBlock(int64_t rows,
                        std::integer_sequence<int, kRowsMinusOne...>) {
  constexpr BlockFunction kBlocks[] = {&SubtractBlock<kRowsMinusOne + 1>...};
  return kBlocks[rows - 1];
}

void Subtract(const DoublePanel& a, const DoubleTiles& b, double* c,
              int64_t c_stride) {
  constexpr auto kAllRows = std::make_integer_sequence<int, kMaxRows>();
  for (int64_t tile = 0; tile < b.count; ++tile) {
    for (int64_t row = 0; row < a.rows; row += kMaxRows) {
      const BlockFunction block =
          FindBlock(std::min<int64_t>(kMaxRows, a.rows - row), kAllRows);
      for (int64_t j = 0; j < kDoubleTile; j += kVectors * kLanes) {
        block({a.values + row * kDoubleDepth, b.values + tile * b.stride + j,
               a.depth, c + row * c_stride + tile * kDoubleTile + j, c_stride});
      }
    }
  }
}

// From the last unknown to the first; each is taken out of the equations of
// those before it at once, which are independent.
void SolveTile(const MatrixView<const double>& columns, double* tile) {
  const Doubles d;
  constexpr int64_t kAll = kDoubleTile / kLanes;  // vectors of a row
  for (int64_t last = columns.rows - 1; last >= 0; --last) {
    const double* const column = columns.row(last);
    VD solved[kAll];
    NIBBLE_UNROLL
    for (int64_t v = 0; v < kAll; ++v) {
      double* const x = tile + last * kDoubleTile + v * kLanes;
      solved[v] = hn::Div(hn::Load(d, x), hn::Set(d, column[last]));
      hn::Store(solved[v], d, x);
    }
    for (int64_t k = 0; k < last; ++k) {
      const VD factor = hn::Set(d, column[k]);
      NIBBLE_UNROLL
      for (int64_t v = 0; v < kAll; ++v) {
        double* const h = tile + k * kDoubleTile + v * kLanes;
        hn::Store(hn::NegMulAdd(factor, solved[v], hn::Load(d, h)), d, h);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(Subtract);
HWY_EXPORT(SolveTile);

void PackDoubleTiles(MatrixView<const double> b, double* tiles) {
  for (int64_t j = 0; j < b.cols; j += kDoubleTile) {
    const int64_t count = std::min(kDoubleTile, b.cols - j);
    for (int64_t k = 0; k < b.rows; ++k, tiles += kDoubleTile) {
      std::memcpy(tiles, b.row(k) + j, count * sizeof(double));
      std::fill(tiles + count, tiles + kDoubleTile, 0.0);
    }
  }
}

void SubtractProduct(const DoublePanel& a, const DoubleTiles& b, double* c,
                     int64_t c_stride) {
  DCHECK_LE(a.depth, kDoubleDepth);
  HWY_DYNAMIC_DISPATCH(Subtract)(a, b, c, c_stride);
}

void SolveUpperTile(MatrixView<const double> columns, double* tile) {
  HWY_DYNAMIC_DISPATCH(SolveTile)(columns, tile);
}

}  // namespace nibble
#endif  // HWY_ONCE
