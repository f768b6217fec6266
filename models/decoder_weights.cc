#include "models/decoder_weights.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/matrix_gather.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Matrices of LoadWeights: four per layer and the head.
int64_t MatrixCount(const DecoderTensors& names) {
  return 4 * static_cast<int64_t>(names.layers.size()) + 1;
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, DType dtype,
         const LoadProgress& progress, ThreadPool& pool)
      : gather_(*checkpoint.tensors, pool,
                dtype == DType::kBF16 ? MatrixGather::Range::kBF16
                                      : MatrixGather::Range::kF32),
        dtype_(dtype),
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
    linear.matrix = Keep(Pack(names));
    linear.bias = Keep(gather_.Bias(names.bias));
    ++done_;
    if (progress_ && status_.ok()) progress_(done_, total_);
    return linear;
  }

  TensorView Embedding(const std::string& name) {
    return Keep(gather_.Stored(name));
  }

 private:
  absl::StatusOr<PackedMatrix> Pack(const LinearTensors& names) {
    const absl::StatusOr<GatheredMatrix> gathered =
        gather_.Matrix(names.weight);
    if (!gathered.ok()) return gathered.status();
    absl::StatusOr<PackedMatrix> packed =
        PackMatrix(gathered->view, dtype_, pool_);
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
  const DType dtype_;
  const LoadProgress& progress_;
  ThreadPool& pool_;
  const int64_t total_;
  int64_t done_ = 0;
  absl::Status status_;
};

}  // namespace

size_t DecoderWeights::matrix_bytes() const {
  size_t bytes = head.matrix.bytes();
  for (const LayerWeights& layer : layers) {
    bytes += layer.qkv.matrix.bytes() + layer.attention.matrix.bytes() +
             layer.up.matrix.bytes() + layer.down.matrix.bytes();
  }
  return bytes;
}

absl::StatusOr<DecoderWeights> LoadWeights(const Checkpoint& checkpoint,
                                           DType dtype,
                                           const LoadProgress& progress,
                                           ThreadPool& pool) {
  const DecoderTensors& names = checkpoint.names;
  DecoderWeights weights;
  weights.config = checkpoint.config;
  weights.source = checkpoint.tensors;
  Loader loader(checkpoint, dtype, progress, pool);
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
