#include "tensor/buffer.h"

#include <sys/mman.h>

#include <cstring>

namespace nibble {
namespace {

// The size of an x86-64 huge page.
constexpr size_t kHugePage = size_t{2} << 20;

// Rounding up to whole huge pages wastes at most a third from here on.
constexpr size_t kHugePageThreshold = 2 * kHugePage;

}  // namespace

AlignedBuffer::AlignedBuffer(size_t size, Fill fill) : size_(size) {
  if (size == 0) return;
  const bool huge = size >= kHugePageThreshold;
  const size_t alignment = huge ? kHugePage : kAlignment;
  CHECK_LE(size, std::numeric_limits<size_t>::max() - alignment);
  const size_t rounded = (size + alignment - 1) / alignment * alignment;
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, rounded)));
  CHECK(data_ != nullptr) << "out of memory: a buffer of " << size << " bytes";
  if (huge) {
    // A hint: where huge pages are switched off the memory is as good.
    (void)madvise(data_.get(), rounded, MADV_HUGEPAGE);
  }
  if (fill == Fill::kZero) std::memset(data_.get(), 0, size);
}

}  // namespace nibble
