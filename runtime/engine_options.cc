#include "runtime/engine_options.h"

#include "absl/strings/str_cat.h"
#include "runtime/memory.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Bytes of the tensors as they will be held, or as a packed file holds them.
absl::StatusOr<int64_t> WeightBytes(const Checkpoint& checkpoint,
                                    WeightFormat weights) {
  int64_t bytes = 0;
  for (const std::string& name : checkpoint.tensors->names()) {
    if (checkpoint.packed != nullptr && checkpoint.packed->IsPacked(name)) {
      const auto matrix = checkpoint.packed->FindPacked(name);
      if (!matrix.ok()) return matrix.status();
      bytes += matrix->layout.bytes();
      continue;
    }
    const absl::StatusOr<TensorView> tensor = checkpoint.tensors->Find(name);
    if (!tensor.ok()) return tensor.status();
    bytes += checkpoint.packed != nullptr
                 ? static_cast<int64_t>(tensor->bytes)
                 : tensor->shape.elements() *
                       (weights == WeightFormat::kF32 ? 4 : 2);
  }
  return bytes;
}

}  // namespace

absl::Status OptionError(absl::string_view option, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(option, ": ", problem));
}

absl::Status CheckOptions(const EngineOptions& options) {
  if (options.activations == Activations::kBF16 &&
      options.weights == WeightFormat::kF32) {
    return OptionError("activations",
                       "bf16 needs weights in bf16, int8 or int4");
  }
  const DType kv_cache = options.kv_cache.value_or(DType::kF32);
  if (kv_cache != DType::kF32 && kv_cache != DType::kBF16 &&
      kv_cache != DType::kI8) {
    return OptionError("kv_cache", absl::StrCat(DTypeName(kv_cache),
                                                " is not supported; use f32, "
                                                "bf16 or i8"));
  }
  if (options.threads < 0) {
    return OptionError("threads", absl::StrCat(options.threads,
                                               " is negative; 0 takes all that "
                                               "the machine grants"));
  }
  if (options.context < 0) {
    return OptionError("context", absl::StrCat(options.context,
                                               " is negative; 0 takes the "
                                               "model's own limit"));
  }
  if (options.prefill_chunk < 0) {
    return OptionError("prefill_chunk",
                       absl::StrCat(options.prefill_chunk, " is negative"));
  }
  if (options.memory_limit < 0) {
    return OptionError("memory_limit",
                       absl::StrCat(options.memory_limit, " is negative"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ResolveContext(const EngineOptions& options,
                                       const DecoderConfig& config) {
  // Dynamic scaling adapts its angles to any length, ALiBi knows no positions.
  const bool dynamic = config.rope.style != RopeStyle::kNone &&
                       config.rope.scaling.type == RopeScaling::kDynamic;
  if (options.context == 0) {
    return dynamic ? kMaxPositions : config.max_positions;
  }
  const int64_t limit =
      dynamic || config.alibi ? kMaxPositions : config.max_positions;
  if (options.context > limit) {
    return OptionError(
        "context", absl::StrCat(options.context, " tokens are more than the ",
                                limit, " positions of ", options.model_path));
  }
  return options.context;
}

absl::StatusOr<WeightFormat> ResolveWeights(const EngineOptions& options,
                                            const Checkpoint& checkpoint) {
  if (checkpoint.packed == nullptr) {
    const WeightFormat wanted = options.weights.value_or(WeightFormat::kBF16);
    if (!IsInteger(wanted)) return wanted;
    return OptionError(
        "weights",
        absl::StrCat(WeightFormatName(wanted),
                     " weights are made by "
                     "quantizing ",
                     checkpoint.path, " first; without that, use bf16 or f32"));
  }
  const absl::StatusOr<PackedTensor> stored = checkpoint.packed->FindPacked(
      checkpoint.names.layers[0].up.weight[0].tensor);
  if (!stored.ok()) return stored.status();
  const WeightFormat format = stored->layout.format;
  if (!options.weights.has_value() || *options.weights == format) {
    return format;
  }
  return OptionError(
      "weights", absl::StrCat(checkpoint.path, " holds its weights as ",
                              WeightFormatName(format), ", and ",
                              WeightFormatName(*options.weights),
                              " is asked for; open the checkpoint that it was "
                              "made from"));
}

absl::Status CheckWeightsFit(const Checkpoint& checkpoint, WeightFormat weights,
                             int64_t available) {
  absl::StatusOr<int64_t> bytes = WeightBytes(checkpoint, weights);
  if (!bytes.ok()) return bytes.status();
  if (*bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      checkpoint.path, ": its weights take ", FormatBytes(*bytes), " in ",
      WeightFormatName(weights), ", and ", FormatBytes(available),
      " of memory are free; use a smaller model",
      weights == WeightFormat::kF32 ? " or weights in bf16" : ""));
}

}  // namespace nibble
