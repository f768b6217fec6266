#include "models/synthetic/synthetic_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "kernels/matmul/pack_codes.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Records drawn for a layout. Few, since drawing is slow; more than one, so
// that no two neighbours are the same.
constexpr int64_t kRecords = 8;

// Codes per standard deviation: rounding groups of 128 normal weights, whose
// largest is about 2.7 deviations off on either side, to 4 bits uses 15 steps
// for 5.4 deviations; to 8 bits 127 steps for 2.7.
float CodesPerDeviation(WeightFormat format) {
  return format == WeightFormat::kInt4 ? 2.7f : 47.0f;
}

uint64_t Mix(uint64_t state) {
  // SplitMix64 (Steele, Lea, Flood 2014).
  uint64_t z = state * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

PackedLayout WithOutputs(PackedLayout layout, int64_t outputs) {
  layout.outputs = outputs;
  return layout;
}

}  // namespace

uint64_t SyntheticMatrices::Bits() { return Mix(++state_); }

float SyntheticMatrices::Draw() {
  // The sum of four 16-bit numbers, each of variance 2^32 / 12.
  const uint64_t bits = Bits();
  int64_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += bits >> (16 * i) & 0xFFFF;
  constexpr float kScale = 2.64289e-5f;  // sqrt(12 / 4) / 2^16
  return static_cast<float>(sum - 2 * 0xFFFF) * kScale;
}

Array<float> SyntheticMatrices::Normal(int64_t count, float deviation) {
  Array<float> values(static_cast<size_t>(count));
  for (float& value : values) value = Draw() * deviation;
  return values;
}

SyntheticMatrices::Records SyntheticMatrices::PackFloats(
    const PackedLayout& layout, ThreadPool& pool) {
  const float deviation = 1.0f / std::sqrt(static_cast<float>(layout.inputs));
  const Array<float> values = Normal(layout.outputs * layout.inputs, deviation);
  const TensorView view = {DType::kF32, Shape{layout.outputs, layout.inputs},
                           reinterpret_cast<const std::byte*>(values.data()),
                           values.size() * sizeof(float)};
  const absl::StatusOr<PackedMatrix> packed =
      PackMatrix(view, layout.format, pool);
  CHECK(packed.ok()) << packed.status();
  Records records;
  records.layout = layout;
  records.memory = AlignedBuffer(packed->bytes());
  std::memcpy(records.memory.data(), packed->data(), packed->bytes());
  return records;
}

SyntheticMatrices::Records SyntheticMatrices::PackIntegers(
    const PackedLayout& layout) {
  const int64_t groups = layout.groups();
  const float per_deviation = CodesPerDeviation(layout.format);
  const int most = layout.format == WeightFormat::kInt4 ? 15 : 255;
  const float step =
      1.0f / (per_deviation * std::sqrt(static_cast<float>(layout.inputs)));
  std::vector<uint8_t> codes(
      static_cast<size_t>(layout.outputs * layout.inputs));
  std::vector<float> scales(static_cast<size_t>(layout.outputs * groups));
  std::vector<uint8_t> zeros(layout.has_zeros() ? scales.size() : 0);
  for (int64_t row = 0; row < layout.outputs; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const size_t at = static_cast<size_t>(row * groups + group);
      // Groups differ by a fifth or so.
      scales[at] = ToFloat(ToF16(step * (1.0f + 0.2f * Draw() / 3.5f)));
      int zero = static_cast<int>(layout.symmetric_zero());
      if (layout.has_zeros()) {
        zero = 6 + static_cast<int>(Bits() % 4);
        zeros[at] = static_cast<uint8_t>(zero);
      }
      const int64_t end =
          std::min(layout.inputs, (group + 1) * layout.group_size);
      for (int64_t k = group * layout.group_size; k < end; ++k) {
        const int code =
            zero + static_cast<int>(std::lrint(Draw() * per_deviation));
        codes[static_cast<size_t>(row * layout.inputs + k)] =
            static_cast<uint8_t>(std::clamp(code, 0, most));
      }
    }
  }
  Records records;
  records.layout = layout;
  records.memory = AlignedBuffer(static_cast<size_t>(layout.bytes()),
                                 AlignedBuffer::Fill::kZero);
  PackCodes(layout, 0, layout.outputs, {codes, scales, zeros},
            records.memory.data());
  return records;
}

SyntheticMatrices::Records SyntheticMatrices::Pack(const PackedLayout& layout,
                                                   ThreadPool& pool) {
  return IsInteger(layout.format) ? PackIntegers(layout)
                                  : PackFloats(layout, pool);
}

const SyntheticMatrices::Records& SyntheticMatrices::WholeRecords(
    const PackedLayout& layout, ThreadPool& pool) {
  const PackedLayout wanted =
      WithOutputs(layout, kRecords * layout.record_outputs());
  for (const Records& records : whole_) {
    if (records.layout == wanted) return records;
  }
  whole_.push_back(Pack(wanted, pool));
  return whole_.back();
}

PackedMatrix SyntheticMatrices::Make(const PackedLayout& layout,
                                     ThreadPool& pool) {
  const Records& whole = WholeRecords(layout, pool);
  const size_t record_bytes = static_cast<size_t>(layout.record_bytes());
  AlignedBuffer memory(static_cast<size_t>(layout.bytes()));
  const uint64_t order = Bits();
  const int64_t full = layout.outputs / layout.record_outputs();
  pool.ParallelFor(full, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t record = begin; record < end; ++record) {
      const uint64_t pick =
          Mix(order + static_cast<uint64_t>(record)) % kRecords;
      std::memcpy(memory.data() + static_cast<size_t>(record) * record_bytes,
                  whole.memory.data() + pick * record_bytes, record_bytes);
    }
  });
  // The last record may have outputs that are padding.
  const int64_t rest = layout.outputs - full * layout.record_outputs();
  if (rest > 0) {
    const Records last = Pack(WithOutputs(layout, rest), pool);
    std::memcpy(memory.data() + static_cast<size_t>(full) * record_bytes,
                last.memory.data(), record_bytes);
  }
  return PackedMatrix::Own(layout, std::move(memory));
}

}  // namespace nibble
