#include "kernels/matmul/activations.h"

#include <algorithm>
#include <cstring>

#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/bf16.h"

namespace nibble {
namespace {

// Below this the copy is cheaper (about 3 us at 20 GB/s) than sharing it.
constexpr int64_t kParallelBytes = 64 << 10;

}  // namespace

void PackPanelRow(const float* x, int64_t count, PanelFormat format,
                  std::byte* out) {
  const absl::Span<const float> in(x, static_cast<size_t>(count));
  if (format.dtype == DType::kF32) {
    float* values = reinterpret_cast<float*>(out);
    if (format.round_to_bf16) {
      BF16 rounded[kBlockInputs];
      F32ToBF16(in, absl::MakeSpan(rounded, in.size()));
      BF16ToF32(absl::MakeConstSpan(rounded, in.size()),
                absl::MakeSpan(values, in.size()));
    } else {
      std::memcpy(values, x, in.size() * sizeof(float));
    }
    if (count % 2 != 0) values[count] = 0.0f;
  } else {
    BF16* values = reinterpret_cast<BF16*>(out);
    F32ToBF16(in, absl::MakeSpan(values, in.size()));
    if (count % 2 != 0) values[count] = BF16{0};
  }
}

int64_t PanelBytes(DType dtype, int64_t rows, int64_t inputs) {
  return rows * BlocksFor(inputs) * kBlockInputs * DTypeBlockBytes(dtype);
}

bool IsPanel(const OrderedRows& rows, PanelFormat format,
             int64_t inputs_per_step) {
  return rows.order == nullptr && rows.x.rows == 1 &&
         format.dtype == DType::kF32 && !format.round_to_bf16 &&
         rows.x.cols % inputs_per_step == 0;
}

void PackActivations(const OrderedRows& rows, const RowGroups& groups,
                     PanelFormat format, std::byte* panel, ThreadPool& pool) {
  const int64_t inputs = rows.x.cols;
  const int64_t blocks = BlocksFor(inputs);
  const int64_t row_bytes = kBlockInputs * DTypeBlockBytes(format.dtype);
  const auto pack = [&](int64_t begin, int64_t end, int /*thread*/) {
    float buffer[kBlockInputs];
    for (int64_t i = begin; i < end; ++i) {  // one block of one group
      const int64_t group = i / blocks;
      const int64_t first_row = groups.Begin(group);
      const int64_t size = groups.Size(group);
      const int64_t k = i % blocks * kBlockInputs;
      const int64_t count = std::min(kBlockInputs, inputs - k);
      std::byte* out =
          panel + (first_row * blocks + i % blocks * size) * row_bytes;
      for (int64_t r = 0; r < size; ++r) {
        PackPanelRow(rows.Inputs(first_row + r, k, count, buffer), count,
                     format, out + r * row_bytes);
      }
    }
  };
  if (PanelBytes(format.dtype, rows.x.rows, inputs) < kParallelBytes) {
    pack(0, groups.count * blocks, 0);
  } else {
    pool.ParallelFor(groups.count * blocks, pack);
  }
}

}  // namespace nibble
