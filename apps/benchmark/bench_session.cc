#include "apps/benchmark/bench_session.h"

#include <cstdint>
#include <string>

#include "models/decoder_weights.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"

namespace nibble {

MultiplyKind MultiplyOf(const Decoder& decoder) {
  switch (decoder.activations()) {
    case Activations::kInt8:
      return decoder.weights().has_integer_matrix() ? MultiplyKind::kInt8Dot
                                                    : MultiplyKind::kF32;
    case Activations::kBF16:
      return HasMultiply(MultiplyKind::kBF16Dot) ? MultiplyKind::kBF16Dot
                                                 : MultiplyKind::kF32;
    case Activations::kF32:
      return MultiplyKind::kF32;
  }
  return MultiplyKind::kF32;
}

const char* ActivationsName(Activations activations) {
  switch (activations) {
    case Activations::kF32:
      return "f32";
    case Activations::kBF16:
      return "bf16";
    case Activations::kInt8:
      return "int8";
  }
  return "unknown";
}

BenchModel DescribeModel(const Engine& engine, const std::string& shape) {
  const DecoderWeights& weights = engine.decoder().weights();
  const PackedLayout& layout = weights.layers[0].up.matrix.layout();
  BenchModel model;
  model.shape = shape;
  model.weights = std::string(WeightFormatName(layout.format));
  if (IsInteger(layout.format)) {
    model.group_size = layout.group_size;
    model.symmetric = layout.symmetric;
  }
  model.head = std::string(WeightFormatName(weights.head.matrix.format()));
  model.activations = ActivationsName(engine.decoder().activations());
  const DType kv_cache = engine.kv_pool().layout().dtype;
  model.kv_cache =
      kv_cache == DType::kI8 ? "int8" : std::string(DTypeName(kv_cache));
  model.weight_bytes = static_cast<int64_t>(engine.weight_bytes());
  return model;
}

}  // namespace nibble
