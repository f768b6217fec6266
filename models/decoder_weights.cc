#include "models/decoder_weights.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/coded_gather.h"
#include "models/decoder_config.h"
#include "models/matrix_gather.h"
#include "tensor/buffer.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Matrices of LoadWeights: four per layer and the head.
int64_t MatrixCount(const DecoderTensors& names) {
  return 4 * static_cast<int64_t>(names.layers.size()) + 1;
}

Array<int32_t> Copy(absl::Span<const int32_t> values) {
  Array<int32_t> copy(values.size());
  absl::c_copy(values, copy.begin());
  return copy;
}

// Whether each index stands there once.
bool IsPermutation(absl::Span<const int32_t> order) {
  std::vector<bool> seen(order.size(), false);
  for (const int32_t index : order) {
    if (index < 0 || static_cast<size_t>(index) >= order.size() ||
        seen[static_cast<size_t>(index)]) {
      return false;
    }
    seen[static_cast<size_t>(index)] = true;
  }
  return true;
}

// Reads the parts of a decoder one by one; the first problem is kept.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, std::optional<WeightFormat> format,
         const LoadProgress& progress, ThreadPool& pool)
      : tensors_(*checkpoint.tensors),
        bf16_(tensors_, pool, MatrixGather::Range::kBF16),
        f32_(tensors_, pool),
        packed_(checkpoint.packed.get()),
        format_(format),
        progress_(progress),
        pool_(pool),
        total_(MatrixCount(checkpoint.names)) {}

  // The first problem; what is read after it is empty.
  const absl::Status& status() const { return status_; }

  NormWeights Norm(const NormTensors& names) {
    NormWeights norm;
    if (!status_.ok()) return norm;
    norm.weight = Keep(f32_.Vector(names.weight));
    norm.bias = Keep(f32_.Vector(names.bias));
    return norm;
  }

  LinearWeights Linear(const LinearTensors& names) {
    LinearWeights linear;
    if (!status_.ok()) return linear;
    Keep(Matrix(names, linear));
    linear.bias = Keep(f32_.Bias(names.bias));
    ++done_;
    if (progress_ && status_.ok()) progress_(done_, total_);
    return linear;
  }

  void Embedding(const std::string& name, DecoderWeights& weights) {
    if (name.empty()) return;
    if (packed_ != nullptr) {
      // Checked when the file was written, and reading all of it would take
      // longer than everything else here.
      weights.embedding = Keep(packed_->Find(name));
      return;
    }
    GatheredMatrix gathered =
        Keep(f32_.Matrix({{name, 0, weights.config.vocabulary}}));
    weights.embedding = gathered.view;
    weights.embedding_memory = std::move(gathered.memory);
  }

 private:
  absl::Status Matrix(const LinearTensors& names, LinearWeights& linear) {
    if (packed_ != nullptr) return Map(names, linear);
    if (format_) return Pack(names, *format_, linear);
    const absl::StatusOr<StoredMatrix> stored =
        AsStored(tensors_, names.weight, pool_);
    if (!stored.ok()) return stored.status();
    if (!stored->codes) return Pack(names, stored->layout.format, linear);
    return PackCodes(*stored->codes, stored->layout, linear);
  }

  absl::Status Map(const LinearTensors& names, LinearWeights& linear) {
    const absl::StatusOr<PackedTensor> stored =
        packed_->FindPacked(names.weight[0].tensor);
    if (!stored.ok()) return stored.status();
    linear.matrix = PackedMatrix::View(stored->layout, stored->data);
    if (!packed_->Contains(names.input_order)) return absl::OkStatus();
    const absl::StatusOr<TensorView> order = packed_->Find(names.input_order);
    if (!order.ok()) return order.status();
    linear.input_order = Copy(order->As<int32_t>());
    if (IsPermutation(linear.input_order.span())) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(packed_->path(), ": tensor ", names.input_order,
                     ": is no permutation of the inputs; the file is damaged"));
  }

  absl::Status PackCodes(const CodedGather& codes, const PackedLayout& layout,
                         LinearWeights& linear) {
    AlignedBuffer memory(static_cast<size_t>(layout.bytes()));
    codes.Pack(layout, 0, layout.outputs, pool_, memory.data());
    codes.Release();
    linear.matrix = PackedMatrix::Own(layout, std::move(memory));
    linear.input_order = Copy(codes.input_order());
    return absl::OkStatus();
  }

  absl::Status Pack(const LinearTensors& names, WeightFormat format,
                    LinearWeights& linear) {
    MatrixGather& gather = format == WeightFormat::kBF16 ? bf16_ : f32_;
    const absl::StatusOr<GatheredMatrix> gathered = gather.Matrix(names.weight);
    if (!gathered.ok()) return gathered.status();
    absl::StatusOr<PackedMatrix> packed =
        PackMatrix(gathered->view, format, pool_);
    if (!packed.ok()) {
      return gather.Error(names.weight[0].tensor, packed.status());
    }
    linear.matrix = *std::move(packed);
    return absl::OkStatus();
  }

  void Keep(const absl::Status& status) { status_.Update(status); }

  template <class T>
  T Keep(absl::StatusOr<T> value) {
    if (value.ok()) return *std::move(value);
    if (status_.ok()) status_ = value.status();
    return T();
  }

  const TensorSource& tensors_;
  MatrixGather bf16_;               // for matrices of that format
  MatrixGather f32_;                // for everything else
  const PackedFile* const packed_;  // null for other files
  const std::optional<WeightFormat> format_;
  const LoadProgress& progress_;
  ThreadPool& pool_;
  const int64_t total_;
  int64_t done_ = 0;
  absl::Status status_;
};

struct MatrixSize {
  int64_t outputs;
  int64_t inputs;
};

// Compares weights with what a configuration asks for.
class Checker {
 public:
  explicit Checker(const DecoderConfig& config) : config_(config) {}

  const absl::Status& status() const { return status_; }

  void Norm(const std::string& name, const NormWeights& norm, bool wanted) {
    const bool bias = wanted && config_.norm == NormKind::kLayer;
    Size(name, "weight", norm.weight.size(), wanted ? config_.hidden : 0);
    Size(name, "bias", norm.bias.size(), bias ? config_.hidden : 0);
  }

  void Linear(const std::string& name, const LinearWeights& linear,
              MatrixSize size, bool bias) {
    const PackedMatrix& matrix = linear.matrix;
    if (status_.ok() &&
        (matrix.data() == nullptr || matrix.outputs() != size.outputs ||
         matrix.inputs() != size.inputs)) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat(name, ": the matrix is [", matrix.outputs(), ", ",
                       matrix.inputs(), "]; the configuration asks for [",
                       size.outputs, ", ", size.inputs, "]"));
    }
    Size(name, "bias", linear.bias.size(), bias ? size.outputs : 0);
    if (linear.input_order.empty()) return;
    Size(name, "input order", linear.input_order.size(), size.inputs);
    if (!status_.ok() || IsPermutation(linear.input_order.span())) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat(name, ": the input order is no permutation"));
  }

  // Without an embedding, a token's row is a row of the head.
  void Head(const DecoderWeights& weights) {
    Linear("head", weights.head, {config_.vocabulary, config_.hidden},
           config_.head_bias);
    if (!status_.ok() || weights.embedding.has_value() ||
        weights.head.input_order.empty()) {
      return;
    }
    status_ = absl::InvalidArgumentError(
        "head: has an input order, so that it cannot be the embedding too");
  }

  void Embedding(const std::optional<TensorView>& embedding) {
    const Shape shape = {config_.vocabulary, config_.hidden};
    if (!status_.ok() || !embedding) return;
    if (embedding->shape == shape && CanConvertToF32(embedding->dtype)) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat("embedding: the shape is ", embedding->shape.ToString(),
                     "; the configuration asks for ", shape.ToString()));
  }

 private:
  void Size(const std::string& name, const char* part, size_t size,
            int64_t wanted) {
    if (!status_.ok() || size == static_cast<size_t>(wanted)) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat(name, ": the ", part, " has ", size,
                     " elements; the configuration asks for ", wanted));
  }

  const DecoderConfig& config_;
  absl::Status status_;
};

void CheckLayer(const DecoderConfig& config, const std::string& name,
                const LayerWeights& layer, Checker& checker) {
  checker.Norm(name + "attention_norm", layer.attention_norm, true);
  checker.Norm(name + "mlp_norm", layer.mlp_norm,
               config.norm_layout == NormLayout::kSeparate);
  checker.Linear(name + "qkv", layer.qkv, {config.qkv_dim(), config.hidden},
                 config.qkv_bias);
  checker.Linear(name + "attention", layer.attention,
                 {config.hidden, config.q_dim()}, config.output_bias);
  checker.Linear(name + "up", layer.up,
                 {config.gated ? 2 * config.ffn : config.ffn, config.hidden},
                 config.mlp_bias);
  checker.Linear(name + "down", layer.down, {config.hidden, config.ffn},
                 config.mlp_bias);
}

// Whether the format of any matrix is one of those asked for.
bool AnyMatrix(const DecoderWeights& weights,
               absl::FunctionRef<bool(WeightFormat)> wanted) {
  const auto is = [&](const LinearWeights& linear) {
    return wanted(linear.matrix.format());
  };
  return is(weights.head) ||
         absl::c_any_of(weights.layers, [&](const LayerWeights& layer) {
           return is(layer.qkv) || is(layer.attention) || is(layer.up) ||
                  is(layer.down);
         });
}

}  // namespace

size_t DecoderWeights::matrix_bytes() const {
  size_t bytes = head.matrix.bytes();
  for (const LayerWeights& layer : layers) {
    bytes += layer.qkv.matrix.bytes() + layer.attention.matrix.bytes() +
             layer.up.matrix.bytes() + layer.down.matrix.bytes();
  }
  return bytes;
}

bool DecoderWeights::has_integer_matrix() const {
  return AnyMatrix(*this, IsInteger);
}

bool DecoderWeights::all_f32() const {
  return !AnyMatrix(
      *this, [](WeightFormat format) { return format != WeightFormat::kF32; });
}

absl::Status CheckWeights(const DecoderWeights& weights) {
  const DecoderConfig& config = weights.config;
  if (weights.layers.size() != static_cast<size_t>(config.layers)) {
    return absl::InvalidArgumentError(absl::StrCat(weights.layers.size(),
                                                   " layers of weights; the "
                                                   "configuration asks for ",
                                                   config.layers));
  }
  Checker checker(config);
  checker.Embedding(weights.embedding);
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    CheckLayer(config, absl::StrCat("layers.", i, "."), weights.layers[i],
               checker);
  }
  checker.Norm("final_norm", weights.final_norm, true);
  checker.Head(weights);
  return checker.status();
}

absl::StatusOr<DecoderWeights> LoadWeights(const Checkpoint& checkpoint,
                                           std::optional<WeightFormat> format,
                                           const LoadProgress& progress,
                                           ThreadPool& pool) {
  const DecoderTensors& names = checkpoint.names;
  DecoderWeights weights;
  weights.config = checkpoint.config;
  weights.source = checkpoint.tensors;
  Loader loader(checkpoint, format, progress, pool);
  loader.Embedding(names.embedding, weights);
  for (const LayerTensors& layer_names : names.layers) {
    LayerWeights layer;
    layer.attention_norm = loader.Norm(layer_names.attention_norm);
    layer.qkv = loader.Linear(layer_names.qkv);
    layer.attention = loader.Linear(layer_names.attention);
    layer.mlp_norm = loader.Norm(layer_names.mlp_norm);
    layer.up = loader.Linear(layer_names.up);
    layer.down = loader.Linear(layer_names.down);
    if (!loader.status().ok()) return loader.status();
    weights.layers.push_back(std::move(layer));
  }
  weights.final_norm = loader.Norm(names.final_norm);
  weights.head = loader.Linear(names.head);
  if (!loader.status().ok()) return loader.status();
  const absl::Status unchanged = checkpoint.tensors->CheckUnchanged();
  if (!unchanged.ok()) return unchanged;
  return weights;
}

}  // namespace nibble
