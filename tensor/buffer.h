// Owned memory for tensors: aligned for SIMD, movable, never copied.
//
//   AlignedBuffer packed(bytes, AlignedBuffer::Fill::kZero);
//   Array<float> logits(rows * vocabulary);          // [rows, vocabulary]
//   Use(logits.data(), logits.size(), logits[7]);
//
// Memory starts at a multiple of 64 bytes, a cache line and the widest vector.
// Large buffers start at a multiple of 2 MiB and ask the kernel for huge pages,
// which spares most of the TLB misses of a walk over a model's weights.
// A buffer too large for the machine ends the program with a message: sizes
// that come from outside must be bounded before they get here.
#ifndef NIBBLE_TENSOR_BUFFER_H_
#define NIBBLE_TENSOR_BUFFER_H_

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/log/check.h"
#include "absl/types/span.h"

namespace nibble {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;

  enum class Fill {
    kNone,  // Contents are unspecified until written.
    kZero,
  };

  // No memory; data() is null.
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size, Fill fill = Fill::kNone);

  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = other.size_;
    other.size_ = 0;
    return *this;
  }

  size_t size() const { return size_; }
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

// A fixed number of T in an AlignedBuffer.
template <class T>
class Array {
 public:
  static_assert(std::is_trivially_copyable_v<T> &&
                std::is_trivially_destructible_v<T>);
  static_assert(alignof(T) <= AlignedBuffer::kAlignment);
  using Fill = AlignedBuffer::Fill;

  Array() = default;
  explicit Array(size_t count, Fill fill = Fill::kNone)
      : buffer_(BytesFor(count), fill), size_(count) {}

  Array(Array&& other) noexcept { *this = std::move(other); }
  Array& operator=(Array&& other) noexcept {
    buffer_ = std::move(other.buffer_);
    size_ = other.size_;
    other.size_ = 0;
    return *this;
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* data() { return reinterpret_cast<T*>(buffer_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(buffer_.data()); }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

  T& operator[](size_t i) {
    DCHECK_LT(i, size_);
    return data()[i];
  }
  const T& operator[](size_t i) const {
    DCHECK_LT(i, size_);
    return data()[i];
  }

  absl::Span<T> span() { return absl::MakeSpan(data(), size_); }
  absl::Span<const T> span() const {
    return absl::MakeConstSpan(data(), size_);
  }

 private:
  static size_t BytesFor(size_t count) {
    CHECK_LE(count, std::numeric_limits<size_t>::max() / sizeof(T));
    return count * sizeof(T);
  }

  AlignedBuffer buffer_;
  size_t size_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_BUFFER_H_
