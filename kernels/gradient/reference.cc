#include "kernels/gradient/reference.h"

#include <algorithm>
#include <cmath>

namespace nibble {
namespace reference {
namespace {

constexpr double kPi = 3.14159265358979323846;

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

struct Moments {
  double mean = 0;
  double inverse = 0;
};

Moments MomentsOf(const NormGradientRow& row) {
  const double n = static_cast<double>(row.n);
  Moments m;
  double square = 0;
  if (row.centred) {
    for (int64_t i = 0; i < row.n; ++i) m.mean += row.x[i] / n;
  }
  for (int64_t i = 0; i < row.n; ++i) {
    square += (row.x[i] - m.mean) * (row.x[i] - m.mean) / n;
  }
  m.inverse = 1.0 / std::sqrt(square + static_cast<double>(row.eps));
  return m;
}

}  // namespace

// Every activation is x gate(x), so that act' = gate + x gate'.
ValueAndSlope ActSlope(Activation activation, double x) {
  double gate = 1;
  double slope = 0;
  switch (activation) {
    case Activation::kSilu:
      gate = Sigmoid(x);
      slope = gate * Sigmoid(-x);
      break;
    case Activation::kGelu:
      gate = 0.5 * std::erfc(-x / std::sqrt(2.0));
      slope = std::exp(-0.5 * x * x) / std::sqrt(2.0 * kPi);
      break;
    case Activation::kGeluTanh: {
      const double c = std::sqrt(8.0 / kPi);
      const double u = c * (x + 0.044715 * x * x * x);
      gate = Sigmoid(u);
      slope = gate * Sigmoid(-u) * c * (1.0 + 3 * 0.044715 * x * x);
      break;
    }
    case Activation::kQuickGelu:
      gate = Sigmoid(1.702 * x);
      slope = 1.702 * gate * Sigmoid(-1.702 * x);
      break;
  }
  return {x * gate, gate + x * slope};
}

void NormGradient(const NormGradientRow& row, const float* base, float* dx) {
  const Moments m = MomentsOf(row);
  const double n = static_cast<double>(row.n);
  double mean = 0, along = 0;
  for (int64_t i = 0; i < row.n; ++i) {
    const double g = static_cast<double>(row.dy[i]) * row.weight[i];
    if (row.centred) mean += g / n;
    along += g * (row.x[i] - m.mean) * m.inverse / n;
  }
  for (int64_t i = 0; i < row.n; ++i) {
    const double g = static_cast<double>(row.dy[i]) * row.weight[i];
    const double u = (row.x[i] - m.mean) * m.inverse;
    dx[i] = static_cast<float>(base[i] + m.inverse * (g - mean - u * along));
  }
}

void NormWeightGradient(const NormGradientRow& row, float* weight) {
  const Moments m = MomentsOf(row);
  for (int64_t i = 0; i < row.n; ++i) {
    weight[i] = static_cast<float>(weight[i] +
                                   row.dy[i] * (row.x[i] - m.mean) * m.inverse);
  }
}

void AttentionWeights(float scale, float slope, int64_t n, float* scores) {
  const auto score = [&](int64_t j) {
    return static_cast<double>(scale) * scores[j] +
           static_cast<double>(slope) * static_cast<double>(j);
  };
  double top = score(0);
  for (int64_t j = 1; j < n; ++j) top = std::max(top, score(j));
  double sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += std::exp(score(j) - top);
  for (int64_t j = 0; j < n; ++j) {
    scores[j] = static_cast<float>(std::exp(score(j) - top) / sum);
  }
}

void ScoreGradient(const float* weights, float scale, int64_t n,
                   float* d_weights) {
  double mean = 0;
  for (int64_t j = 0; j < n; ++j) {
    mean += static_cast<double>(weights[j]) * d_weights[j];
  }
  for (int64_t j = 0; j < n; ++j) {
    d_weights[j] = static_cast<float>(static_cast<double>(scale) * weights[j] *
                                      (d_weights[j] - mean));
  }
}

}  // namespace reference
}  // namespace nibble
