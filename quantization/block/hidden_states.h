// What passes from block to block: the hidden states of all calibration
// windows, in bf16.
//
//   HiddenStates states(/*windows=*/128, /*length=*/512, hidden);
//   states.Load(first, count, x, pool);     // x: [count * length, hidden] f32
//   states.Store(first, x, pool);           // rounds to bf16
#ifndef NIBBLE_QUANTIZATION_BLOCK_HIDDEN_STATES_H_
#define NIBBLE_QUANTIZATION_BLOCK_HIDDEN_STATES_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

class HiddenStates {
 public:
  HiddenStates() = default;
  HiddenStates(int64_t windows, int64_t length, int64_t hidden);

  int64_t windows() const { return windows_; }
  int64_t length() const { return length_; }  // tokens of a window
  int64_t hidden() const { return hidden_; }

  // x = windows [first, first + x.rows / length()). REQUIRES, here and below:
  // x is whole windows, [count * length(), hidden()].
  void Load(int64_t first, MatrixView<float> x, ThreadPool& pool) const;
  void Store(int64_t first, MatrixView<const float> x, ThreadPool& pool);

  // All of it, to be saved and restored: [windows, length, hidden].
  absl::Span<const BF16> values() const { return values_.span(); }
  absl::Span<BF16> values() { return values_.span(); }

 private:
  absl::Span<const BF16> Rows(int64_t first, int64_t rows, int64_t cols) const;

  int64_t windows_ = 0;
  int64_t length_ = 0;
  int64_t hidden_ = 0;
  Array<BF16> values_;  // [windows, length, hidden]
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_HIDDEN_STATES_H_
