// The element types a tensor can hold, and how many bytes they take.
//
//   DTypeName(DType::kQ4_0)           // "q4_0"
//   DTypeBlockElements(DType::kQ4_0)  // 32: elements that share one block
//   DTypeBlockBytes(DType::kQ4_0)     // 18: bytes of one block
//
// A plain type is a block of one element. A quantized type stores a run of
// consecutive elements of one row in a block (tensor/block_format.h), so the
// length of a row is a multiple of DTypeBlockElements.
#ifndef NIBBLE_TENSOR_DTYPE_H_
#define NIBBLE_TENSOR_DTYPE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kU8,
  kI16,
  kI32,
  kI64,
  kBool,
  // Blocks of 32 elements.
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  // Super-blocks of 256 elements.
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

inline constexpr int kDTypeCount = 18;

// Lower-case name: "f32", "bf16", "i64", "bool", "q4_0", "q4_k".
absl::string_view DTypeName(DType dtype);

// The reverse of DTypeName, ignoring case. InvalidArgument lists the names.
absl::StatusOr<DType> ParseDType(absl::string_view name);

// Elements in one block: 1 for plain types, 32 or 256 for quantized ones.
int64_t DTypeBlockElements(DType dtype);

// Bytes of one block: sizeof(element) for plain types.
int64_t DTypeBlockBytes(DType dtype);

// Alignment, in bytes, that a typed pointer to the data needs.
int64_t DTypeAlignment(DType dtype);

// True for the block formats (q4_0 and on).
bool IsQuantized(DType dtype);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_DTYPE_H_
