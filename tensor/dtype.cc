#include "tensor/dtype.h"

#include <string>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

struct DTypeInfo {
  absl::string_view name;
  int64_t block_elements;
  int64_t block_bytes;
  int64_t alignment;
};

// In the order of DType. The block formats hold bytes and f16 fields, so they
// need the alignment of the latter; see tensor/block_format.h.
constexpr DTypeInfo kInfo[kDTypeCount] = {
    {"f32", 1, 4, 4},      {"f16", 1, 2, 2},      {"bf16", 1, 2, 2},
    {"f64", 1, 8, 8},      {"i8", 1, 1, 1},       {"u8", 1, 1, 1},
    {"i16", 1, 2, 2},      {"i32", 1, 4, 4},      {"i64", 1, 8, 8},
    {"bool", 1, 1, 1},     {"q4_0", 32, 18, 2},   {"q4_1", 32, 20, 2},
    {"q5_0", 32, 22, 2},   {"q5_1", 32, 24, 2},   {"q8_0", 32, 34, 2},
    {"q4_k", 256, 144, 2}, {"q5_k", 256, 176, 2}, {"q6_k", 256, 210, 2},
};

const DTypeInfo& InfoOf(DType dtype) {
  const int index = static_cast<int>(dtype);
  CHECK_LT(index, kDTypeCount) << "not a DType";
  return kInfo[index];
}

}  // namespace

absl::string_view DTypeName(DType dtype) { return InfoOf(dtype).name; }

int64_t DTypeBlockElements(DType dtype) { return InfoOf(dtype).block_elements; }

int64_t DTypeBlockBytes(DType dtype) { return InfoOf(dtype).block_bytes; }

int64_t DTypeAlignment(DType dtype) { return InfoOf(dtype).alignment; }

bool IsQuantized(DType dtype) { return InfoOf(dtype).block_elements > 1; }

absl::StatusOr<DType> ParseDType(absl::string_view name) {
  std::string known;
  for (int i = 0; i < kDTypeCount; ++i) {
    if (absl::EqualsIgnoreCase(name, kInfo[i].name)) {
      return static_cast<DType>(i);
    }
    absl::StrAppend(&known, i == 0 ? "" : ", ", kInfo[i].name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown dtype '", name, "'; known: ", known));
}

}  // namespace nibble
