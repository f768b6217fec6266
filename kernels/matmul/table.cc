#include "kernels/matmul/table.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/cpu.h"
#include "kernels/matmul/activations.h"
#include "kernels/matmul/kernels_hwy.h"
#include "kernels/matmul/packed_layout.h"
#include "kernels/matmul/reference.h"

namespace nibble {
namespace {

// Rows that share one panel of activations. More rows per pass read the weights
// less often, but the panel takes rows x inputs floats of scratch: 23 MB here
// with 11008 inputs. At 512 rows a pass over weights from memory takes a tenth
// of the multiplies' time even for f32, and overlaps with them.
constexpr int64_t kRowsPerPass = 512;

int64_t RoundUp(int64_t n, int64_t multiple) {
  return CeilDiv(n, multiple) * multiple;
}

struct Pass {
  MatrixView<const float> x;
  MatrixView<float> y;
};

void RunPass(const MatMulKernel& kernel, const Pass& pass,
             const PackedMatrix& w, const MatMulOptions& options,
             ThreadPool& pool) {
  const MatrixView<const float>& x = pass.x;
  const PanelFormat format = {kernel.panel,
                              options.activations == Activations::kBF16};
  const RowGroups groups(x.rows, kernel.max_rows);
  const bool in_place = IsPanel(x, format, w.layout().chunk_inputs());
  const int64_t panel_bytes =
      in_place ? 0
               : RoundUp(PanelBytes(kernel.panel, x.rows, x.cols), kStepBytes);
  const int64_t totals = KernelTotals(x.rows);  // floats of each thread
  std::byte* scratch =
      pool.Scratch(panel_bytes + pool.threads() * totals * sizeof(float));
  if (!in_place) PackActivations(x, groups, format, scratch, pool);
  const Product product = {
      w.data(),
      in_place ? reinterpret_cast<const std::byte*>(x.data) : scratch,
      groups,
      w.inputs(),
      w.outputs(),
      pass.y.data,
      pass.y.stride,
      options.bias,
      options.accumulate};
  float* all_totals = reinterpret_cast<float*>(scratch + panel_bytes);
  pool.ParallelFor(
      TilesFor(w.outputs()), [&](int64_t begin, int64_t end, int thread) {
        kernel.multiply(product, begin, end, all_totals + thread * totals);
      });
}

}  // namespace

absl::Span<const MatMulKernel> MatMulKernels() {
  static const auto& kernels = *[] {
    auto* all = new std::vector<MatMulKernel>;
    for (const auto& part :
         {ReferenceMatMulKernels(), HighwayMatMulKernels()}) {
      all->insert(all->end(), part.begin(), part.end());
    }
    return all;
  }();
  return kernels;
}

bool KernelAllowed(const MatMulKernel& kernel) {
  return IsaAllowed(kernel.isa) && HighwayTargetAllowed(kernel.highway_target);
}

const MatMulKernel& ChooseKernel(WeightFormat weights,
                                 Activations activations) {
  const MatMulKernel* best = nullptr;
  for (const MatMulKernel& kernel : MatMulKernels()) {
    if (kernel.weights != weights || !KernelAllowed(kernel)) continue;
    if (kernel.panel == DType::kBF16 && activations != Activations::kBF16) {
      continue;
    }
    best = &kernel;
  }
  CHECK(best != nullptr) << "no product with weights "
                         << WeightFormatName(weights);
  return *best;
}

void RunKernel(const MatMulKernel& kernel, MatrixView<const float> x,
               const PackedMatrix& w, const MatMulOptions& options,
               MatrixView<float> y, ThreadPool& pool) {
  DCHECK(kernel.weights == w.format());
  for (int64_t row = 0; row < x.rows; row += kRowsPerPass) {
    const int64_t rows = std::min(kRowsPerPass, x.rows - row);
    RunPass(kernel, {x.Rows(row, rows), y.Rows(row, rows)}, w, options, pool);
  }
}

}  // namespace nibble
