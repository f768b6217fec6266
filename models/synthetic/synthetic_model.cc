#include "models/synthetic/synthetic_model.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/matmul/packed_matrix.h"
#include "models/synthetic/synthetic_matrix.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr char kEmbedding[] = "embedding";

// The embedding, and what keeps its memory.
class EmbeddingTable : public TensorSource {
 public:
  EmbeddingTable(Array<BF16> values, const Shape& shape)
      : values_(std::move(values)),
        view_{DType::kBF16, shape,
              reinterpret_cast<const std::byte*>(values_.data()),
              values_.size() * sizeof(BF16)} {}

  const TensorView& view() const { return view_; }

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override {
    return name == kEmbedding;
  }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    if (Contains(name)) return view_;
    return absl::NotFoundError(absl::StrCat(path_, ": no tensor ", name));
  }

 private:
  const std::string path_ = "random weights";
  const std::vector<std::string> names_ = {kEmbedding};
  const Array<BF16> values_;  // [vocabulary, hidden]
  const TensorView view_;
};

// The packed forms of a model's matrices.
struct Layouts {
  PackedLayout qkv, attention, up, down, head;
};

absl::StatusOr<PackedLayout> LayoutOf(WeightFormat format, int64_t outputs,
                                      int64_t inputs,
                                      const SyntheticOptions& options) {
  if (!IsInteger(format)) return PackedLayout::Create(format, outputs, inputs);
  return PackedLayout::Create(
      format, outputs, inputs, options.group_size,
      options.symmetric || format == WeightFormat::kInt8);
}

absl::StatusOr<Layouts> LayoutsOf(const DecoderConfig& config,
                                  const SyntheticOptions& options) {
  const absl::Status valid = ValidateDecoderConfig(config, "random weights");
  if (!valid.ok()) return valid;
  const int64_t up_outputs = config.gated ? 2 * config.ffn : config.ffn;
  Layouts layouts;
  struct Part {
    PackedLayout* layout;
    WeightFormat format;
    int64_t outputs, inputs;
  };
  const Part parts[] = {
      {&layouts.qkv, options.weights, config.qkv_dim(), config.hidden},
      {&layouts.attention, options.weights, config.hidden, config.q_dim()},
      {&layouts.up, options.weights, up_outputs, config.hidden},
      {&layouts.down, options.weights, config.hidden, config.ffn},
      {&layouts.head, options.head, config.vocabulary, config.hidden},
  };
  for (const Part& part : parts) {
    const absl::StatusOr<PackedLayout> layout =
        LayoutOf(part.format, part.outputs, part.inputs, options);
    if (!layout.ok()) return layout.status();
    *part.layout = *layout;
  }
  return layouts;
}

int64_t MatrixBytes(const DecoderConfig& config, const Layouts& layouts) {
  return config.layers * (layouts.qkv.bytes() + layouts.attention.bytes() +
                          layouts.up.bytes() + layouts.down.bytes()) +
         layouts.head.bytes();
}

// Makes the parts of one model.
class Maker {
 public:
  Maker(const DecoderConfig& config, uint64_t seed, ThreadPool& pool)
      : config_(config), pool_(pool), matrices_(seed) {}

  LinearWeights Linear(const PackedLayout& layout, bool bias) {
    LinearWeights linear;
    linear.matrix = matrices_.Make(layout, pool_);
    if (bias) linear.bias = matrices_.Normal(layout.outputs, 0.1f);
    return linear;
  }

  NormWeights Norm() {
    NormWeights norm;
    norm.weight = Array<float>(static_cast<size_t>(config_.hidden));
    std::fill(norm.weight.begin(), norm.weight.end(), 1.0f);
    if (config_.norm == NormKind::kLayer) {
      norm.bias = matrices_.Normal(config_.hidden, 0.1f);
    }
    return norm;
  }

  LayerWeights Layer(const Layouts& layouts) {
    LayerWeights layer;
    layer.attention_norm = Norm();
    if (config_.norm_layout == NormLayout::kSeparate) layer.mlp_norm = Norm();
    layer.qkv = Linear(layouts.qkv, config_.qkv_bias);
    layer.attention = Linear(layouts.attention, config_.output_bias);
    layer.up = Linear(layouts.up, config_.mlp_bias);
    layer.down = Linear(layouts.down, config_.mlp_bias);
    return layer;
  }

  std::shared_ptr<const EmbeddingTable> Embedding() {
    // Rows of a few values in different places; any will do.
    constexpr int64_t kDrawn = 1 << 16;
    const Array<float> drawn = matrices_.Normal(kDrawn, 1.0f);
    const int64_t hidden = config_.hidden;
    Array<BF16> values(static_cast<size_t>(config_.vocabulary * hidden));
    pool_.ParallelFor(config_.vocabulary, [&](int64_t begin, int64_t end,
                                              int /*thread*/) {
      for (int64_t i = begin * hidden; i < end * hidden; ++i) {
        const int64_t at = (i + i / hidden * 7919) % kDrawn;
        values[static_cast<size_t>(i)] = ToBF16(drawn[static_cast<size_t>(at)]);
      }
    });
    return std::make_shared<const EmbeddingTable>(
        std::move(values), Shape{config_.vocabulary, hidden});
  }

 private:
  const DecoderConfig& config_;
  ThreadPool& pool_;
  SyntheticMatrices matrices_;
};

}  // namespace

absl::StatusOr<int64_t> SyntheticMatrixBytes(const DecoderConfig& config,
                                             const SyntheticOptions& options) {
  const absl::StatusOr<Layouts> layouts = LayoutsOf(config, options);
  if (!layouts.ok()) return layouts.status();
  return MatrixBytes(config, *layouts);
}

absl::StatusOr<int64_t> SyntheticBytes(const DecoderConfig& config,
                                       const SyntheticOptions& options) {
  absl::StatusOr<int64_t> bytes = SyntheticMatrixBytes(config, options);
  if (!bytes.ok() || config.tied_head) return bytes;
  return *bytes +
         config.vocabulary * config.hidden * static_cast<int64_t>(sizeof(BF16));
}

absl::StatusOr<DecoderWeights> MakeSyntheticWeights(
    const DecoderConfig& config, const SyntheticOptions& options,
    ThreadPool& pool) {
  const absl::StatusOr<Layouts> layouts = LayoutsOf(config, options);
  if (!layouts.ok()) return layouts.status();
  Maker maker(config, options.seed, pool);
  DecoderWeights weights;
  weights.config = config;
  if (!config.tied_head) {
    const std::shared_ptr<const EmbeddingTable> table = maker.Embedding();
    weights.embedding = table->view();
    weights.source = table;
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    weights.layers.push_back(maker.Layer(*layouts));
  }
  weights.final_norm = maker.Norm();
  weights.head = maker.Linear(layouts->head, config.head_bias);
  return weights;
}

}  // namespace nibble
