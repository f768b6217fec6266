#include "kernels/elementwise/rope.h"

#include <algorithm>
#include <cmath>

#include "absl/log/check.h"
#include "kernels/elementwise/kernel_table.h"
#include "kernels/elementwise/rope_kernels.h"
#include "kernels/elementwise/row_parallel.h"

namespace nibble {
namespace {

constexpr double kPi = 3.14159265358979323846;

// theta^(2j/d), each step rounded to f32.
float InverseFrequency(float theta, int64_t pair, int64_t dims) {
  const float exponent =
      static_cast<float>(2 * pair) / static_cast<float>(dims);
  return static_cast<float>(std::pow(double{theta}, double{exponent}));
}

void ScaleLlama3(const RopeScaling& scaling, int64_t original_positions,
                 absl::Span<float> frequencies) {
  const float original = static_cast<float>(original_positions);
  const float low = scaling.low_freq_factor;
  const float high = scaling.high_freq_factor;
  for (float& f : frequencies) {
    const float wavelength = static_cast<float>(2.0 * kPi) / f;
    if (wavelength < original / high) continue;
    if (wavelength > original / low) {
      f /= scaling.factor;
      continue;
    }
    const float blend = (original / wavelength - low) / (high - low);
    f = (1.0f - blend) * f / scaling.factor + blend * f;
  }
}

// The dimension that turns `turns` times within `positions`.
double DimensionOfTurns(double turns, const RopeConfig& config,
                        int64_t positions) {
  return config.rotary_dims *
         std::log(static_cast<double>(positions) / (turns * 2.0 * kPi)) /
         (2.0 * std::log(config.theta));
}

void ScaleYarn(const RopeConfig& config, int64_t original_positions,
               absl::Span<float> frequencies) {
  const RopeScaling& scaling = config.scaling;
  const int64_t dims = config.rotary_dims;
  double low = std::floor(
      DimensionOfTurns(scaling.beta_fast, config, original_positions));
  double high = std::ceil(
      DimensionOfTurns(scaling.beta_slow, config, original_positions));
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dims - 1));
  if (low == high) high += 0.001;
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const float position = (static_cast<float>(j) - static_cast<float>(low)) /
                           static_cast<float>(high - low);
    const float ramp = std::min(std::max(position, 0.0f), 1.0f);
    const float kept = 1.0f - ramp;
    const float power = InverseFrequency(static_cast<float>(config.theta),
                                         static_cast<int64_t>(j), dims);
    const float stretched = 1.0f / (scaling.factor * power);
    frequencies[j] = stretched * (1.0f - kept) + frequencies[j] * kept;
  }
}

float YarnAttentionFactor(const RopeScaling& scaling) {
  if (scaling.attention_factor != 0.0f) return scaling.attention_factor;
  if (scaling.factor <= 1.0f) return 1.0f;
  return static_cast<float>(0.1 * std::log(double{scaling.factor}) + 1.0);
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& config)
    : config_(config),
      divisors_(config.frequency_divisors.begin(),
                config.frequency_divisors.end()) {
  config_.frequency_divisors = {};
  if (config.style == RopeStyle::kNone) return;
  const int64_t dims = config.rotary_dims;
  const RopeScaling& scaling = config.scaling;
  CHECK(dims >= 2 && dims % 2 == 0) << "rotary_dims " << dims;
  CHECK_GT(config.theta, 0.0);
  CHECK(scaling.type == RopeScaling::kNone || scaling.factor > 0.0f);
  CHECK(divisors_.empty() || static_cast<int64_t>(divisors_.size()) == dims / 2)
      << divisors_.size() << " frequency divisors for " << dims << " dims";

  frequencies_.resize(dims / 2);
  for (int64_t j = 0; j < dims / 2; ++j) {
    frequencies_[j] =
        1.0f / InverseFrequency(static_cast<float>(config.theta), j, dims);
  }
  const int64_t original = scaling.original_max_positions > 0
                               ? scaling.original_max_positions
                               : config.max_positions;
  switch (scaling.type) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      for (float& f : frequencies_) f /= scaling.factor;
      break;
    case RopeScaling::kDynamic:
      CHECK_GT(dims, 2);
      CHECK_GT(config.max_positions, 0);
      break;
    case RopeScaling::kLlama3:
      CHECK_GT(original, 0);
      ScaleLlama3(scaling, original, absl::MakeSpan(frequencies_));
      break;
    case RopeScaling::kYarn:
      CHECK_GT(original, 0);
      ScaleYarn(config, original, absl::MakeSpan(frequencies_));
      attention_factor_ = YarnAttentionFactor(scaling);
      break;
  }
  for (size_t j = 0; j < divisors_.size(); ++j) frequencies_[j] /= divisors_[j];
}

float RopeTable::DynamicTheta(int64_t length) const {
  const double factor = config_.scaling.factor;
  const double dims = static_cast<double>(config_.rotary_dims);
  const double stretch = factor * static_cast<double>(length) /
                             static_cast<double>(config_.max_positions) -
                         (factor - 1.0);
  return static_cast<float>(config_.theta *
                            std::pow(stretch, dims / (dims - 2.0)));
}

void RopeTable::Angles(int64_t position, int64_t current_length,
                       absl::Span<float> cos, absl::Span<float> sin) const {
  DCHECK_EQ(cos.size(), frequencies_.size());
  DCHECK_EQ(sin.size(), frequencies_.size());
  const bool stretched = config_.scaling.type == RopeScaling::kDynamic &&
                         current_length > config_.max_positions;
  const float theta = stretched ? DynamicTheta(current_length) : 0.0f;
  for (size_t j = 0; j < frequencies_.size(); ++j) {
    float frequency = frequencies_[j];
    if (stretched) {
      frequency = 1.0f / InverseFrequency(theta, static_cast<int64_t>(j),
                                          config_.rotary_dims);
      if (!divisors_.empty()) frequency /= divisors_[j];
    }
    const float angle = static_cast<float>(position) * frequency;
    cos[j] = static_cast<float>(std::cos(double{angle})) * attention_factor_;
    sin[j] = static_cast<float>(std::sin(double{angle})) * attention_factor_;
  }
}

void ApplyRope(RopeStyle style, absl::Span<const float> cos,
               absl::Span<const float> sin, float* head) {
  DCHECK_EQ(cos.size(), sin.size());
  const int64_t pairs = static_cast<int64_t>(cos.size());
  const RopeKernels& kernels = SelectKernels(RopeKernelTable());
  if (style == RopeStyle::kHalf) {
    kernels.half(cos.data(), sin.data(), pairs, head);
  } else if (style == RopeStyle::kInterleaved) {
    kernels.interleaved(cos.data(), sin.data(), pairs, head);
  }
}

void ApplyRopeHeads(RopeStyle style, absl::Span<const float> cos,
                    absl::Span<const float> sin, absl::Span<float> heads,
                    int64_t head_dim) {
  if (style == RopeStyle::kNone) return;
  DCHECK_EQ(cos.size(), sin.size());
  const int64_t pairs = static_cast<int64_t>(cos.size());
  const RopeKernels& kernels = SelectKernels(RopeKernelTable());
  const auto rotate =
      style == RopeStyle::kHalf ? kernels.half : kernels.interleaved;
  float* const end = heads.data() + heads.size();
  for (float* head = heads.data(); head != end; head += head_dim) {
    rotate(cos.data(), sin.data(), pairs, head);
  }
}

void ApplyRopeRows(RopeStyle style, MatrixView<const float> cos,
                   MatrixView<const float> sin, MatrixView<float> x,
                   int64_t head_dim, ThreadPool& pool) {
  if (style == RopeStyle::kNone) return;
  CHECK(cos.rows == x.rows && sin.rows == x.rows && cos.cols == sin.cols);
  CHECK(head_dim >= 2 * cos.cols && x.cols % head_dim == 0);
  ForEachRow(x.rows, x.cols, pool, [&](int64_t row) {
    ApplyRopeHeads(style, cos.row_span(row), sin.row_span(row), x.row_span(row),
                   head_dim);
  });
}

}  // namespace nibble
