#include "runtime/engine_options.h"

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "models/coded_gather.h"
#include "runtime/memory.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Bytes of all matrices that are made of codes, and those matrices' tensors.
struct CodedWeights {
  int64_t bytes = 0;
  absl::flat_hash_set<std::string> tensors;

  void Add(const TensorSource& source, const LinearTensors& linear) {
    if (!HasCodes(source, linear.weight)) return;
    const std::optional<CodedGather> codes =
        CodedGather::Find(source, linear.weight);
    if (codes) bytes += codes->layout().bytes();
    for (const RowRange& range : linear.weight) {
      tensors.insert(range.tensor);
      const CodedMatrix* matrix = source.FindCoded(range.tensor);
      if (codes || matrix == nullptr) continue;
      // As f32, which it is held in at most.
      bytes += range.rows * matrix->form().inputs * int64_t{sizeof(float)};
    }
  }
};

CodedWeights CodedWeightsOf(const Checkpoint& checkpoint) {
  CodedWeights coded;
  const TensorSource& source = *checkpoint.tensors;
  for (const LayerTensors& layer : checkpoint.names.layers) {
    for (const LinearTensors* linear :
         {&layer.qkv, &layer.attention, &layer.up, &layer.down}) {
      coded.Add(source, *linear);
    }
  }
  coded.Add(source, checkpoint.names.head);
  return coded;
}

int64_t PackedBytes(const PackedFile& file) {
  int64_t bytes = 0;
  for (const std::string& name : file.names()) {
    if (const auto matrix = file.FindPacked(name); matrix.ok()) {
      bytes += matrix->layout.bytes();
    } else if (const auto plain = file.Find(name); plain.ok()) {
      bytes += static_cast<int64_t>(plain->bytes);
    }
  }
  return bytes;
}

// " in int4": the format of most matrices, where it is known.
std::string FormatText(const Checkpoint& checkpoint,
                       std::optional<WeightFormat> weights) {
  const RowRange& up = checkpoint.names.layers[0].up.weight[0];
  if (checkpoint.packed != nullptr) {
    const auto stored = checkpoint.packed->FindPacked(up.tensor);
    if (stored.ok()) weights = stored->layout.format;
  } else if (!weights && checkpoint.tensors->FindCoded(up.tensor) == nullptr) {
    weights = WeightFormat::kBF16;
  }
  return weights ? absl::StrCat(" in ", WeightFormatName(*weights)) : "";
}

// Bytes of the tensors as they will be held.
int64_t WeightBytes(const Checkpoint& checkpoint,
                    std::optional<WeightFormat> weights) {
  if (checkpoint.packed != nullptr) return PackedBytes(*checkpoint.packed);
  CodedWeights coded;
  if (!weights) coded = CodedWeightsOf(checkpoint);
  int64_t bytes = coded.bytes;
  for (const std::string& name : checkpoint.tensors->names()) {
    if (coded.tensors.contains(name)) continue;
    int64_t elements = 0;
    if (const CodedMatrix* matrix = checkpoint.tensors->FindCoded(name)) {
      elements = matrix->form().outputs * matrix->form().inputs;
    } else if (const auto dense = checkpoint.tensors->Find(name); dense.ok()) {
      elements = dense->shape.elements();
    }
    bytes += elements * (weights == WeightFormat::kF32 ? 4 : 2);
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

absl::Status CheckWeightsOption(const EngineOptions& options,
                                const Checkpoint& checkpoint) {
  if (!options.weights.has_value()) return absl::OkStatus();
  const WeightFormat wanted = *options.weights;
  if (checkpoint.packed == nullptr) {
    if (!IsInteger(wanted)) return absl::OkStatus();
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
  if (wanted == format) return absl::OkStatus();
  return OptionError(
      "weights",
      absl::StrCat(checkpoint.path, " holds its weights as ",
                   WeightFormatName(format), ", and ", WeightFormatName(wanted),
                   " is asked for; open the checkpoint that it was "
                   "made from"));
}

absl::Status CheckWeightsFit(const Checkpoint& checkpoint,
                             std::optional<WeightFormat> weights,
                             int64_t available) {
  const int64_t bytes = WeightBytes(checkpoint, weights);
  if (bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      checkpoint.path, ": its weights take ", FormatBytes(bytes),
      FormatText(checkpoint, weights), ", and ", FormatBytes(available),
      " of memory are free; use a smaller model",
      weights == WeightFormat::kF32 ? " or weights in bf16" : ""));
}

}  // namespace nibble
