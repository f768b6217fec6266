#include "kernels/elementwise/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nibble {
namespace reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

}  // namespace

void RmsNorm(const float* x, const float* weight, int64_t n, float eps,
             float* out) {
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
  const double inverse = 1.0 / std::sqrt(squares / n + eps);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>(x[i] * inverse * weight[i]);
  }
}

void LayerNorm(const float* x, const float* weight, const float* bias,
               int64_t n, float eps, float* out) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  const double mean = sum / n;
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const double inverse = 1.0 / std::sqrt(squares / n + eps);
  for (int64_t i = 0; i < n; ++i) {
    const double shift = bias == nullptr ? 0.0 : bias[i];
    out[i] = static_cast<float>((x[i] - mean) * inverse * weight[i] + shift);
  }
}

void RopeHalf(const float* cos, const float* sin, int64_t pairs, float* head) {
  for (int64_t j = 0; j < pairs; ++j) {
    const double a = head[j], b = head[j + pairs];
    head[j] = static_cast<float>(a * cos[j] - b * sin[j]);
    head[j + pairs] = static_cast<float>(a * sin[j] + b * cos[j]);
  }
}

void RopeInterleaved(const float* cos, const float* sin, int64_t pairs,
                     float* head) {
  for (int64_t j = 0; j < pairs; ++j) {
    const double a = head[2 * j], b = head[2 * j + 1];
    head[2 * j] = static_cast<float>(a * cos[j] - b * sin[j]);
    head[2 * j + 1] = static_cast<float>(a * sin[j] + b * cos[j]);
  }
}

double Act(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x * Sigmoid(x);
    case Activation::kGelu:
      // erfc keeps its relative precision where 1 + erf cancels.
      return x * 0.5 * std::erfc(-x * std::sqrt(0.5));
    case Activation::kGeluTanh:
      // (1 + tanh u) / 2 = sigmoid(2 u); sqrt(8 / pi) = 1.5957...
      return x * Sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
    case Activation::kQuickGelu:
      return x * Sigmoid(1.702 * x);
  }
  return x;
}

void Softmax(float* x, int64_t n) {
  double max = -kInfinity;
  for (int64_t i = 0; i < n; ++i) max = std::max(max, double{x[i]});
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - max);
  for (int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(std::exp(x[i] - max) / sum);
  }
}

double LogSumExp(const float* x, int64_t n) {
  double max = -kInfinity;
  for (int64_t i = 0; i < n; ++i) {
    if (std::isnan(x[i])) return x[i];
    max = std::max(max, double{x[i]});
  }
  if (std::isinf(max)) return max;
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - max);
  return max + std::log(sum);
}

float Max(const float* x, int64_t n) {
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] > max) max = x[i];
  }
  return max;
}

int64_t FindEqual(const float* x, int64_t begin, int64_t n, float value) {
  for (int64_t i = begin; i < n; ++i) {
    if (x[i] == value) return i;
  }
  return n;
}

int64_t FindAbove(const float* x, int64_t begin, int64_t n, float value) {
  for (int64_t i = begin; i < n; ++i) {
    if (x[i] > value) return i;
  }
  return n;
}

void Add(const float* y, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

void Multiply(const float* y, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) x[i] *= y[i];
}

void Scale(float factor, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

void AddScaled(float factor, const float* y, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) x[i] = std::fma(factor, y[i], x[i]);
}

}  // namespace reference
}  // namespace nibble
