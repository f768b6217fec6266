#include "models/decoder_weights.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/matrix_gather.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Matrices of LoadWeights: four per layer and the head.
int64_t MatrixCount(const DecoderTensors& names) {
  return 4 * static_cast<int64_t>(names.layers.size()) + 1;
}

// Reads the parts of a decoder one by one; the first problem is kept.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, WeightFormat format,
         const LoadProgress& progress, ThreadPool& pool)
      : gather_(*checkpoint.tensors, pool,
                format == WeightFormat::kBF16 ? MatrixGather::Range::kBF16
                                              : MatrixGather::Range::kF32),
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
    norm.weight = Keep(gather_.Vector(names.weight));
    norm.bias = Keep(gather_.Vector(names.bias));
    return norm;
  }

  LinearWeights Linear(const LinearTensors& names) {
    LinearWeights linear;
    if (!status_.ok()) return linear;
    linear.matrix = Keep(Matrix(names));
    linear.bias = Keep(gather_.Bias(names.bias));
    ++done_;
    if (progress_ && status_.ok()) progress_(done_, total_);
    return linear;
  }

  std::optional<TensorView> Embedding(const std::string& name) {
    if (name.empty()) return std::nullopt;
    // A packed file's was checked when the file was written, and reading all of
    // it would take longer than everything else here.
    return packed_ != nullptr ? Keep(packed_->Find(name))
                              : Keep(gather_.Stored(name));
  }

 private:
  absl::StatusOr<PackedMatrix> Matrix(const LinearTensors& names) {
    if (packed_ == nullptr) return Pack(names);
    const absl::StatusOr<PackedTensor> stored =
        packed_->FindPacked(names.weight[0].tensor);
    if (!stored.ok()) return stored.status();
    return PackedMatrix::View(stored->layout, stored->data);
  }

  absl::StatusOr<PackedMatrix> Pack(const LinearTensors& names) {
    const absl::StatusOr<GatheredMatrix> gathered =
        gather_.Matrix(names.weight);
    if (!gathered.ok()) return gathered.status();
    absl::StatusOr<PackedMatrix> packed =
        PackMatrix(gathered->view, format_, pool_);
    if (packed.ok()) return packed;
    return gather_.Error(names.weight[0].tensor, packed.status());
  }

  template <class T>
  T Keep(absl::StatusOr<T> value) {
    if (value.ok()) return *std::move(value);
    if (status_.ok()) status_ = value.status();
    return T();
  }

  MatrixGather gather_;
  const PackedFile* const packed_;  // null for a float checkpoint
  const WeightFormat format_;
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
  const auto integer = [](const LinearWeights& linear) {
    return IsInteger(linear.matrix.format());
  };
  return integer(head) || absl::c_any_of(layers, [&](const LayerWeights& l) {
           return integer(l.qkv) || integer(l.attention) || integer(l.up) ||
                  integer(l.down);
         });
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
  checker.Linear("head", weights.head, {config.vocabulary, config.hidden},
                 config.head_bias);
  return checker.status();
}

absl::StatusOr<DecoderWeights> LoadWeights(const Checkpoint& checkpoint,
                                           WeightFormat format,
                                           const LoadProgress& progress,
                                           ThreadPool& pool) {
  const DecoderTensors& names = checkpoint.names;
  DecoderWeights weights;
  weights.config = checkpoint.config;
  weights.source = checkpoint.tensors;
  Loader loader(checkpoint, format, progress, pool);
  weights.embedding = loader.Embedding(names.embedding);
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
