// The dimensions of a tensor, outermost first.
//
//   absl::StatusOr<Shape> shape = Shape::Create({32000, 4096});  // [rows,
//   cols] shape->elements();   // 131072000 shape->ToString();   // "[32000,
//   4096]"
//
// Rank 0 is a scalar (one element); the highest rank is 4. A dimension may be
// zero, which makes the tensor empty. The product of the dimensions fits
// int64_t: Create, the only way to make a shape from untrusted numbers, sees
// to it.
#ifndef NIBBLE_TENSOR_SHAPE_H_
#define NIBBLE_TENSOR_SHAPE_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nibble {

class Shape {
 public:
  static constexpr int kMaxRank = 4;

  // A scalar.
  Shape() = default;

  // For dimensions that the program itself chose. REQUIRES: Create accepts.
  Shape(std::initializer_list<int64_t> dims)  // NOLINT: implicit by intent
      : Shape(FromTrusted(absl::MakeConstSpan(dims.begin(), dims.size()))) {}

  // InvalidArgument for more than four dimensions, a negative one, or a
  // product above the largest int64_t.
  static absl::StatusOr<Shape> Create(absl::Span<const int64_t> dims);

  int rank() const { return rank_; }

  // REQUIRES: 0 <= i < rank().
  int64_t dim(int i) const {
    CHECK(i >= 0 && i < rank_) << "dimension " << i << " of " << ToString();
    return dims_[i];
  }

  absl::Span<const int64_t> dims() const {
    return absl::MakeConstSpan(dims_.data(), rank_);
  }

  // The product of the dimensions; 1 for a scalar.
  int64_t elements() const { return elements_; }

  // "[2, 3]"; "[]" for a scalar.
  std::string ToString() const;

  friend bool operator==(const Shape& a, const Shape& b) {
    return a.dims() == b.dims();
  }
  friend bool operator!=(const Shape& a, const Shape& b) { return !(a == b); }

 private:
  static Shape FromTrusted(absl::Span<const int64_t> dims);

  int rank_ = 0;
  int64_t elements_ = 1;
  std::array<int64_t, kMaxRank> dims_ = {};
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_SHAPE_H_
