#include "kernels/matmul/test_matrices.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/cpu.h"
#include "kernels/matmul/pack_codes.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr float kGuard = 12345.678f;
constexpr int64_t kTail = 32;  // guards after the last row

}  // namespace

GuardedMatrix::GuardedMatrix(int64_t rows, int64_t cols, int64_t stride,
                             int64_t offset)
    : rows_(rows),
      cols_(cols),
      stride_(stride),
      offset_(offset),
      values_(offset + rows * stride + kTail, kGuard) {}

int64_t GuardedMatrix::Index(int64_t row, int64_t col) const {
  return offset_ + row * stride_ + col;
}

MatrixView<float> GuardedMatrix::view() {
  return MatrixView<float>(values_.data() + offset_, rows_, cols_, stride_);
}

float GuardedMatrix::at(int64_t row, int64_t col) const {
  return values_[Index(row, col)];
}

void GuardedMatrix::set(int64_t row, int64_t col, float value) {
  values_[Index(row, col)] = value;
}

bool GuardedMatrix::GuardsIntact() const {
  std::vector<bool> inside(values_.size(), false);
  for (int64_t row = 0; row < rows_; ++row) {
    for (int64_t col = 0; col < cols_; ++col) inside[Index(row, col)] = true;
  }
  for (size_t i = 0; i < values_.size(); ++i) {
    if (!inside[i] && values_[i] != kGuard) return false;
  }
  return true;
}

std::vector<float> RandomValues(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  std::generate(values.begin(), values.end(),
                [&] { return normal(generator); });
  return values;
}

std::vector<float> RoundedToBF16(const std::vector<float>& values) {
  std::vector<float> rounded(values.size());
  std::transform(values.begin(), values.end(), rounded.begin(),
                 [](float value) { return ToFloat(ToBF16(value)); });
  return rounded;
}

PackedMatrix Pack(const std::vector<float>& weights, int64_t outputs,
                  int64_t inputs, WeightFormat format, ThreadPool& pool) {
  const TensorView view = MakeTensorView(absl::MakeConstSpan(weights),
                                         *Shape::Create({outputs, inputs}));
  absl::StatusOr<PackedMatrix> packed = PackMatrix(view, format, pool);
  CHECK_OK(packed.status());
  return *std::move(packed);
}

float IntegerMatrix::Weight(int64_t output, int64_t input) const {
  const int64_t group = output * layout.groups() + input / layout.group_size;
  const int zero = layout.has_zeros()
                       ? zeros[group]
                       : static_cast<int>(layout.symmetric_zero());
  const float steps =
      static_cast<float>(codes[output * layout.inputs + input] - zero);
  return layout.has_minimums() ? std::fma(scales[group], steps, minimums[group])
                               : scales[group] * steps;
}

PackedMatrix IntegerMatrix::Pack() const {
  AlignedBuffer memory(static_cast<size_t>(layout.bytes()));
  PackCodes(layout, 0, layout.outputs, {codes, scales, zeros, minimums},
            memory.data());
  return PackedMatrix::Own(layout, std::move(memory));
}

PackedLayout LayoutWithMinimums(int64_t outputs, int64_t inputs,
                                int64_t group_size, bool wide_scales) {
  PackedLayout layout;
  layout.format = WeightFormat::kInt4;
  layout.outputs = outputs;
  layout.inputs = inputs;
  layout.group_size = group_size;
  layout.symmetric = false;
  layout.wide_scales = wide_scales;
  layout.minimums = true;
  return *PackedLayout::Checked(layout);
}

IntegerMatrix RandomIntegers(const PackedLayout& layout, uint32_t seed) {
  std::mt19937 generator(seed);
  IntegerMatrix m;
  m.layout = layout;
  m.codes.resize(static_cast<size_t>(layout.outputs * layout.inputs));
  m.scales.resize(static_cast<size_t>(layout.outputs * layout.groups()));
  const uint32_t levels = layout.format == WeightFormat::kInt8 ? 256 : 16;
  for (uint8_t& code : m.codes) code = generator() % levels;
  std::normal_distribution<float> normal;
  const auto number = [&](float deviation) {
    const float value = deviation * normal(generator);
    return layout.wide_scales ? value : ToFloat(ToF16(value));
  };
  for (float& scale : m.scales) scale = number(0.01f);
  if (layout.has_zeros()) {
    m.zeros.resize(m.scales.size());
    for (uint8_t& zero : m.zeros) zero = generator() % 16;
  }
  if (layout.has_minimums()) {
    m.minimums.resize(m.scales.size());
    for (float& minimum : m.minimums) minimum = number(0.08f);
  }
  return m;
}

double SumErrorFactor(int64_t inputs) {
  constexpr double kUnit = 1.0 / (1 << 24);
  const double n = std::min<double>(inputs, 256) + inputs / 256 + 1;
  return n * kUnit / (1 - n * kUnit);
}

bool SumsInReferenceOrder(const MatMulKernel& kernel) {
  return kernel.panel != DType::kBF16 ||
         (kernel.isa != Isa::kAmx && kernel.isa != Isa::kEmulatedAmx);
}

double TileSumTolerance(int64_t inputs, double magnitude) {
  // A product is rounded at most 16 times in its tile, twice on the way into
  // the sum, and once with every tile of 32 inputs.
  constexpr double kUnit = 1.0 / (1 << 24);
  const double n = 18 + (inputs + 31) / 32;
  return (n * kUnit / (1 - n * kUnit) + SumErrorFactor(inputs)) * magnitude +
         inputs * std::numeric_limits<float>::min();
}

}  // namespace nibble
