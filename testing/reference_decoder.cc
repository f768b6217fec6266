#include "testing/reference_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/buffer.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble::testing {
namespace {

using Vector = std::vector<double>;
using Rows = std::vector<Vector>;

constexpr double kPi = 3.14159265358979323846;

double Apply(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1.0 +
              std::tanh(std::sqrt(2.0 / kPi) * (x + 0.044715 * x * x * x)));
    case Activation::kQuickGelu:
      return x / (1.0 + std::exp(-1.702 * x));
  }
  return x;
}

// Where yarn's ramp has the dimension that turns `turns` times in `positions`.
double YarnDimension(const RopeConfig& rope, double turns, double positions) {
  return static_cast<double>(rope.rotary_dims) *
         std::log(positions / (2.0 * kPi * turns)) /
         (2.0 * std::log(rope.theta));
}

// Radians per position of each pair, for a sequence of `length` tokens.
Vector Frequencies(const DecoderConfig& config, int64_t length) {
  const RopeConfig& rope = config.rope;
  const RopeScaling& scaling = rope.scaling;
  const double d = static_cast<double>(rope.rotary_dims);
  const double trained = static_cast<double>(rope.max_positions);
  const double factor = scaling.factor;
  double theta = rope.theta;
  if (scaling.type == RopeScaling::kDynamic) {
    const double longest = std::max(static_cast<double>(length), trained);
    theta *=
        std::pow(factor * longest / trained - (factor - 1.0), d / (d - 2.0));
  }
  const double original =
      scaling.original_max_positions > 0
          ? static_cast<double>(scaling.original_max_positions)
          : trained;
  Vector result;
  for (int64_t j = 0; j < rope.rotary_dims / 2; ++j) {
    double f = std::pow(theta, -2.0 * static_cast<double>(j) / d);
    if (scaling.type == RopeScaling::kLinear) f /= factor;
    if (scaling.type == RopeScaling::kLlama3) {
      const double turns = original * f / (2.0 * kPi);
      if (turns < scaling.low_freq_factor) {
        f /= factor;
      } else if (turns <= scaling.high_freq_factor) {
        const double t = (turns - scaling.low_freq_factor) /
                         (scaling.high_freq_factor - scaling.low_freq_factor);
        f = (1.0 - t) * f / factor + t * f;
      }
    }
    if (scaling.type == RopeScaling::kYarn) {
      const double low = std::max(
          0.0, std::floor(YarnDimension(rope, scaling.beta_fast, original)));
      double high = std::min(
          d - 1.0, std::ceil(YarnDimension(rope, scaling.beta_slow, original)));
      if (high == low) high += 0.001;
      const double ramp = std::min(
          1.0, std::max(0.0, (static_cast<double>(j) - low) / (high - low)));
      f = ramp * f / factor + (1.0 - ramp) * f;
    }
    if (!config.rope_divisors.empty()) {
      f /= config.rope_divisors[static_cast<size_t>(j)];
    }
    result.push_back(f);
  }
  return result;
}

double RopeMagnitude(const RopeScaling& scaling) {
  if (scaling.type != RopeScaling::kYarn) return 1.0;
  if (scaling.attention_factor > 0.0f) return scaling.attention_factor;
  return 0.1 * std::log(static_cast<double>(scaling.factor)) + 1.0;
}

class Model {
 public:
  explicit Model(const Checkpoint& checkpoint)
      : c_(checkpoint.config), tensors_(*checkpoint.tensors) {}

  // All of a tensor, row-major.
  Vector Values(const std::string& name) const {
    const absl::StatusOr<TensorView> view = tensors_.Find(name);
    CHECK(view.ok()) << view.status();
    Array<float> values(static_cast<size_t>(view->shape.elements()));
    CHECK(ConvertToF32(*view, values.span()).ok());
    return Vector(values.begin(), values.end());
  }

  Vector RangeValues(absl::Span<const RowRange> ranges, int64_t cols) const {
    Vector result;
    for (const RowRange& range : ranges) {
      const Vector all = Values(range.tensor);
      result.insert(result.end(), all.begin() + range.first_row * cols,
                    all.begin() + (range.first_row + range.rows) * cols);
    }
    return result;
  }

  Rows Linear(const LinearTensors& linear, const Rows& x) const {
    const size_t inputs = x[0].size();
    const Vector w = RangeValues(linear.weight, static_cast<int64_t>(inputs));
    const Vector bias = RangeValues(linear.bias, 1);
    const size_t outputs = w.size() / inputs;
    Rows y(x.size(), Vector(outputs));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t n = 0; n < outputs; ++n) {
        double sum = bias.empty() ? 0.0 : bias[n];
        for (size_t k = 0; k < inputs; ++k) sum += w[n * inputs + k] * x[t][k];
        y[t][n] = sum;
      }
    }
    return y;
  }

  Rows Norm(const NormTensors& norm, const Rows& x) const {
    const Vector weight = Values(norm.weight);
    const Vector bias = norm.bias.empty() ? Vector() : Values(norm.bias);
    Rows y = x;
    for (Vector& row : y) {
      const double n = static_cast<double>(row.size());
      double mean = 0.0;
      if (c_.norm == NormKind::kLayer) {
        for (const double v : row) mean += v / n;
      }
      double square = 0.0;
      for (const double v : row) square += (v - mean) * (v - mean) / n;
      const double scale = 1.0 / std::sqrt(square + c_.norm_eps);
      for (size_t i = 0; i < row.size(); ++i) {
        row[i] = (row[i] - mean) * scale * weight[i];
        if (!bias.empty()) row[i] += bias[i];
      }
    }
    return y;
  }

  void Rotate(const Vector& frequencies, double position, double* head) const {
    if (c_.rope.style == RopeStyle::kNone) return;
    const bool half = c_.rope.style == RopeStyle::kHalf;
    const double magnitude = RopeMagnitude(c_.rope.scaling);
    for (size_t j = 0; j < frequencies.size(); ++j) {
      double& a = half ? head[j] : head[2 * j];
      double& b = half ? head[j + frequencies.size()] : head[2 * j + 1];
      const double cos = magnitude * std::cos(position * frequencies[j]);
      const double sin = magnitude * std::sin(position * frequencies[j]);
      const double old_a = a;
      a = old_a * cos - b * sin;
      b = old_a * sin + b * cos;
    }
  }

  // The slope of a head by the paper's rule (arXiv 2108.12409, footnote on
  // heads that are no power of two).
  double Slope(int64_t head) const {
    if (!c_.alibi) return 0.0;
    int64_t power = 1;
    while (power * 2 <= c_.heads) power *= 2;
    const double exponent =
        head < power
            ? 8.0 * static_cast<double>(head + 1) / static_cast<double>(power)
            : 4.0 * static_cast<double>(2 * (head - power) + 1) /
                  static_cast<double>(power);
    return std::pow(2.0, -exponent) * c_.alibi_scale;
  }

  // One head of one query over the keys it sees.
  void Attend(int64_t layer, int64_t head, size_t t, const Rows& qkv,
              Vector& out) const {
    const int64_t hd = c_.head_dim;
    const int64_t kv_head = head / (c_.heads / c_.kv_heads);
    const double* q = &qkv[t][static_cast<size_t>(head * hd)];
    const int64_t window = c_.windows[static_cast<size_t>(layer)];
    const int64_t i = static_cast<int64_t>(t);
    const int64_t first =
        window == 0 ? 0 : std::max<int64_t>(0, i - window + 1);
    Vector scores;
    double top = -HUGE_VAL;
    for (int64_t j = first; j <= i; ++j) {
      const double* k = &qkv[static_cast<size_t>(j)]
                            [static_cast<size_t>(c_.q_dim() + kv_head * hd)];
      double dot = 0.0;
      for (int64_t d = 0; d < hd; ++d) dot += q[d] * k[d];
      scores.push_back(dot / std::sqrt(static_cast<double>(hd)) +
                       Slope(head) * static_cast<double>(j));
      top = std::max(top, scores.back());
    }
    double sum = 0.0;
    for (double& score : scores) sum += (score = std::exp(score - top));
    for (int64_t j = first; j <= i; ++j) {
      const double* v =
          &qkv[static_cast<size_t>(j)]
              [static_cast<size_t>(c_.q_dim() + c_.kv_dim() + kv_head * hd)];
      const double p = scores[static_cast<size_t>(j - first)] / sum;
      for (int64_t d = 0; d < hd; ++d) {
        out[static_cast<size_t>(head * hd + d)] += p * v[d];
      }
    }
  }

  Rows Attention(int64_t layer, const LayerTensors& names,
                 const Rows& normed) const {
    Rows qkv = Linear(names.qkv, normed);
    const Vector frequencies =
        Frequencies(c_, static_cast<int64_t>(normed.size()));
    for (size_t t = 0; t < qkv.size(); ++t) {
      for (int64_t head = 0; head < c_.heads + c_.kv_heads; ++head) {
        Rotate(frequencies, static_cast<double>(t),
               &qkv[t][static_cast<size_t>(head * c_.head_dim)]);
      }
    }
    Rows out(qkv.size(), Vector(static_cast<size_t>(c_.q_dim())));
    for (size_t t = 0; t < qkv.size(); ++t) {
      for (int64_t head = 0; head < c_.heads; ++head) {
        Attend(layer, head, t, qkv, out[t]);
      }
    }
    return Linear(names.attention, out);
  }

  Rows Mlp(const LayerTensors& names, const Rows& normed) const {
    Rows up = Linear(names.up, normed);
    const size_t ffn = static_cast<size_t>(c_.ffn);
    for (Vector& row : up) {
      for (size_t i = 0; i < ffn; ++i) {
        row[i] = Apply(c_.activation, row[i]);
        if (c_.gated) row[i] *= row[i + ffn];
      }
      row.resize(ffn);
    }
    return Linear(names.down, up);
  }

  void Layer(int64_t layer, const LayerTensors& names, Rows& x) const {
    const auto add = [&x](const Rows& y) {
      for (size_t t = 0; t < x.size(); ++t) {
        for (size_t i = 0; i < x[t].size(); ++i) x[t][i] += y[t][i];
      }
    };
    const Rows normed = Norm(names.attention_norm, x);
    if (c_.residual == Residual::kSequential) {
      add(Attention(layer, names, normed));
      add(Mlp(names, Norm(names.mlp_norm, x)));
      return;
    }
    const Rows mlp_normed = c_.norm_layout == NormLayout::kShared
                                ? normed
                                : Norm(names.mlp_norm, x);
    add(Attention(layer, names, normed));
    add(Mlp(names, mlp_normed));
  }

 private:
  const DecoderConfig& c_;
  const TensorSource& tensors_;
};

}  // namespace

std::vector<std::vector<double>> ReferenceLogits(
    const Checkpoint& checkpoint, absl::Span<const int32_t> tokens) {
  const Model model(checkpoint);
  const DecoderTensors& names = checkpoint.names;
  const Vector embedding = model.Values(names.embedding);
  Rows x;
  for (const int32_t token : tokens) {
    const auto row = embedding.begin() + token * checkpoint.config.hidden;
    x.emplace_back(row, row + checkpoint.config.hidden);
  }
  for (size_t layer = 0; layer < names.layers.size(); ++layer) {
    model.Layer(static_cast<int64_t>(layer), names.layers[layer], x);
  }
  return model.Linear(names.head, model.Norm(names.final_norm, x));
}

}  // namespace nibble::testing
