// Packed matrices of random weights, made as fast as memory takes them.
//
//   SyntheticMatrices matrices(/*seed=*/1);
//   PackedMatrix w = matrices.Make(layout, pool);
//
// A few records are drawn and packed once per layout; the matrix repeats them
// in random order. So 11 GB take seconds, and every byte is a valid one.
#ifndef NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_MATRIX_H_
#define NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <deque>

#include "kernels/matmul/packed_matrix.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/packed_layout.h"

namespace nibble {

class SyntheticMatrices {
 public:
  explicit SyntheticMatrices(uint64_t seed) : state_(seed) {}

  // Weights of mean about 0 and variance about 1 / inputs, as a trained layer's
  // are: a product keeps the scale of what it is given. Integer codes are
  // spread as rounding normal weights spreads them, with zero points from 6 to
  // 9 where the layout has any. The same seed and calls give the same bytes.
  // REQUIRES: `layout` came from PackedLayout::Create.
  PackedMatrix Make(const PackedLayout& layout, ThreadPool& pool);

  // Normal values, [count].
  Array<float> Normal(int64_t count, float deviation);

 private:
  // Packed records of random rows.
  struct Records {
    PackedLayout layout;   // with as many outputs as the records hold
    AlignedBuffer memory;  // [layout.records()][record_bytes]
  };

  uint64_t Bits();
  // Of variance 1 and mean 0, nearly normal.
  float Draw();
  Records Pack(const PackedLayout& layout, ThreadPool& pool);
  Records PackFloats(const PackedLayout& layout, ThreadPool& pool);
  Records PackIntegers(const PackedLayout& layout);
  const Records& WholeRecords(const PackedLayout& layout, ThreadPool& pool);

  uint64_t state_;
  std::deque<Records> whole_;  // one for each layout seen
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_MATRIX_H_
