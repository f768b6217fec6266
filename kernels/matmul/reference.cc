#include "kernels/matmul/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/bf16.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

// Outputs of records [first, end) that exist.
int64_t OutputsOf(const PackedLayout& layout, int64_t first, int64_t end) {
  return std::min(layout.outputs, end * layout.record_outputs()) -
         first * layout.record_outputs();
}

// The weights of one output in the form in which they are multiplied.
std::vector<float> WeightsOf(const Product& p, int64_t output, bool as_bf16) {
  std::vector<float> weights(static_cast<size_t>(p.layout->inputs));
  DequantizeRow(PackedMatrix::View(*p.layout, p.weights), output,
                absl::MakeSpan(weights));
  if (as_bf16) {
    for (float& w : weights) w = ToFloat(ToBF16(w));
  }
  return weights;
}

// The sum of one block of K: inputs [begin, end).
template <WeightFormat kAs>
float BlockSum(const std::vector<float>& w, const float* x, int64_t begin,
               int64_t end) {
  float sum = 0;
  if constexpr (kAs == WeightFormat::kF32) {
    for (int64_t k = begin; k < end; ++k) sum = std::fma(w[k], x[k], sum);
  } else {
    for (int64_t k = begin; k < end; k += 2) {
      if (k + 1 < end) sum = std::fma(w[k + 1], x[k + 1], sum);
      sum = std::fma(w[k], x[k], sum);
    }
  }
  return sum;
}

// REQUIRES: groups of one row, so that a row of the panel is contiguous.
template <WeightFormat kAs>
void MultiplyReference(const Product& p, int64_t first, int64_t end,
                       Totals totals, std::byte* /*scratch*/) {
  const int64_t inputs = p.layout->inputs;
  const int64_t outputs = OutputsOf(*p.layout, first, end);
  for (int64_t n = 0; n < outputs; ++n) {
    const std::vector<float> w = WeightsOf(
        p, first * p.layout->record_outputs() + n, kAs == WeightFormat::kBF16);
    for (int64_t row = 0; row < p.panel.groups.rows; ++row) {
      const float* x = reinterpret_cast<const float*>(p.panel.values) +
                       row * BlocksFor(inputs) * kBlockInputs;
      float total = 0;
      for (int64_t k = 0; k < inputs; k += kBlockInputs) {
        total += BlockSum<kAs>(w, x, k, std::min(inputs, k + kBlockInputs));
      }
      totals.data[row * totals.stride + n] = total;
    }
  }
}

// Integer weights of one output as they are stored.
struct IntegerWeights {
  IntegerWeights(const Product& p, int64_t output);

  std::vector<int> codes;     // [inputs], the zero point subtracted
  std::vector<float> scales;  // [groups]
};

IntegerWeights::IntegerWeights(const Product& p, int64_t output)
    : codes(static_cast<size_t>(p.layout->inputs)),
      scales(static_cast<size_t>(p.layout->groups())) {
  const PackedLayout& layout = *p.layout;
  const int64_t n = output % kRecordOutputs;
  const int64_t in_tile = n % kTileOutputs;
  const std::byte* record =
      p.weights + output / kRecordOutputs * layout.record_bytes();
  const auto byte_at = [&](int64_t offset) {
    return static_cast<int>(record[offset]);
  };
  for (int64_t g = 0; g < layout.groups(); ++g) {
    const std::byte* at =
        record + (g * kRecordOutputs + n) * layout.scale_bytes();
    if (layout.wide_scales) {
      std::memcpy(&scales[g], at, sizeof(float));
    } else {
      F16 narrow;
      std::memcpy(&narrow, at, sizeof(narrow));
      scales[g] = ToFloat(narrow);
    }
  }
  for (int64_t k = 0; k < layout.inputs; ++k) {
    const int64_t line = k / layout.chunk_inputs() * 2 + n / kTileOutputs;
    const int code = byte_at(layout.codes_offset() + line * kStepBytes +
                             in_tile * 4 + k % 4);
    int zero = static_cast<int>(layout.symmetric_zero());
    if (layout.has_zeros()) {
      const int64_t g = k / layout.group_size;
      const int pair =
          byte_at(layout.zeros_offset() + g * kTileOutputs + in_tile);
      zero = n < kTileOutputs ? pair % 16 : pair / 16;
    }
    codes[k] = layout.format == WeightFormat::kInt8 ? code
               : k % 8 < 4                          ? code % 16
                                                    : code / 16;
    codes[k] -= zero;
  }
}

// REQUIRES: groups of one row.
void MultiplyInt8Reference(const Product& p, int64_t first, int64_t end,
                           Totals totals, std::byte* /*scratch*/) {
  const PackedLayout& layout = *p.layout;
  const int64_t outputs = OutputsOf(layout, first, end);
  const int64_t row_bytes = Int8BlocksFor(layout.inputs) * kInt8BlockInputs;
  for (int64_t n = 0; n < outputs; ++n) {
    const IntegerWeights w(p, first * kRecordOutputs + n);
    for (int64_t row = 0; row < p.panel.groups.rows; ++row) {
      const int8_t* values =
          reinterpret_cast<const int8_t*>(p.panel.values) + row * row_bytes;
      float total = 0;
      for (int64_t g = 0; g < layout.groups(); ++g) {
        const int64_t begin = g * layout.group_size;
        const int64_t last = std::min(layout.inputs, begin + layout.group_size);
        int32_t sum = 0;
        for (int64_t k = begin; k < last; ++k) sum += w.codes[k] * values[k];
        const float scale =
            w.scales[g] * p.panel.scales[row * layout.groups() + g];
        total = std::fma(static_cast<float>(sum), scale, total);
      }
      totals.data[row * totals.stride + n] = total;
    }
  }
}

constexpr MatMulKernel Row(const char* name, WeightFormat weights,
                           WeightFormat as, DType panel,
                           MultiplyFunction multiply) {
  return {name, weights, as, panel, Isa::kScalar, 0, 1, 4, multiply};
}

constexpr WeightFormat kF32 = WeightFormat::kF32, kBF16 = WeightFormat::kBF16,
                       kInt8 = WeightFormat::kInt8, kInt4 = WeightFormat::kInt4;

// clang-format off
constexpr MatMulKernel kKernels[] = {
    Row("f32_reference", kF32, kF32, DType::kF32, &MultiplyReference<kF32>),
    Row("bf16_reference", kBF16, kBF16, DType::kF32, &MultiplyReference<kBF16>),
    Row("int8_f32_reference", kInt8, kF32, DType::kF32,
        &MultiplyReference<kF32>),
    Row("int8_bf16_reference", kInt8, kBF16, DType::kF32,
        &MultiplyReference<kBF16>),
    Row("int8_int8_reference", kInt8, kInt8, DType::kI8,
        &MultiplyInt8Reference),
    Row("int4_f32_reference", kInt4, kF32, DType::kF32,
        &MultiplyReference<kF32>),
    Row("int4_bf16_reference", kInt4, kBF16, DType::kF32,
        &MultiplyReference<kBF16>),
    Row("int4_int8_reference", kInt4, kInt4, DType::kI8,
        &MultiplyInt8Reference),
};
// clang-format on

}  // namespace

absl::Span<const MatMulKernel> ReferenceMatMulKernels() { return kKernels; }

}  // namespace nibble
