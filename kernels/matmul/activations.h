// Packs activations as panel_layout.h draws them, once per product.
#ifndef NIBBLE_KERNELS_MATMUL_ACTIVATIONS_H_
#define NIBBLE_KERNELS_MATMUL_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/matmul/kernel.h"
#include "kernels/matmul/ordered_rows.h"
#include "kernels/thread_pool.h"
#include "tensor/dtype.h"

namespace nibble {

struct PanelFormat {
  DType dtype;         // kF32 or kBF16
  bool round_to_bf16;  // of a kF32 panel: values are rounded, then widened
};

// Bytes of the panel of `rows` rows.
int64_t PanelBytes(DType dtype, int64_t rows, int64_t inputs);

// out = the `count` values of one row in one block, rounded as `format` says,
// and a zero behind an odd count. REQUIRES: count <= kBlockInputs.
void PackPanelRow(const float* x, int64_t count, PanelFormat format,
                  std::byte* out);

// True if one row is already a panel, so that it need not be copied:
// kernels read an odd last k together with the one after it.
bool IsPanel(const OrderedRows& rows, PanelFormat format,
             int64_t inputs_per_step);

// panel = rows, in `groups`. REQUIRES: rows.x.rows == groups.rows; `panel` has
// PanelBytes() and is aligned to 64 bytes.
void PackActivations(const OrderedRows& rows, const RowGroups& groups,
                     PanelFormat format, std::byte* panel, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_ACTIVATIONS_H_
