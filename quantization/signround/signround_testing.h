// What the tests of SignRound share.
#ifndef NIBBLE_QUANTIZATION_SIGNROUND_SIGNROUND_TESTING_H_
#define NIBBLE_QUANTIZATION_SIGNROUND_SIGNROUND_TESTING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "gtest/gtest.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/signround/signround.h"
#include "quantization/tuning/training_testing.h"
#include "testing/random_checkpoint.h"

namespace nibble::testing {

inline SignRoundOptions Quick(int64_t iterations) {
  SignRoundOptions options;
  options.iterations = iterations;
  options.batch = 4;
  options.precision = GemmPrecision::kF32;
  return options;
}

inline void ExpectSame(const QuantizedMatrix& got,
                       const QuantizedMatrix& want) {
  const auto same = [](const auto& a, const auto& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
  };
  EXPECT_TRUE(same(got.codes, want.codes));
  EXPECT_TRUE(same(got.scales, want.scales));
  EXPECT_TRUE(same(got.offsets, want.offsets));
}

// The block with the matrices of a result.
inline BlockWeights<float> Dequantized(const BlockWeights<float>& weights,
                                       const SignRoundResult& result,
                                       ThreadPool& pool) {
  BlockWeights<float> rounded = Converted<float>(weights);
  for (size_t i = 0; i < kLinearCount; ++i) {
    if (result.matrices[i].outputs == 0) continue;
    Dequantize(result.matrices[i], rounded.linears[i].view(), pool);
  }
  return rounded;
}

// A small block, and windows to train it on.
class SignRoundTest : public ::testing::Test {
 protected:
  SignRoundTest() : tiny_(TinyDecoderConfig(), pool_) {}

  ThreadPool pool_{2};
  TinyTraining tiny_;
};

}  // namespace nibble::testing

#endif  // NIBBLE_QUANTIZATION_SIGNROUND_SIGNROUND_TESTING_H_
