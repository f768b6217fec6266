#include "tensor/view.h"

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {

absl::StatusOr<int64_t> TensorBytes(DType dtype, const Shape& shape) {
  const int64_t block = DTypeBlockElements(dtype);
  if (block > 1) {
    const int64_t row = shape.rank() > 0 ? shape.dim(shape.rank() - 1) : 1;
    if (row % block != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("rows of ", row, " elements do not divide into ",
                       DTypeName(dtype), " blocks of ", block));
    }
  }
  const int64_t blocks = shape.elements() / block;
  const int64_t block_bytes = DTypeBlockBytes(dtype);
  if (blocks > std::numeric_limits<int64_t>::max() / block_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape ", shape.ToString(), " of ", DTypeName(dtype),
                     " has more bytes than 64 bits can count"));
  }
  return blocks * block_bytes;
}

}  // namespace nibble
