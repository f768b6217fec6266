#include "kernels/elementwise/activation.h"

#include "absl/log/check.h"
#include "kernels/elementwise/activation_kernels.h"
#include "kernels/elementwise/kernel_table.h"
#include "kernels/elementwise/row_parallel.h"

namespace nibble {
namespace {

// Rows of a block that are fetched ahead: they are short, and each begins in
// memory far from the one before.
constexpr int64_t kRowsAhead = 8;
constexpr int64_t kLineFloats = 16;

}  // namespace

void Activate(Activation activation, absl::Span<float> x) {
  const ActivationKernels& kernels = SelectKernels(ActivationTable());
  kernels.activate[static_cast<int>(activation)](
      x.data(), static_cast<int64_t>(x.size()));
}

void GatedActivate(Activation activation, absl::Span<const float> gate,
                   absl::Span<const float> up, absl::Span<float> out) {
  DCHECK(gate.size() == up.size() && gate.size() == out.size());
  const ActivationKernels& kernels = SelectKernels(ActivationTable());
  kernels.gated[static_cast<int>(activation)](
      gate.data(), up.data(), static_cast<int64_t>(gate.size()), out.data());
}

void GatedActivateBlock(Activation activation, MatrixView<const float> gate,
                        MatrixView<const float> up, MatrixView<float> out) {
  DCHECK(gate.rows == up.rows && gate.cols == up.cols);
  DCHECK(gate.rows == out.rows && gate.cols == out.cols);
  const auto gated =
      SelectKernels(ActivationTable()).gated[static_cast<int>(activation)];
  for (int64_t row = 0; row < gate.rows; ++row) {
    if (row + kRowsAhead < gate.rows) {
      const float* const later = out.row(row + kRowsAhead);
      for (int64_t i = 0; i < gate.cols; i += kLineFloats) {
        __builtin_prefetch(later + i, /*write=*/1, /*locality=*/3);
      }
    }
    gated(gate.row(row), up.row(row), gate.cols, out.row(row));
  }
}

void ActivateRows(Activation activation, MatrixView<float> x,
                  ThreadPool& pool) {
  const auto activate =
      SelectKernels(ActivationTable()).activate[static_cast<int>(activation)];
  ForEachRow(x.rows, x.cols, pool,
             [&](int64_t row) { activate(x.row(row), x.cols); });
}

void GatedActivateRows(Activation activation, MatrixView<const float> gate,
                       MatrixView<const float> up, MatrixView<float> out,
                       ThreadPool& pool) {
  CHECK(gate.rows == up.rows && gate.cols == up.cols);
  CHECK(gate.rows == out.rows && gate.cols == out.cols);
  const auto gated =
      SelectKernels(ActivationTable()).gated[static_cast<int>(activation)];
  ForEachRow(gate.rows, gate.cols, pool, [&](int64_t row) {
    gated(gate.row(row), up.row(row), gate.cols, out.row(row));
  });
}

}  // namespace nibble
