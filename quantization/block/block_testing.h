// Blocks of random checkpoints for tests.
//
//   BlockWeights<float> weights = RandomBlock(config, /*layer=*/1, pool);
//   Array<double> x = RandomRows<double>(24, config.hidden, /*seed=*/5);
#ifndef NIBBLE_QUANTIZATION_BLOCK_BLOCK_TESTING_H_
#define NIBBLE_QUANTIZATION_BLOCK_BLOCK_TESTING_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/load_block.h"
#include "tensor/buffer.h"
#include "tensor/view.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble::testing {

template <class To, class From>
Array<To> Converted(const Array<From>& values) {
  Array<To> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    result[i] = static_cast<To>(values[i]);
  }
  return result;
}

template <class To, class From>
BlockWeights<To> Converted(const BlockWeights<From>& from) {
  BlockWeights<To> to;
  to.attention_norm = {Converted<To>(from.attention_norm.weight),
                       Converted<To>(from.attention_norm.bias)};
  to.mlp_norm = {Converted<To>(from.mlp_norm.weight),
                 Converted<To>(from.mlp_norm.bias)};
  for (const LinearId id : kAllLinears) {
    to[id] = {from[id].outputs, from[id].inputs, Converted<To>(from[id].weight),
              Converted<To>(from[id].bias)};
  }
  return to;
}

// The weights of one layer of RandomCheckpoint(config, 3).
inline BlockWeights<float> RandomBlock(const DecoderConfig& config,
                                       int64_t layer, ThreadPool& pool) {
  absl::StatusOr<BlockWeights<float>> weights =
      LoadBlock(RandomCheckpoint(config, /*seed=*/3), layer, pool);
  CHECK_OK(weights.status());
  return *std::move(weights);
}

// [rows, cols] of deviation 1.
template <class T>
Array<T> RandomRows(int64_t rows, int64_t cols, uint64_t seed) {
  const std::vector<float> values =
      RandomValues(seed).Normal(rows * cols, 1.0f);
  Array<T> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    result[i] = static_cast<T>(values[i]);
  }
  return result;
}

// sqrt(sum (got - want)^2 / sum want^2); 0 where both are zero.
template <class A, class B>
double RelativeError(absl::Span<const A> got, absl::Span<const B> want) {
  CHECK_EQ(got.size(), want.size());
  double error = 0, signal = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double w = static_cast<double>(want[i]);
    const double e = static_cast<double>(got[i]) - w;
    error += e * e;
    signal += w * w;
  }
  return error == 0 ? 0.0 : std::sqrt(error / signal);
}

template <class T>
absl::Span<const T> Flat(MatrixView<const T> view) {
  CHECK_EQ(view.stride, view.cols);
  return absl::MakeConstSpan(view.data,
                             static_cast<size_t>(view.rows * view.cols));
}

}  // namespace nibble::testing

#endif  // NIBBLE_QUANTIZATION_BLOCK_BLOCK_TESTING_H_
