// What AWQ's tests share: a block with inputs made up, and what holds of every
// result.
#ifndef NIBBLE_QUANTIZATION_AWQ_FAKE_BLOCK_H_
#define NIBBLE_QUANTIZATION_AWQ_FAKE_BLOCK_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/decoder_config.h"
#include "quantization/awq/awq.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/rounding/grid.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {

inline constexpr int64_t kTokens = 256;

inline size_t Index(LinearId id) { return static_cast<size_t>(id); }

// A block with inputs of its linears, made up: AWQ asks no more.
class FakeBlock {
 public:
  explicit FakeBlock(const DecoderConfig& config, uint64_t seed = 1)
      : config_(config), random_(seed) {
    Linear(LinearId::kQkv, config.qkv_dim(), config.hidden, config.qkv_bias);
    Linear(LinearId::kAttention, config.hidden, config.q_dim(),
           config.output_bias);
    Linear(LinearId::kUp, config.gated ? 2 * config.ffn : config.ffn,
           config.hidden, config.mlp_bias);
    Linear(LinearId::kDown, config.hidden, config.ffn, config.mlp_bias);
    Norm(weights_.attention_norm);
    if (config.norm_layout == NormLayout::kSeparate) Norm(weights_.mlp_norm);
    for (const LinearId id : kAllLinears) Inputs(id);
  }

  // What makes a model hard: s into the columns, 1 / s into the inputs.
  void ScaleChannels() {
    for (const FoldablePair& pair : FoldablePairs(config_)) {
      std::vector<float> scales = random_.Normal(pair.free_scales, 0.5f);
      for (float& s : scales) s = std::exp(s);
      Fold(pair, scales, config_, weights_);
      for (const LinearId id : pair.consumers) {
        for (int64_t j = 0; j < pair.inputs; ++j) {
          DivideInput(id, j,
                      scales[static_cast<size_t>(
                          pair.scale_of_input[static_cast<size_t>(j)])]);
        }
      }
    }
  }

  // Input `j` of a linear becomes x_j / by.
  void DivideInput(LinearId id, int64_t j, float by) {
    for (int64_t t = 0; t < kTokens; ++t) {
      x_[Index(id)][static_cast<size_t>(t * weights_[id].inputs + j)] /= by;
    }
  }
  void SetInput(LinearId id, int64_t j, float value) {
    for (int64_t t = 0; t < kTokens; ++t) {
      x_[Index(id)][static_cast<size_t>(t * weights_[id].inputs + j)] = value;
    }
  }

  // Valid until the next call.
  BlockStatistics Statistics() {
    BlockStatistics statistics;
    for (const LinearId id : kAllLinears) {
      const int64_t n = weights_[id].inputs;
      std::vector<float>& gram = gram_[Index(id)];
      std::vector<double>& mean = mean_absolute_[Index(id)];
      gram.assign(static_cast<size_t>(n * n), 0.0f);
      mean.assign(static_cast<size_t>(n), 0.0);
      const std::vector<float>& x = x_[Index(id)];
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (int64_t t = 0; t < kTokens; ++t) {
            sum += double{x[static_cast<size_t>(t * n + i)]} *
                   x[static_cast<size_t>(t * n + j)];
          }
          gram[static_cast<size_t>(i * n + j)] =
              static_cast<float>(sum / kTokens);
        }
        for (int64_t t = 0; t < kTokens; ++t) {
          mean[static_cast<size_t>(i)] +=
              std::abs(x[static_cast<size_t>(t * n + i)]) / double{kTokens};
        }
      }
      statistics[Index(id)] = {MatrixView<const float>(gram.data(), n, n),
                               mean};
    }
    return statistics;
  }

  const DecoderConfig& config() const { return config_; }
  BlockWeights<float>& weights() { return weights_; }

 private:
  void Linear(LinearId id, int64_t outputs, int64_t inputs, bool bias) {
    BlockLinear<float>& linear = weights_[id];
    linear.outputs = outputs;
    linear.inputs = inputs;
    Fill(random_.Normal(outputs * inputs, 0.1f), linear.weight);
    if (bias) Fill(random_.Normal(outputs, 0.1f), linear.bias);
  }

  void Norm(BlockNorm<float>& norm) {
    Fill(random_.Uniform(config_.hidden, 0.5f, 1.5f), norm.weight);
    if (config_.norm == NormKind::kLayer) {
      Fill(random_.Normal(config_.hidden, 0.1f), norm.bias);
    }
  }

  // Some channels larger than others, and correlated with their neighbours.
  void Inputs(LinearId id) {
    const int64_t n = weights_[id].inputs;
    std::vector<float> x = random_.Normal(kTokens * n, 1.0f);
    const std::vector<float> sizes = random_.Normal(n, 0.5f);
    for (int64_t t = 0; t < kTokens; ++t) {
      float* row = x.data() + t * n;
      for (int64_t j = n - 1; j > 0; --j) row[j] += 0.5f * row[j - 1];
      for (int64_t j = 0; j < n; ++j) {
        row[j] *= std::exp(sizes[static_cast<size_t>(j)]);
      }
    }
    x_[Index(id)] = std::move(x);
  }

  static void Fill(const std::vector<float>& values, Array<float>& out) {
    out = Array<float>(values.size());
    std::copy(values.begin(), values.end(), out.begin());
  }

  const DecoderConfig config_;
  testing::RandomValues random_;
  BlockWeights<float> weights_;
  std::array<std::vector<float>, kLinearCount> x_;     // [tokens, inputs]
  std::array<std::vector<float>, kLinearCount> gram_;  // [inputs, inputs]
  std::array<std::vector<double>, kLinearCount> mean_absolute_;  // [inputs]
};

// Llama's graph with a tail of 16 inputs in groups of 32.
inline DecoderConfig Config() {
  DecoderConfig config = testing::TinyDecoderConfig();
  config.hidden = 80;
  config.heads = 8;
  config.kv_heads = 4;
  config.head_dim = 8;
  config.ffn = 112;
  return config;
}

inline AwqOptions Options(CodeOffset offset = CodeOffset::kZeros) {
  AwqOptions options;
  options.grids.fill(GridSpec{4, 32, offset});
  return options;
}

inline std::vector<float> Columns(const AwqResult& result, LinearId id,
                                  int64_t inputs) {
  for (const ChosenScales& chosen : result.pairs) {
    const FoldablePair& pair = chosen.pair;
    if (std::count(pair.consumers.begin(), pair.consumers.end(), id) == 0) {
      continue;
    }
    std::vector<float> columns;
    for (const int32_t scale : pair.scale_of_input) {
      columns.push_back(chosen.scales[static_cast<size_t>(scale)]);
    }
    return columns;
  }
  return std::vector<float>(static_cast<size_t>(inputs), 1.0f);
}

inline const ChosenScales& Of(const AwqResult& result, FoldInto producer) {
  for (const ChosenScales& chosen : result.pairs) {
    if (chosen.pair.producer == producer) return chosen;
  }
  ADD_FAILURE() << FoldIntoName(producer);
  return result.pairs[0];
}

inline void ExpectSane(const AwqResult& result) {
  for (const ChosenScales& chosen : result.pairs) {
    for (const float s : chosen.scales) {
      EXPECT_TRUE(std::isfinite(s) && s > 0) << s;
    }
    EXPECT_LE(chosen.loss, chosen.identity_loss);
  }
  for (const Array<float>& clip : result.clip) {
    for (const float ratio : clip) {
      EXPECT_GE(ratio, 0.5f);
      EXPECT_LE(ratio, 1.0f);
    }
  }
}

inline void ExpectFinite(const BlockWeights<float>& weights) {
  for (const LinearId id : kAllLinears) {
    for (const float w : weights[id].weight) ASSERT_TRUE(std::isfinite(w));
    for (const float b : weights[id].bias) ASSERT_TRUE(std::isfinite(b));
  }
  for (const float w : weights.attention_norm.weight) {
    ASSERT_TRUE(std::isfinite(w));
  }
}

inline std::vector<float> Copy(const Array<float>& values) {
  return std::vector<float>(values.begin(), values.end());
}

inline BlockLinear<float> Copy(const BlockLinear<float>& linear) {
  BlockLinear<float> copy;
  copy.outputs = linear.outputs;
  copy.inputs = linear.inputs;
  copy.weight = Array<float>(linear.weight.size());
  std::copy(linear.weight.begin(), linear.weight.end(), copy.weight.begin());
  return copy;
}

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_AWQ_FAKE_BLOCK_H_
