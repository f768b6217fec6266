// The tensor types that GGUF files name by number.
//
//   GgufTensorTypeName(12)          // "Q4_K"
//   GgufTensorDType(12)             // DType::kQ4_K
//   GgufTensorDType(16)             // nullopt: IQ2_XXS is not supported
//   GgufTensorTypeName(999)         // "type 999"
#ifndef NIBBLE_TENSOR_IO_GGUF_TENSOR_TYPE_H_
#define NIBBLE_TENSOR_IO_GGUF_TENSOR_TYPE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "tensor/dtype.h"

namespace nibble {

std::string GgufTensorTypeName(uint32_t type);

std::optional<DType> GgufTensorDType(uint32_t type);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_GGUF_TENSOR_TYPE_H_
