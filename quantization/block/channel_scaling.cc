#include "quantization/block/channel_scaling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "quantization/block/load_block.h"
#include "quantization/folding/folding.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/io/gguf.h"
#include "tensor/io/gguf_writer.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

// ggml's number for a file whose matrices are of a dtype.
constexpr uint32_t kGgufAllF32 = 0;
constexpr uint32_t kGgufMostlyBF16 = 32;

struct FloatTensor {
  Shape shape;
  Array<float> values;
};
using FloatTensors = std::map<std::string, FloatTensor>;

absl::StatusOr<FloatTensors> ReadAll(const TensorSource& source) {
  FloatTensors tensors;
  for (const std::string& name : source.names()) {
    const absl::StatusOr<TensorView> view = source.Find(name);
    if (!view.ok()) return view.status();
    FloatTensor tensor;
    tensor.shape = view->shape;
    tensor.values = Array<float>(static_cast<size_t>(view->shape.elements()));
    const absl::Status read = ConvertToF32(*view, tensor.values.span());
    if (!read.ok()) return read;
    tensors.emplace(name, std::move(tensor));
  }
  return tensors;
}

// Puts a matrix or a bias back where it was gathered from.
void PutBack(absl::Span<const RowRange> ranges, const Array<float>& values,
             FloatTensors& tensors) {
  size_t next = 0;
  for (const RowRange& range : ranges) {
    FloatTensor& tensor = tensors.at(range.tensor);
    const size_t row =
        tensor.values.size() / static_cast<size_t>(tensor.shape.dim(0));
    const size_t count = row * static_cast<size_t>(range.rows);
    std::copy_n(
        values.data() + next, count,
        tensor.values.data() + row * static_cast<size_t>(range.first_row));
    next += count;
  }
}

void PutBack(const NormTensors& names, const BlockNorm<float>& norm,
             FloatTensors& tensors) {
  const auto put = [&](const std::string& name, const Array<float>& values) {
    if (name.empty()) return;
    std::copy(values.begin(), values.end(), tensors.at(name).values.begin());
  };
  put(names.weight, norm.weight);
  put(names.bias, norm.bias);
}

absl::Status ScaleLayers(const Checkpoint& checkpoint,
                         const ChannelScaling& scaling, ThreadPool& pool,
                         FloatTensors& tensors) {
  for (int64_t i = 0; i < checkpoint.config.layers; ++i) {
    absl::StatusOr<BlockWeights<float>> weights =
        LoadBlock(checkpoint, i, pool);
    if (!weights.ok()) return weights.status();
    ScaleChannels(checkpoint.config, i, scaling, *weights);
    const LayerTensors& names = checkpoint.names.layers[static_cast<size_t>(i)];
    PutBack(names.attention_norm, weights->attention_norm, tensors);
    PutBack(names.mlp_norm, weights->mlp_norm, tensors);
    const LinearTensors* const linears[] = {&names.qkv, &names.attention,
                                            &names.up, &names.down};
    for (const LinearId id : kAllLinears) {
      const LinearTensors& linear = *linears[static_cast<size_t>(id)];
      PutBack(linear.weight, (*weights)[id].weight, tensors);
      PutBack(linear.bias, (*weights)[id].bias, tensors);
    }
  }
  return absl::OkStatus();
}

// The tensors in the dtypes they are written in; views into `memory`.
std::vector<NamedTensor> Rounded(const FloatTensors& tensors, DType dtype,
                                 std::vector<Array<BF16>>& memory) {
  std::vector<NamedTensor> result;
  for (const auto& [name, tensor] : tensors) {
    if (dtype == DType::kF32 || tensor.shape.rank() == 1) {
      result.push_back(
          {name, MakeTensorView<float>(tensor.values.span(), tensor.shape)});
      continue;
    }
    memory.emplace_back(tensor.values.size());
    F32ToBF16(tensor.values.span(), memory.back().span());
    const absl::Span<const BF16> values = memory.back().span();
    result.push_back({name, MakeTensorView(values, tensor.shape)});
  }
  return result;
}

absl::Status WriteGguf(const GgufFile& source, DType dtype,
                       absl::Span<const NamedTensor> tensors,
                       const std::string& path) {
  GgufMetadata metadata;
  metadata.CopyOf(source, {"general.file_type"});
  metadata.U32("general.file_type",
               dtype == DType::kF32 ? kGgufAllF32 : kGgufMostlyBF16);
  std::vector<GgufTensorPlan> plan;
  for (const NamedTensor& tensor : tensors) {
    plan.push_back({tensor.name, tensor.view.dtype, tensor.view.shape});
  }
  absl::StatusOr<GgufWriter> writer = GgufWriter::Create(path, metadata, plan);
  if (!writer.ok()) return writer.status();
  for (const NamedTensor& tensor : tensors) {
    const absl::Status written = writer->Append(
        absl::MakeConstSpan(tensor.view.data, tensor.view.bytes));
    if (!written.ok()) return written;
  }
  return writer->Commit();
}

absl::Status WriteFolder(const std::string& from,
                         absl::Span<const NamedTensor> tensors,
                         const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::create_directories(path, error);
  for (const fs::directory_entry& entry : fs::directory_iterator(from, error)) {
    const std::string name = entry.path().filename();
    if (!entry.is_regular_file() || absl::StrContains(name, ".safetensors")) {
      continue;
    }
    fs::copy_file(entry.path(), fs::path(path) / name,
                  fs::copy_options::overwrite_existing, error);
    if (error) break;
  }
  if (error) {
    return absl::UnknownError(absl::StrCat(path, ": ", error.message()));
  }
  return WriteSafetensors(path + "/model.safetensors", tensors,
                          {{"format", "pt"}});
}

}  // namespace

void ScaleChannels(const DecoderConfig& config, int64_t layer,
                   const ChannelScaling& scaling,
                   BlockWeights<float>& weights) {
  testing::RandomValues random((scaling.seed << 32) +
                               static_cast<uint64_t>(layer));
  for (const FoldablePair& pair : FoldablePairs(config)) {
    std::vector<float> scales =
        random.Normal(pair.free_scales, scaling.deviation);
    for (float& scale : scales) scale = std::exp(scale);
    Fold(pair, scales, config, weights);
  }
}

absl::Status WriteScaled(const Checkpoint& checkpoint,
                         const ChannelScaling& scaling, const std::string& path,
                         ThreadPool& pool) {
  absl::StatusOr<FloatTensors> tensors = ReadAll(*checkpoint.tensors);
  if (!tensors.ok()) return tensors.status();
  const absl::Status scaled = ScaleLayers(checkpoint, scaling, pool, *tensors);
  if (!scaled.ok()) return scaled;
  std::vector<Array<BF16>> memory;
  const std::vector<NamedTensor> rounded =
      Rounded(*tensors, scaling.dtype, memory);
  if (checkpoint.gguf != nullptr) {
    return WriteGguf(*checkpoint.gguf, scaling.dtype, rounded, path);
  }
  return WriteFolder(checkpoint.path, rounded, path);
}

}  // namespace nibble
