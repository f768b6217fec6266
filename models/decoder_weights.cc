#include "models/decoder_weights.h"

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Memory for a matrix put together from several ranges, and a view of it.
struct GatheredMatrix {
  AlignedBuffer memory;
  TensorView view;
};

// Matrices of LoadWeights: four per layer and the head.
int64_t MatrixCount(const DecoderTensors& names) {
  return 4 * static_cast<int64_t>(names.layers.size()) + 1;
}

// Halfway from bf16's largest value to the next power of two: from here on
// rounding to nearest gives infinity.
constexpr float kBF16Overflow = 0x1.FFp127f;

bool RoundsToFiniteBF16(absl::Span<const float> values) {
  return absl::c_all_of(
      values, [](float value) { return std::abs(value) < kBF16Overflow; });
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, DType dtype,
         const LoadProgress& progress, ThreadPool& pool)
      : tensors_(*checkpoint.tensors),
        dtype_(dtype),
        progress_(progress),
        pool_(pool),
        total_(MatrixCount(checkpoint.names)) {}

  const absl::Status& status() const { return status_; }

  NormWeights Norm(const NormTensors& names) {
    NormWeights norm;
    norm.weight = Vector(names.weight);
    norm.bias = Vector(names.bias);
    return norm;
  }

  LinearWeights Linear(const LinearTensors& names) {
    LinearWeights linear;
    if (!status_.ok()) return linear;
    absl::StatusOr<GatheredMatrix> gathered = Gather(names.weight);
    if (gathered.ok()) {
      absl::StatusOr<PackedMatrix> packed =
          PackMatrix(gathered->view, dtype_, pool_);
      if (packed.ok()) {
        linear.matrix = *std::move(packed);
      } else {
        Fail(names.weight[0].tensor, packed.status());
      }
    } else {
      status_ = gathered.status();
    }
    linear.bias = Bias(names.bias);
    ++done_;
    if (progress_ && status_.ok()) progress_(done_, total_);
    return linear;
  }

  // A stored matrix, all of its values finite, also once they are rounded to
  // what they are held in. A NaN or an infinity, in a value or in the scale of
  // a block, would silently spoil every text.
  absl::StatusOr<TensorView> Matrix(const std::string& name) {
    const absl::StatusOr<TensorView> view = tensors_.Find(name);
    if (!view.ok() || !checked_.insert(name).second) return view;
    // Of what files hold, only f32 reaches beyond bf16's largest value.
    const bool may_round_up =
        dtype_ == DType::kBF16 && view->dtype == DType::kF32;
    std::atomic<bool> finite(true);
    std::atomic<bool> in_range(true);
    pool_.ParallelFor(view->shape.dim(0), [&](int64_t begin, int64_t end, int) {
      Array<float> values(static_cast<size_t>(view->shape.dim(1)));
      for (int64_t row = begin; row < end; ++row) {
        const bool good = ConvertRowToF32(*view, row, values.span()).ok() &&
                          AllFinite(values.span());
        if (!good) finite.store(false, std::memory_order_relaxed);
        if (may_round_up && !RoundsToFiniteBF16(values.span())) {
          in_range.store(false, std::memory_order_relaxed);
        }
      }
    });
    if (finite.load() && in_range.load()) return view;
    Fail(name, finite.load() ? absl::OutOfRangeError(
                                   "holds a value beyond bf16's range; hold "
                                   "the weights in f32")
                             : NotFinite());
    return status_;
  }

 private:
  static absl::Status NotFinite() {
    return absl::InvalidArgumentError(
        "holds a value that is not a finite number; the file is damaged");
  }

  void Fail(const std::string& tensor, const absl::Status& status) {
    if (!status_.ok()) return;
    status_ = absl::Status(
        status.code(), absl::StrCat(tensors_.path(), ": tensor ", tensor, ": ",
                                    status.message()));
  }

  // A tensor of one dimension as floats; an empty name gives an empty array.
  Array<float> Vector(const std::string& name) {
    if (name.empty() || !status_.ok()) return {};
    const absl::StatusOr<TensorView> view = tensors_.Find(name);
    if (!view.ok()) {
      status_ = view.status();
      return {};
    }
    Array<float> values(static_cast<size_t>(view->shape.elements()));
    const absl::Status converted = ConvertToF32(*view, values.span());
    if (!converted.ok()) Fail(name, converted);
    if (!AllFinite(values.span())) Fail(name, NotFinite());
    return values;
  }

  Array<float> Bias(absl::Span<const RowRange> ranges) {
    int64_t outputs = 0;
    for (const RowRange& range : ranges) outputs += range.rows;
    Array<float> bias(static_cast<size_t>(outputs));
    float* next = bias.data();
    for (const RowRange& range : ranges) {
      const Array<float> stored = Vector(range.tensor);
      if (!status_.ok()) return {};
      std::memcpy(next, stored.data() + range.first_row,
                  static_cast<size_t>(range.rows) * sizeof(float));
      next += range.rows;
    }
    return bias;
  }

  // A view of the rows as one matrix: in place when they are a whole tensor,
  // in their stored form when all have one dtype, else as floats.
  absl::StatusOr<GatheredMatrix> Gather(absl::Span<const RowRange> ranges) {
    std::vector<TensorView> views;
    int64_t rows = 0;
    bool same_dtype = true;
    for (const RowRange& range : ranges) {
      absl::StatusOr<TensorView> view = Matrix(range.tensor);
      if (!view.ok()) return view.status();
      views.push_back(*view);
      rows += range.rows;
      same_dtype &= view->dtype == views[0].dtype;
    }
    GatheredMatrix result;
    if (ranges.size() == 1 && rows == views[0].shape.dim(0)) {
      result.view = views[0];
      return result;
    }
    const int64_t inputs = views[0].shape.dim(1);
    const DType dtype = same_dtype ? views[0].dtype : DType::kF32;
    const Shape shape = {rows, inputs};
    const absl::StatusOr<int64_t> bytes = TensorBytes(dtype, shape);
    if (!bytes.ok()) return bytes.status();
    result.memory = AlignedBuffer(static_cast<size_t>(*bytes));
    result.view = TensorView{dtype, shape, result.memory.data(),
                             static_cast<size_t>(*bytes)};
    std::byte* next = result.memory.data();
    for (size_t i = 0; i < ranges.size(); ++i) {
      const absl::StatusOr<std::byte*> end =
          AppendRows(views[i], ranges[i], dtype, next);
      if (!end.ok()) return end.status();
      next = *end;
    }
    return result;
  }

  // Writes the rows as `dtype`, which is theirs or kF32; returns what follows.
  static absl::StatusOr<std::byte*> AppendRows(const TensorView& view,
                                               const RowRange& range,
                                               DType dtype, std::byte* out) {
    if (view.dtype == dtype) {
      const size_t row_bytes =
          view.bytes / static_cast<size_t>(view.shape.dim(0));
      const size_t bytes = row_bytes * static_cast<size_t>(range.rows);
      std::memcpy(out,
                  view.data + row_bytes * static_cast<size_t>(range.first_row),
                  bytes);
      return out + bytes;
    }
    const size_t inputs = static_cast<size_t>(view.shape.dim(1));
    float* values = reinterpret_cast<float*>(out);
    for (int64_t row = 0; row < range.rows; ++row) {
      const absl::Status converted = ConvertRowToF32(
          view, range.first_row + row, absl::MakeSpan(values, inputs));
      if (!converted.ok()) return converted;
      values += inputs;
    }
    return reinterpret_cast<std::byte*>(values);
  }

  const TensorSource& tensors_;
  const DType dtype_;
  const LoadProgress& progress_;
  ThreadPool& pool_;
  const int64_t total_;
  int64_t done_ = 0;
  absl::flat_hash_set<std::string> checked_;  // by Matrix
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
  const absl::StatusOr<TensorView> embedding = loader.Matrix(names.embedding);
  if (!embedding.ok()) return embedding.status();
  weights.embedding = *embedding;
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
