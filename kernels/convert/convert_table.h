// The inner loops of conversion, one set for each of Highway's targets.
//
//   const ConvertTable& table = ActiveConvertTable();
//   table.decode[static_cast<int>(DType::kQ4_K)](blocks, count, out);
//
// All sets are the same plain loops (convert_hwy.cc), compiled for other
// instructions; their results are equal bit for bit.
#ifndef NIBBLE_KERNELS_CONVERT_CONVERT_TABLE_H_
#define NIBBLE_KERNELS_CONVERT_CONVERT_TABLE_H_

#include <cstddef>
#include <cstdint>

#include "tensor/bf16.h"
#include "tensor/dtype.h"

namespace nibble {

struct ConvertTable {
  // Reads `blocks` blocks of a dtype and writes blocks * DTypeBlockElements
  // floats. Null for a dtype that does not convert. `in` is aligned for the
  // dtype.
  using Decode = void (*)(const std::byte* in, int64_t blocks, float* out);
  Decode decode[kDTypeCount];

  void (*f32_to_bf16)(const float* in, int64_t count, BF16* out);
  void (*f32_to_f16)(const float* in, int64_t count, F16* out);
  bool (*all_finite)(const float* in, int64_t count);
};

// The set for the best target that LimitIsa of kernels/cpu.h allows.
const ConvertTable& ActiveConvertTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_CONVERT_CONVERT_TABLE_H_
