#include "testing/random_checkpoint.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble::testing {
namespace {

class Writer {
 public:
  Writer(const DecoderConfig& config, uint64_t seed)
      : config_(config), random_(seed) {}

  NormTensors Norm(const std::string& name) {
    NormTensors norm;
    norm.weight = name + ".weight";
    tensors_->Add(norm.weight, {config_.hidden},
                  random_.Uniform(config_.hidden, 0.5f, 1.5f));
    if (config_.norm == NormKind::kLayer) {
      norm.bias = name + ".bias";
      tensors_->Add(norm.bias, {config_.hidden},
                    random_.Normal(config_.hidden, 0.3f));
    }
    return norm;
  }

  // One tensor, and one more for the bias.
  LinearTensors Linear(const std::string& name, int64_t outputs, int64_t inputs,
                       bool bias) {
    LinearTensors linear;
    linear.weight = {{name + ".weight", 0, outputs}};
    tensors_->Add(name + ".weight", {outputs, inputs},
                  Weights(outputs * inputs, 0.2f));
    if (bias) {
      linear.bias = {{name + ".bias", 0, outputs}};
      tensors_->Add(name + ".bias", {outputs}, random_.Normal(outputs, 0.3f));
    }
    return linear;
  }

  // Stored as [kv_heads][q of the group, k, v][head_dim].
  LinearTensors InterleavedQkv(const std::string& name) {
    LinearTensors stored =
        Linear(name, config_.qkv_dim(), config_.hidden, config_.qkv_bias);
    stored.weight = Regroup(stored.weight);
    if (!stored.bias.empty()) stored.bias = Regroup(stored.bias);
    return stored;
  }

  LayerTensors Layer(int64_t layer) {
    const std::string name = absl::StrCat("layer", layer, ".");
    LayerTensors names;
    names.attention_norm = Norm(name + "attention_norm");
    if (config_.norm_layout == NormLayout::kSeparate) {
      names.mlp_norm = Norm(name + "mlp_norm");
    }
    names.qkv = InterleavedQkv(name + "qkv");
    names.attention = Linear(name + "attention", config_.hidden,
                             config_.q_dim(), config_.output_bias);
    names.up =
        Linear(name + "up", config_.gated ? 2 * config_.ffn : config_.ffn,
               config_.hidden, config_.mlp_bias);
    names.down =
        Linear(name + "down", config_.hidden, config_.ffn, config_.mlp_bias);
    return names;
  }

  Checkpoint Write() {
    Checkpoint checkpoint;
    checkpoint.path = "memory";
    checkpoint.format = "memory";
    checkpoint.config = config_;
    DecoderTensors& names = checkpoint.names;
    names.embedding = "embedding";
    tensors_->Add("embedding", {config_.vocabulary, config_.hidden},
                  Weights(config_.vocabulary * config_.hidden, 1.0f));
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      names.layers.push_back(Layer(layer));
    }
    names.final_norm = Norm("final_norm");
    if (config_.tied_head) {
      names.head.weight = {{"embedding", 0, config_.vocabulary}};
    } else {
      names.head =
          Linear("head", config_.vocabulary, config_.hidden, config_.head_bias);
    }
    checkpoint.tensors = std::move(tensors_);
    return checkpoint;
  }

 private:
  // Large matrices (for benchmarks) repeat their first values, since drawing
  // each would take longer than what is measured.
  std::vector<float> Weights(int64_t count, float deviation) {
    constexpr int64_t kMaxDrawn = (int64_t{1} << 18) - 1;  // odd: no alignment
    std::vector<float> values =
        random_.Normal(std::min(count, kMaxDrawn), deviation);
    const size_t drawn = values.size();
    values.resize(static_cast<size_t>(count));
    for (size_t i = drawn; i < values.size(); ++i)
      values[i] = values[i - drawn];
    return values;
  }

  // All q, all k, all v of one stored tensor.
  std::vector<RowRange> Regroup(const std::vector<RowRange>& whole) const {
    const std::string& tensor = whole[0].tensor;
    const int64_t queries = config_.heads / config_.kv_heads;
    const int64_t group = (queries + 2) * config_.head_dim;
    std::vector<RowRange> ranges;
    const auto add = [&](int64_t first_head, int64_t heads) {
      for (int64_t g = 0; g < config_.kv_heads; ++g) {
        ranges.push_back({tensor, g * group + first_head * config_.head_dim,
                          heads * config_.head_dim});
      }
    };
    add(0, queries);
    add(queries, 1);
    add(queries + 1, 1);
    return ranges;
  }

  const DecoderConfig& config_;
  RandomValues random_;
  std::shared_ptr<MemoryTensors> tensors_ = std::make_shared<MemoryTensors>();
};

}  // namespace

void MemoryTensors::Add(const std::string& name, const Shape& shape,
                        std::vector<float> values) {
  values_.push_back(std::move(values));
  const bool added =
      views_
          .emplace(name, MakeTensorView<float>(
                             absl::MakeConstSpan(values_.back()), shape))
          .second;
  CHECK(added) << name;
  names_.insert(std::lower_bound(names_.begin(), names_.end(), name), name);
}

bool MemoryTensors::Contains(absl::string_view name) const {
  return views_.find(name) != views_.end();
}

absl::StatusOr<TensorView> MemoryTensors::Find(absl::string_view name) const {
  const auto found = views_.find(name);
  if (found == views_.end()) {
    return absl::NotFoundError(
        absl::StrCat(path_, ": there is no tensor ", name));
  }
  return found->second;
}

DecoderConfig TinyDecoderConfig() {
  DecoderConfig config;
  config.family = "test";
  config.vocabulary = 97;
  config.hidden = 32;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.ffn = 48;
  config.max_positions = 64;
  config.rope.style = RopeStyle::kHalf;
  config.rope.rotary_dims = 8;
  config.rope.max_positions = 64;
  config.windows = {0, 0};
  return config;
}

Checkpoint RandomCheckpoint(const DecoderConfig& config, uint64_t seed) {
  Checkpoint checkpoint = Writer(config, seed).Write();
  CHECK(ValidateDecoderConfig(config, "memory").ok());
  CHECK(CheckTensors(checkpoint).ok()) << CheckTensors(checkpoint);
  return checkpoint;
}

}  // namespace nibble::testing
