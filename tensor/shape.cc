#include "tensor/shape.h"

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace nibble {
namespace {

std::string DimsText(absl::Span<const int64_t> dims) {
  return absl::StrCat("[", absl::StrJoin(dims, ", "), "]");
}

// The product of `dims`, or -1 when it does not fit. A zero anywhere makes the
// product zero, but does not excuse the rest: the product of the non-zero
// dimensions must fit too, so that strides computed from them do.
int64_t CheckedProduct(absl::Span<const int64_t> dims) {
  int64_t product = 1;
  bool has_zero = false;
  for (int64_t dim : dims) {
    if (dim == 0) {
      has_zero = true;
    } else if (product > std::numeric_limits<int64_t>::max() / dim) {
      return -1;
    } else {
      product *= dim;
    }
  }
  return has_zero ? 0 : product;
}

}  // namespace

absl::StatusOr<Shape> Shape::Create(absl::Span<const int64_t> dims) {
  if (dims.size() > kMaxRank) {
    return absl::InvalidArgumentError(absl::StrCat("a tensor of ", dims.size(),
                                                   " dimensions; at most ",
                                                   kMaxRank, " are supported"));
  }
  for (int64_t dim : dims) {
    if (dim < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("negative dimension in shape ", DimsText(dims)));
    }
  }
  Shape shape;
  shape.elements_ = CheckedProduct(dims);
  if (shape.elements_ < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shape ", DimsText(dims), " has more elements than 64 bits can count"));
  }
  shape.rank_ = static_cast<int>(dims.size());
  for (int i = 0; i < shape.rank_; ++i) shape.dims_[i] = dims[i];
  return shape;
}

Shape Shape::FromTrusted(absl::Span<const int64_t> dims) {
  absl::StatusOr<Shape> shape = Create(dims);
  CHECK(shape.ok()) << shape.status();
  return *shape;
}

std::string Shape::ToString() const { return DimsText(dims()); }

}  // namespace nibble
