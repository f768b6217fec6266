// The formulas as plain loops on the calling thread, in double.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "quantization/block/block_steps.h"
#include "quantization/block/grow_matrix.h"
#include "tensor/buffer.h"

namespace nibble {
namespace {

constexpr double kPi = 3.14159265358979323846;

struct ValueAndSlope {
  double value;
  double slope;
};

// x gate(x), where gate' is `slope`.
ValueAndSlope Gated(double x, double gate, double slope) {
  return {x * gate, gate + x * slope};
}

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// An activation and its derivative.
ValueAndSlope Act(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu: {
      const double s = Sigmoid(x);
      return Gated(x, s, s * (1.0 - s));
    }
    case Activation::kGelu:
      return Gated(x, 0.5 * (1.0 + std::erf(x / std::sqrt(2.0))),
                   std::exp(-0.5 * x * x) / std::sqrt(2.0 * kPi));
    case Activation::kGeluTanh: {
      const double c = std::sqrt(8.0 / kPi);
      const double s = Sigmoid(c * (x + 0.044715 * x * x * x));
      return Gated(x, s, s * (1.0 - s) * c * (1.0 + 3 * 0.044715 * x * x));
    }
    case Activation::kQuickGelu: {
      const double s = Sigmoid(1.702 * x);
      return Gated(x, s, 1.702 * s * (1.0 - s));
    }
  }
  return {x, 1.0};
}

class PlainSteps : public BlockSteps<double> {
 public:
  explicit PlainSteps(const BlockShape& shape)
      : shape_(shape), c_(shape.config) {}

  void SetLinear(LinearId id, In weight, bool, ThreadPool&) override {
    BlockLinear<double>& linear = linears_[static_cast<size_t>(id)];
    linear.outputs = weight.rows;
    linear.inputs = weight.cols;
    linear.weight =
        Array<double>(static_cast<size_t>(weight.rows * weight.cols));
    for (int64_t row = 0; row < weight.rows; ++row) {
      std::copy_n(weight.row(row), weight.cols, linear.view().row(row));
    }
  }

  void Product(LinearId id, In x, Vector bias, bool accumulate, Out y,
               ThreadPool&) override {
    const In w = weight(id);
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t n = 0; n < w.rows; ++n) {
        double sum = bias.empty() ? 0.0 : bias[static_cast<size_t>(n)];
        for (int64_t k = 0; k < w.cols; ++k) sum += x.row(t)[k] * w.row(n)[k];
        y.row(t)[n] = sum + (accumulate ? y.row(t)[n] : 0.0);
      }
    }
  }

  void Inner(In x, Vector bias, Out up, Out inner, ThreadPool& pool) override {
    GrowMatrix<double> own;
    if (up.data == nullptr) up = own.Resize(x.rows, weight(LinearId::kUp).rows);
    Product(LinearId::kUp, x, bias, false, up, pool);
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t i = 0; i < c_.ffn; ++i) {
        const double* row = up.row(t);
        inner.row(t)[i] = Act(c_.activation, row[i]).value *
                          (c_.gated ? row[c_.ffn + i] : 1.0);
      }
    }
  }

  void InnerGradient(In up, In d_inner, Out d_up, ThreadPool&) override {
    for (int64_t t = 0; t < up.rows; ++t) {
      for (int64_t i = 0; i < c_.ffn; ++i) {
        const double d = d_inner.row(t)[i];
        const ValueAndSlope act = Act(c_.activation, up.row(t)[i]);
        d_up.row(t)[i] = d * act.slope;
        if (!c_.gated) continue;
        d_up.row(t)[i] *= up.row(t)[c_.ffn + i];
        d_up.row(t)[c_.ffn + i] = d * act.value;
      }
    }
  }

  void InputGradient(LinearId id, In dy, bool accumulate, Out dx,
                     ThreadPool&) override {
    const In w = weight(id);
    for (int64_t t = 0; t < dy.rows; ++t) {
      if (!accumulate) std::fill_n(dx.row(t), dx.cols, 0.0);
      for (int64_t n = 0; n < w.rows; ++n) {
        for (int64_t k = 0; k < w.cols; ++k) {
          dx.row(t)[k] += dy.row(t)[n] * w.row(n)[k];
        }
      }
    }
  }

  void WeightGradient(In dy, In x, bool accumulate, Out dw,
                      ThreadPool&) override {
    for (int64_t n = 0; n < dw.rows; ++n) {
      if (!accumulate) std::fill_n(dw.row(n), dw.cols, 0.0);
      for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t k = 0; k < dw.cols; ++k) {
          dw.row(n)[k] += dy.row(t)[n] * x.row(t)[k];
        }
      }
    }
  }

  void BiasGradient(In dy, absl::Span<double> db, ThreadPool&) override {
    for (int64_t t = 0; t < dy.rows; ++t) {
      for (size_t n = 0; n < db.size(); ++n) db[n] += dy.row(t)[n];
    }
  }

  void Norm(const BlockNorm<double>& norm, In x, Out y, ThreadPool&) override {
    for (int64_t t = 0; t < x.rows; ++t) {
      const Moments m = MomentsOf(x.row(t));
      for (int64_t i = 0; i < x.cols; ++i) {
        const size_t at = static_cast<size_t>(i);
        y.row(t)[i] = (x.row(t)[i] - m.mean) * m.inverse * norm.weight[at] +
                      (norm.bias.empty() ? 0.0 : norm.bias[at]);
      }
    }
  }

  // With u = (x - mean) r and g = dy weight: dx = r (g - mean(g) - u mean(g
  // u)), where RMSNorm has no means of x and of g.
  void NormInputGradient(const BlockNorm<double>& norm, In x, In dy, In base,
                         Out dx, ThreadPool&) override {
    const double n = static_cast<double>(x.cols);
    for (int64_t t = 0; t < x.rows; ++t) {
      const Moments m = MomentsOf(x.row(t));
      double mean = 0, along = 0;
      for (int64_t i = 0; i < x.cols; ++i) {
        const double g = dy.row(t)[i] * norm.weight[static_cast<size_t>(i)];
        if (c_.norm == NormKind::kLayer) mean += g / n;
        along += g * (x.row(t)[i] - m.mean) * m.inverse / n;
      }
      for (int64_t i = 0; i < x.cols; ++i) {
        const double g = dy.row(t)[i] * norm.weight[static_cast<size_t>(i)];
        const double u = (x.row(t)[i] - m.mean) * m.inverse;
        dx.row(t)[i] = base.row(t)[i] + m.inverse * (g - mean - u * along);
      }
    }
  }

  void NormWeightGradient(In x, In dy, absl::Span<double> weight,
                          absl::Span<double> bias, ThreadPool&) override {
    for (int64_t t = 0; t < x.rows; ++t) {
      const Moments m = MomentsOf(x.row(t));
      for (size_t i = 0; i < weight.size(); ++i) {
        weight[i] += dy.row(t)[i] * (x.row(t)[i] - m.mean) * m.inverse;
        if (!bias.empty()) bias[i] += dy.row(t)[i];
      }
    }
  }

  void Attend(Out qkv, Out attended, ThreadPool&) override {
    for (int64_t t = 0; t < qkv.rows; ++t) Rotate(t, 1.0, qkv.row(t));
    for (int64_t t = 0; t < qkv.rows; ++t) {
      for (int64_t head = 0; head < c_.heads; ++head) {
        const std::vector<double> p = Weights(qkv, t, head);
        double* out = attended.row(t) + head * c_.head_dim;
        std::fill_n(out, c_.head_dim, 0.0);
        for (size_t j = 0; j < p.size(); ++j) {
          const double* v =
              Value(qkv.row(FirstKey(t) + static_cast<int64_t>(j)), head);
          for (int64_t d = 0; d < c_.head_dim; ++d) out[d] += p[j] * v[d];
        }
      }
    }
  }

  // ds = p (dp - sum p dp).
  void AttendGradient(In qkv, In d_attended, Out d_qkv, ThreadPool&) override {
    for (int64_t t = 0; t < qkv.rows; ++t) {
      std::fill_n(d_qkv.row(t), d_qkv.cols, 0.0);
    }
    for (int64_t t = 0; t < qkv.rows; ++t) {
      for (int64_t head = 0; head < c_.heads; ++head) {
        HeadGradient(t, head, qkv, d_attended, d_qkv);
      }
    }
    for (int64_t t = 0; t < qkv.rows; ++t) Rotate(t, -1.0, d_qkv.row(t));
  }

  void Copy(In base, Out sum, ThreadPool&) override {
    for (int64_t t = 0; t < base.rows; ++t) {
      std::copy_n(base.row(t), base.cols, sum.row(t));
    }
  }

 private:
  struct Moments {
    double mean = 0;     // 0 for RMSNorm
    double inverse = 0;  // 1 / sqrt(variance + eps)
  };

  In weight(LinearId id) const {
    return linears_[static_cast<size_t>(id)].view();
  }

  Moments MomentsOf(const double* x) const {
    const double n = static_cast<double>(c_.hidden);
    Moments m;
    if (c_.norm == NormKind::kLayer) {
      for (int64_t i = 0; i < c_.hidden; ++i) m.mean += x[i] / n;
    }
    double square = 0;
    for (int64_t i = 0; i < c_.hidden; ++i) {
      square += (x[i] - m.mean) * (x[i] - m.mean) / n;
    }
    m.inverse = 1.0 / std::sqrt(square + static_cast<double>(c_.norm_eps));
    return m;
  }

  // All heads of q and k of a row; `direction` of -1 is the transpose.
  void Rotate(int64_t t, double direction, double* row) const {
    const size_t first = static_cast<size_t>(t % shape_.length * shape_.pairs);
    for (int64_t head = 0; head < c_.heads + c_.kv_heads; ++head) {
      double* h = row + head * c_.head_dim;
      for (int64_t j = 0; j < shape_.pairs; ++j) {
        const bool half = c_.rope.style == RopeStyle::kHalf;
        double& a = half ? h[j] : h[2 * j];
        double& b = half ? h[j + shape_.pairs] : h[2 * j + 1];
        const double cos = shape_.cosines[first + static_cast<size_t>(j)];
        const double sin =
            direction * shape_.sines[first + static_cast<size_t>(j)];
        const double old_a = a;
        a = old_a * cos - b * sin;
        b = old_a * sin + b * cos;
      }
    }
  }

  // Rows [FirstKey(t), t] are what row t sees.
  int64_t FirstKey(int64_t t) const {
    const int64_t start = t - t % shape_.length;
    return shape_.window == 0 ? start : std::max(start, t - shape_.window + 1);
  }
  template <class P>
  P* Key(P* row, int64_t head) const {
    return row + c_.q_dim() + head / (c_.heads / c_.kv_heads) * c_.head_dim;
  }
  template <class P>
  P* Value(P* row, int64_t head) const {
    return Key(row, head) + c_.kv_dim();
  }

  // The softmax of the scores of row t's visible keys.
  std::vector<double> Weights(In qkv, int64_t t, int64_t head) const {
    const double* q = qkv.row(t) + head * c_.head_dim;
    const double slope =
        shape_.alibi_slopes.empty()
            ? 0.0
            : static_cast<double>(
                  shape_.alibi_slopes[static_cast<size_t>(head)]);
    std::vector<double> weights;
    for (int64_t key = FirstKey(t); key <= t; ++key) {
      double dot = 0;
      for (int64_t d = 0; d < c_.head_dim; ++d) {
        dot += q[d] * Key(qkv.row(key), head)[d];
      }
      weights.push_back(shape_.score_scale * dot +
                        slope * static_cast<double>(key - t));
    }
    const double top = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& w : weights) sum += (w = std::exp(w - top));
    for (double& w : weights) w /= sum;
    return weights;
  }

  // Adds what one query of one head contributes.
  void HeadGradient(int64_t t, int64_t head, In qkv, In d_attended,
                    Out d_qkv) const {
    const int64_t hd = c_.head_dim;
    const std::vector<double> p = Weights(qkv, t, head);
    const double* d_out = d_attended.row(t) + head * hd;
    std::vector<double> dp(p.size());
    double mean = 0;
    for (size_t j = 0; j < p.size(); ++j) {
      const int64_t key = FirstKey(t) + static_cast<int64_t>(j);
      for (int64_t d = 0; d < hd; ++d) {
        dp[j] += d_out[d] * Value(qkv.row(key), head)[d];
        Value(d_qkv.row(key), head)[d] += p[j] * d_out[d];
      }
      mean += p[j] * dp[j];
    }
    for (size_t j = 0; j < p.size(); ++j) {
      const int64_t key = FirstKey(t) + static_cast<int64_t>(j);
      const double ds = p[j] * (dp[j] - mean) * shape_.score_scale;
      for (int64_t d = 0; d < hd; ++d) {
        d_qkv.row(t)[head * hd + d] += ds * Key(qkv.row(key), head)[d];
        Key(d_qkv.row(key), head)[d] += ds * qkv.row(t)[head * hd + d];
      }
    }
  }

  const BlockShape& shape_;
  const DecoderConfig& c_;
  std::array<BlockLinear<double>, kLinearCount> linears_;
};

}  // namespace

std::unique_ptr<BlockSteps<double>> MakePlainSteps(const BlockShape& shape) {
  return std::make_unique<PlainSteps>(shape);
}

}  // namespace nibble
