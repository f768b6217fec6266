#include "testing/quantized_model.h"

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/pack_codes.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/manifest_config.h"
#include "models/matrix_gather.h"
#include "models/packed_names.h"
#include "models/registry.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/random_checkpoint.h"

namespace nibble::testing {
namespace {

std::vector<float> RowsOf(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.shape.elements()));
  CHECK_OK(ConvertToF32(view, absl::MakeSpan(values)));
  return values;
}

PackedMatrix Round(const std::vector<float>& values, int64_t outputs,
                   int64_t inputs, const RoundingOptions& options) {
  absl::StatusOr<PackedLayout> layout = RoundedLayout(options, outputs, inputs);
  CHECK_OK(layout.status());
  const auto row = [&](int64_t output) {
    return absl::MakeConstSpan(values).subspan(
        static_cast<size_t>(output * inputs), static_cast<size_t>(inputs));
  };
  for (int64_t n = 0; n < outputs; ++n) {
    layout->wide_scales |= SurveyRow(row(n), *layout).needs_wide_scales;
  }
  const size_t groups = static_cast<size_t>(layout->groups());
  const size_t zeros_per_row = layout->has_zeros() ? groups : 0;
  const size_t rows = static_cast<size_t>(outputs);
  std::vector<uint8_t> codes(values.size());
  std::vector<float> scales(rows * groups);
  std::vector<uint8_t> zeros(rows * zeros_per_row);
  for (size_t n = 0; n < rows; ++n) {
    const size_t k = static_cast<size_t>(inputs);
    RoundRow(row(static_cast<int64_t>(n)), *layout,
             {absl::MakeSpan(codes).subspan(n * k, k),
              absl::MakeSpan(scales).subspan(n * groups, groups),
              absl::MakeSpan(zeros).subspan(n * zeros_per_row, zeros_per_row)});
  }
  AlignedBuffer memory(static_cast<size_t>(layout->bytes()));
  PackCodes(*layout, 0, outputs, {codes, scales, zeros}, memory.data());
  return PackedMatrix::Own(*layout, std::move(memory));
}

class Rounder {
 public:
  Rounder(const Checkpoint& checkpoint, const RoundingOptions& options,
          ThreadPool& pool)
      : config_(checkpoint.config),
        names_(checkpoint.names),
        packed_names_(PackedTensorNames(checkpoint.config)),
        options_(options),
        gather_(*checkpoint.tensors, pool) {}

  QuantizedModel Run() {
    QuantizedModel model;
    model.weights.config = config_;
    if (!config_.tied_head) {
      const TensorView embedding = *gather_.Stored(names_.embedding);
      tensors_->Add(packed_names_.embedding, embedding.shape,
                    RowsOf(embedding));
      model.weights.embedding = *tensors_->Find(packed_names_.embedding);
    }
    for (size_t i = 0; i < names_.layers.size(); ++i) {
      model.weights.layers.push_back(
          Layer(names_.layers[i], packed_names_.layers[i]));
    }
    model.weights.final_norm =
        Norm(names_.final_norm, packed_names_.final_norm);
    model.weights.head = Linear(names_.head, packed_names_.head);
    model.weights.source = tensors_;
    if (config_.tied_head) {
      packed_names_.embedding = packed_names_.head.weight[0].tensor;
    }
    model.dequantized.path = "memory";
    model.dequantized.format = "memory";
    model.dequantized.config = config_;
    model.dequantized.names = packed_names_;
    model.dequantized.tensors = tensors_;
    return model;
  }

 private:
  LayerWeights Layer(const LayerTensors& from, const LayerTensors& to) {
    LayerWeights layer;
    layer.attention_norm = Norm(from.attention_norm, to.attention_norm);
    if (!from.mlp_norm.weight.empty()) {
      layer.mlp_norm = Norm(from.mlp_norm, to.mlp_norm);
    }
    layer.qkv = Linear(from.qkv, to.qkv);
    layer.attention = Linear(from.attention, to.attention);
    layer.up = Linear(from.up, to.up);
    layer.down = Linear(from.down, to.down);
    return layer;
  }

  NormWeights Norm(const NormTensors& from, const NormTensors& to) {
    NormWeights norm;
    norm.weight = Keep(*gather_.Vector(from.weight), to.weight);
    if (!from.bias.empty()) {
      norm.bias = Keep(*gather_.Vector(from.bias), to.bias);
    }
    return norm;
  }

  LinearWeights Linear(const LinearTensors& from, const LinearTensors& to) {
    const absl::StatusOr<GatheredMatrix> gathered = gather_.Matrix(from.weight);
    CHECK_OK(gathered.status());
    const int64_t outputs = gathered->view.shape.dim(0);
    const int64_t inputs = gathered->view.shape.dim(1);
    LinearWeights linear;
    linear.matrix = Round(RowsOf(gathered->view), outputs, inputs, options_);
    std::vector<float> values(static_cast<size_t>(outputs * inputs));
    for (int64_t n = 0; n < outputs; ++n) {
      DequantizeRow(
          linear.matrix, n,
          absl::MakeSpan(values).subspan(static_cast<size_t>(n * inputs),
                                         static_cast<size_t>(inputs)));
    }
    tensors_->Add(to.weight[0].tensor, {outputs, inputs}, std::move(values));
    if (!from.bias.empty()) {
      linear.bias = Keep(*gather_.Bias(from.bias), to.bias[0].tensor);
    }
    return linear;
  }

  Array<float> Keep(Array<float> values, const std::string& name) {
    tensors_->Add(name, {static_cast<int64_t>(values.size())},
                  std::vector<float>(values.begin(), values.end()));
    return values;
  }

  const DecoderConfig& config_;
  const DecoderTensors& names_;
  DecoderTensors packed_names_;
  const RoundingOptions options_;
  MatrixGather gather_;
  std::shared_ptr<MemoryTensors> tensors_ = std::make_shared<MemoryTensors>();
};

// The packed matrices by their names in the file.
std::vector<std::pair<std::string, const PackedMatrix*>> MatricesOf(
    const QuantizedModel& model) {
  const DecoderTensors& names = model.dequantized.names;
  std::vector<std::pair<std::string, const PackedMatrix*>> result;
  const auto add = [&](const LinearTensors& name, const LinearWeights& linear) {
    result.emplace_back(name.weight[0].tensor, &linear.matrix);
  };
  for (size_t i = 0; i < names.layers.size(); ++i) {
    add(names.layers[i].qkv, model.weights.layers[i].qkv);
    add(names.layers[i].attention, model.weights.layers[i].attention);
    add(names.layers[i].up, model.weights.layers[i].up);
    add(names.layers[i].down, model.weights.layers[i].down);
  }
  add(names.head, model.weights.head);
  return result;
}

}  // namespace

QuantizedModel RoundCheckpoint(const Checkpoint& checkpoint,
                               const RoundingOptions& options,
                               ThreadPool& pool) {
  return Rounder(checkpoint, options, pool).Run();
}

void WritePackedModel(const std::string& path, const QuantizedModel& model,
                      absl::Span<const EmbeddedFile> files) {
  std::vector<PackedTensorPlan> plan;
  std::vector<absl::Span<const std::byte>> data;
  for (const auto& [name, matrix] : MatricesOf(model)) {
    plan.push_back({name, matrix->layout()});
    data.push_back(absl::MakeConstSpan(matrix->data(), matrix->bytes()));
  }
  for (const std::string& name : model.dequantized.tensors->names()) {
    const TensorView view = *model.dequantized.tensors->Find(name);
    const bool packed = name != "embedding" && view.shape.rank() == 2;
    if (packed) continue;
    plan.push_back({name, PlainTensor{view.dtype, view.shape}});
    data.push_back(absl::MakeConstSpan(view.data, view.bytes));
  }
  PackedManifest manifest;
  ToManifest(model.weights.config, manifest.mutable_config());
  absl::StatusOr<PackedFileWriter> writer =
      PackedFileWriter::Create(path, std::move(manifest), plan, files);
  CHECK_OK(writer.status());
  for (const absl::Span<const std::byte> bytes : data) {
    CHECK_OK(writer->Append(bytes));
  }
  CHECK_OK(writer->Commit());
}

void PackModel(const std::string& path, const std::string& packed_path,
               absl::Span<const std::string> files) {
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(path);
  CHECK_OK(checkpoint.status());
  std::vector<EmbeddedFile> embedded;
  for (const std::string& name : files) {
    std::ifstream file(path + "/" + name, std::ios::binary);
    CHECK(file.good()) << path << "/" << name;
    embedded.push_back(
        {name, std::string(std::istreambuf_iterator<char>(file), {})});
  }
  ThreadPool pool(1);
  WritePackedModel(
      packed_path,
      RoundCheckpoint(*checkpoint, {/*bits=*/4, /*group_size=*/32}, pool),
      embedded);
}

}  // namespace nibble::testing
