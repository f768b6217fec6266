// What the tests of GPTQ share: inputs with a given correlation, and losses in
// doubles.
#ifndef NIBBLE_QUANTIZATION_GPTQ_GPTQ_TESTING_H_
#define NIBBLE_QUANTIZATION_GPTQ_GPTQ_TESTING_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gptq.h"
#include "quantization/gptq/gram.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"

namespace nibble {

struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;  // [rows, cols]

  MatrixView<const float> view() const { return {values.data(), rows, cols}; }
  float& at(int64_t i, int64_t j) { return values[i * cols + j]; }
  float at(int64_t i, int64_t j) const { return values[i * cols + j]; }
};

inline Matrix NormalMatrix(int64_t rows, int64_t cols, float deviation,
                           uint64_t seed) {
  return {rows, cols,
          testing::RandomValues(seed).Normal(rows * cols, deviation)};
}

// Tokens whose inputs share a few directions, and whose channels differ in
// size: as in a transformer.
inline Matrix CorrelatedInputs(int64_t tokens, int64_t inputs, uint64_t seed) {
  testing::RandomValues random(seed);
  const int64_t directions = std::max<int64_t>(1, inputs / 8);
  const std::vector<float> basis = random.Normal(directions * inputs, 1.0f);
  const std::vector<float> sizes = random.Normal(inputs, 0.8f);
  Matrix x = {tokens, inputs, random.Normal(tokens * inputs, 0.3f)};
  const std::vector<float> parts = random.Normal(tokens * directions, 1.0f);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < inputs; ++j) {
      for (int64_t d = 0; d < directions; ++d) {
        x.at(t, j) += parts[t * directions + d] * basis[d * inputs + j];
      }
      x.at(t, j) *= std::exp(sizes[j]);
    }
  }
  return x;
}

inline Gram GramOf(const Matrix& x, ThreadPool& pool) {
  Gram gram(x.cols);
  if (x.rows > 0) gram.Add(x.view(), pool);
  gram.Finish(pool);
  return gram;
}

inline std::vector<float> Dequantized(const QuantizedMatrix& matrix) {
  std::vector<float> values(
      static_cast<size_t>(matrix.outputs * matrix.inputs));
  ThreadPool pool(1);
  Dequantize(matrix, {values.data(), matrix.outputs, matrix.inputs}, pool);
  return values;
}

// Mean over tokens, summed over outputs, of the squared error of w x.
inline double OutputError(const Matrix& w, const std::vector<float>& became,
                          const Matrix& x) {
  double sum = 0;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t i = 0; i < w.rows; ++i) {
      double off = 0;
      for (int64_t j = 0; j < w.cols; ++j) {
        off += (static_cast<double>(w.at(i, j)) - became[i * w.cols + j]) *
               x.at(t, j);
      }
      sum += off * off;
    }
  }
  return sum / static_cast<double>(x.rows);
}

inline void ExpectSameBits(const QuantizedMatrix& a, const QuantizedMatrix& b) {
  EXPECT_TRUE(std::equal(a.codes.begin(), a.codes.end(), b.codes.begin(),
                         b.codes.end()));
  EXPECT_TRUE(std::equal(a.scales.begin(), a.scales.end(), b.scales.begin(),
                         b.scales.end()));
  EXPECT_TRUE(std::equal(a.offsets.begin(), a.offsets.end(), b.offsets.begin(),
                         b.offsets.end()));
  EXPECT_EQ(a.input_order, b.input_order);
}

inline const std::vector<GridSpec>& SomeSpecs() {
  static const auto* specs = new std::vector<GridSpec>{
      {4, 32, CodeOffset::kZeros},     {4, 64, CodeOffset::kSymmetric},
      {4, 32, CodeOffset::kMinimums},  {8, 32, CodeOffset::kSymmetric},
      {3, 32, CodeOffset::kSymmetric}, {2, 64, CodeOffset::kZeros}};
  return *specs;
}

inline GptqResult Quantize(const Matrix& w, const Gram& gram,
                           const GptqOptions& options, int threads = 2) {
  ThreadPool pool(threads);
  absl::StatusOr<GptqResult> result =
      QuantizeGptq(w.view(), gram, options, pool);
  EXPECT_THAT(result, testing::IsOk());
  return *std::move(result);
}

inline GptqOptions OptionsOf(const GridSpec& spec) {
  GptqOptions options;
  options.spec = spec;
  return options;
}

inline QuantizedMatrix NearestOf(const Matrix& w, const GridSpec& spec) {
  RoundOptions options;
  options.spec = spec;
  ThreadPool pool(1);
  return RoundMatrix(w.view(), options, pool);
}

inline std::vector<double> Damped(const Gram& gram, double damping) {
  const int64_t n = gram.inputs();
  std::vector<double> h(gram.mean().data, gram.mean().data + n * n);
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += h[i * n + i] / n;
  for (int64_t i = 0; i < n; ++i) h[i * n + i] += damping * mean;
  return h;
}

template <class T>
double Trace(const Matrix& w, const std::vector<T>& became,
             const std::vector<double>& h) {
  double trace = 0;
  const int64_t n = w.cols;
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      double row = 0;
      for (int64_t j = 0; j < n; ++j) {
        row += h[i * n + j] * (double{w.at(r, j)} - became[r * n + j]);
      }
      trace += row * (double{w.at(r, i)} - became[r * n + i]);
    }
  }
  return trace;
}

// How far Trace may be off where it is computed in f32, as GptqResult's losses
// are: each term passes a rounding of either distance, of the product and of
// every sum of a row's n.
inline double F32TraceError(const Matrix& w, const std::vector<float>& became,
                            std::vector<double> h) {
  Matrix distances = w;
  for (size_t i = 0; i < became.size(); ++i) {
    distances.values[i] = std::abs(w.values[i] - became[i]);
  }
  for (double& value : h) value = std::abs(value);
  const std::vector<float> zeros(became.size(), 0.0f);
  return static_cast<double>(w.cols + 3) * 0x1p-24 * Trace(distances, zeros, h);
}

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_GPTQ_TESTING_H_
