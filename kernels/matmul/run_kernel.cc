#include "kernels/matmul/run_kernel.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/elementwise/activation.h"
#include "kernels/matmul/activations.h"
#include "kernels/matmul/epilogue.h"
#include "kernels/matmul/minimums.h"
#include "kernels/matmul/ordered_rows.h"
#include "kernels/matmul/outliers.h"
#include "kernels/matmul/panel_layout.h"
#include "kernels/matmul/quantize_activations.h"

namespace nibble {
namespace {

// Rows that share one panel of activations. More rows per pass read the weights
// less often, but the panel takes rows x inputs floats of scratch: 23 MB here
// with 11008 inputs. At 512 rows a pass over weights from memory takes a tenth
// of the multiplies' time even for f32, and overlaps with them.
constexpr int64_t kRowsPerPass = 512;

// Records to a call of few rows with int8 activations. Setting up a call takes
// a tenth of a record's time (2048 inputs, one row): 2.6% of a product in calls
// of 4 records, as of many rows.
constexpr int64_t kRecordsOfFewRows = 16;

// Minimums are read after all records of a call, while those are in L2.
constexpr int64_t kMinimumsBytes = 256 << 10;

// Rows of y that are brought in ahead of the one that is written, which lie far
// apart in memory or the last-level cache. Without, writing them took 4.6% of a
// product of 128 rows (2048 x 5632, AVX-512 VNNI), with it 2%.
constexpr int64_t kPrefetchedRows = 4;

int64_t RoundUpToLine(int64_t n) { return CeilDiv(n, kStepBytes) * kStepBytes; }

// Up to kRowsPerPass rows times a matrix.
class Pass {
 public:
  Pass(const MatMulKernel& kernel, const PackedMatrix& w,
       const MatMulOptions& options, MatrixView<const float> x,
       MatrixView<float> y)
      : kernel_(kernel),
        w_(w),
        options_(options),
        x_(x, options.input_order),
        y_(y) {}

  void Run(ThreadPool& pool);

 private:
  int64_t PanelBytes(int threads) const;
  Panel MakePanel(std::byte* memory, ThreadPool& pool) const;
  Panel MakeInt8Panel(const RowGroups& groups, std::byte* memory,
                      ThreadPool& pool) const;

  // Records of one call.
  int64_t CallRecords() const {
    const bool few = kernel_.panel == DType::kI8 && y_.rows <= kernel_.max_rows;
    if (!few) return kernel_.records_per_call;
    if (!w_.layout().has_minimums()) return kRecordsOfFewRows;
    return std::clamp<int64_t>(kMinimumsBytes / w_.layout().record_bytes(), 1,
                               kRecordsOfFewRows);
  }
  // Outputs of the records of one call, and with gates those of the call's
  // gates beside one more record: `up` may begin within a record.
  int64_t TotalsStride() const {
    const int64_t records = CallRecords();
    return (options_.gated ? 2 * records + 1 : records) *
           w_.layout().record_outputs();
  }
  // The sums of records [first, end), at most CallRecords().
  void Multiply(const Product& product, int64_t first, int64_t end,
                Totals totals, std::byte* scratch) const {
    kernel_.multiply(product, first, end, totals, scratch);
    if (kernel_.panel != DType::kI8) return;
    if (w_.layout().has_minimums()) AddMinimums(product, first, end, totals);
    AddOutliers(product, first, end, totals);
  }
  // Adds bias and old values to the sums of outputs [first, first + count).
  void Finish(const Totals& totals, int64_t first, int64_t count) const;
  void FinishGated(const Product& product, Totals totals, int64_t first,
                   int64_t count, std::byte* scratch) const;
  // Outputs from records [begin, end) of y.
  void RunShare(const Product& product, int64_t begin, int64_t end,
                std::byte* memory) const;

  const MatMulKernel& kernel_;
  const PackedMatrix& w_;
  const MatMulOptions& options_;
  const OrderedRows x_;
  const MatrixView<float> y_;
};

int64_t Pass::PanelBytes(int threads) const {
  const PackedLayout& layout = w_.layout();
  if (kernel_.panel != DType::kI8) {
    return nibble::PanelBytes(kernel_.panel, y_.rows, layout.inputs);
  }
  int64_t bytes =
      QuantizedPanelBytes(y_.rows, layout.inputs, layout.group_size);
  if (x_.order != nullptr) bytes += OrderedRowBytes(layout.inputs, threads);
  if (layout.has_minimums()) bytes += GroupSumBytes(layout, y_.rows);
  return bytes + SortedOutlierBytes(layout, y_.rows);
}

Panel Pass::MakeInt8Panel(const RowGroups& groups, std::byte* memory,
                          ThreadPool& pool) const {
  const PackedLayout& layout = w_.layout();
  float* group_sums = nullptr;
  if (layout.has_minimums()) {
    group_sums = reinterpret_cast<float*>(memory);
    memory += GroupSumBytes(layout, y_.rows);
  }
  std::byte* const sorted = memory;
  memory += SortedOutlierBytes(layout, y_.rows);
  Panel panel =
      QuantizeActivations(x_, groups, layout.group_size, memory, pool);
  if (layout.has_minimums()) SumGroups(panel, layout, group_sums, pool);
  panel.group_sums = group_sums;
  if (memory != sorted) SortOutliers(layout, sorted, panel);
  return panel;
}

Panel Pass::MakePanel(std::byte* memory, ThreadPool& pool) const {
  const RowGroups groups(y_.rows, kernel_.max_rows);
  if (kernel_.panel == DType::kI8) {
    return MakeInt8Panel(groups, memory, pool);
  }
  const PanelFormat format = {kernel_.panel,
                              options_.activations == Activations::kBF16};
  const int64_t step = kernel_.multiplied_as == WeightFormat::kF32 ? 1 : 2;
  if (IsPanel(x_, format, step)) {
    return Panel{groups, reinterpret_cast<const std::byte*>(x_.x.data)};
  }
  PackActivations(x_, groups, format, memory, pool);
  return Panel{groups, memory};
}

void Pass::Finish(const Totals& totals, int64_t first, int64_t count) const {
  const float* bias =
      options_.bias == nullptr ? nullptr : options_.bias + first;
  for (int64_t row = 0; row < y_.rows; ++row) {
    if (row + kPrefetchedRows < y_.rows) {
      const float* ahead = y_.row(row + kPrefetchedRows) + first;
      for (int64_t i = 0; i < count; i += kTileOutputs) {
        __builtin_prefetch(ahead + i, 1);
      }
    }
    StoreSums(totals.data + row * totals.stride, bias, options_.accumulate,
              count, y_.row(row) + first);
  }
}

// `totals` holds the sums of gates [first, first + count).
void Pass::FinishGated(const Product& product, Totals totals, int64_t first,
                       int64_t count, std::byte* scratch) const {
  const int64_t per_record = w_.layout().record_outputs();
  const int64_t up_output = y_.cols + first;
  const int64_t up_record = up_output / per_record;
  const int64_t up_end = CeilDiv(up_output + count, per_record);
  const Totals ups = {totals.data + CallRecords() * per_record, totals.stride};
  for (int64_t r = up_record; r < up_end; r += CallRecords()) {
    Multiply(product, r, std::min(up_end, r + CallRecords()),
             {ups.data + (r - up_record) * per_record, ups.stride}, scratch);
  }
  const MatrixView<float> gate(totals.data, y_.rows, count, totals.stride);
  const MatrixView<float> up(ups.data + up_output % per_record, y_.rows, count,
                             ups.stride);
  if (options_.bias != nullptr) {
    for (int64_t row = 0; row < y_.rows; ++row) {
      StoreSums(gate.row(row), options_.bias + first, false, count,
                gate.row(row));
      StoreSums(up.row(row), options_.bias + up_output, false, count,
                up.row(row));
    }
  }
  GatedActivateBlock(*options_.gated, gate, up, y_.Columns(first, count));
}

void Pass::RunShare(const Product& product, int64_t begin, int64_t end,
                    std::byte* memory) const {
  const int64_t per_record = w_.layout().record_outputs();
  const Totals totals = {reinterpret_cast<float*>(memory), TotalsStride()};
  std::byte* scratch =
      memory + RoundUpToLine(y_.rows * totals.stride * sizeof(float));
  for (int64_t r = begin; r < end; r += CallRecords()) {
    const int64_t r_end = std::min(end, r + CallRecords());
    Multiply(product, r, r_end, totals, scratch);
    const int64_t first = r * per_record;
    const int64_t count = std::min(y_.cols, r_end * per_record) - first;
    if (options_.gated) {
      FinishGated(product, totals, first, count, scratch);
    } else {
      Finish(totals, first, count);
    }
  }
}

void Pass::Run(ThreadPool& pool) {
  const int64_t panel_bytes = RoundUpToLine(PanelBytes(pool.threads()));
  const int64_t scratch_bytes =
      kernel_.scratch_bytes == nullptr
          ? 0
          : kernel_.scratch_bytes(w_.layout(), y_.rows);
  const int64_t thread_bytes =
      RoundUpToLine(y_.rows * TotalsStride() * sizeof(float)) +
      RoundUpToLine(scratch_bytes);
  std::byte* memory = pool.Scratch(
      static_cast<size_t>(panel_bytes + pool.threads() * thread_bytes));
  const Product product = {&w_.layout(), w_.data(), MakePanel(memory, pool)};
  const int64_t records = CeilDiv(y_.cols, w_.layout().record_outputs());
  pool.ParallelForStealing(
      records, /*grain=*/1, [&](int64_t begin, int64_t end, int thread) {
        RunShare(product, begin, end,
                 memory + panel_bytes + thread * thread_bytes);
      });
}

}  // namespace

void RunKernel(const MatMulKernel& kernel, MatrixView<const float> x,
               const PackedMatrix& w, const MatMulOptions& options,
               MatrixView<float> y, ThreadPool& pool) {
  DCHECK(kernel.weights == w.format());
  for (int64_t row = 0; row < x.rows; row += kRowsPerPass) {
    const int64_t rows = std::min(kRowsPerPass, x.rows - row);
    Pass(kernel, w, options, x.Rows(row, rows), y.Rows(row, rows)).Run(pool);
  }
}

}  // namespace nibble
