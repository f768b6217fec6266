#include "quantization/folding/folding.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/load_block.h"
#include "tensor/view.h"
#include "testing/decoder_graphs.h"
#include "testing/matchers.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"

namespace nibble {
namespace {

using testing::DecoderGraph;
using ::testing::ElementsAre;
using testing::IsOk;
using testing::MemoryTensors;
using testing::RandomValues;
using testing::ReferenceLogits;

// As the spread of channels in a model that was made hard to quantize.
std::vector<float> RandomScales(int64_t count, RandomValues& random) {
  std::vector<float> scales = random.Normal(count, 0.5f);
  for (float& scale : scales) scale = std::exp(scale);
  return scales;
}

// The tensors of a checkpoint as values that may be changed.
class EditableCheckpoint {
 public:
  explicit EditableCheckpoint(const Checkpoint& source) : source_(source) {
    for (const std::string& name : source.tensors->names()) {
      const absl::Span<const float> values = View(name).As<float>();
      values_[name].assign(values.begin(), values.end());
    }
  }

  // Puts a block's values back where LoadBlock found them.
  void Write(int64_t layer, const BlockWeights<float>& block) {
    const LayerTensors& names =
        source_.names.layers[static_cast<size_t>(layer)];
    WriteNorm(names.attention_norm, block.attention_norm);
    WriteNorm(names.mlp_norm, block.mlp_norm);
    WriteLinear(names.qkv, block[LinearId::kQkv]);
    WriteLinear(names.attention, block[LinearId::kAttention]);
    WriteLinear(names.up, block[LinearId::kUp]);
    WriteLinear(names.down, block[LinearId::kDown]);
  }

  Checkpoint Finish() const {
    auto tensors = std::make_shared<MemoryTensors>();
    for (const auto& [name, values] : values_) {
      tensors->Add(name, View(name).shape, values);
    }
    Checkpoint checkpoint = source_;
    checkpoint.tensors = std::move(tensors);
    return checkpoint;
  }

 private:
  TensorView View(const std::string& name) const {
    return *source_.tensors->Find(name);
  }

  void WriteNorm(const NormTensors& names, const BlockNorm<float>& norm) {
    if (names.weight.empty()) return;
    std::copy(norm.weight.begin(), norm.weight.end(),
              values_.at(names.weight).begin());
    if (names.bias.empty()) return;
    std::copy(norm.bias.begin(), norm.bias.end(),
              values_.at(names.bias).begin());
  }

  void WriteLinear(const LinearTensors& names,
                   const BlockLinear<float>& linear) {
    WriteRows(names.weight, linear.inputs, linear.weight.data());
    WriteRows(names.bias, 1, linear.bias.data());
  }

  void WriteRows(const std::vector<RowRange>& ranges, int64_t width,
                 const float* values) {
    for (const RowRange& range : ranges) {
      std::copy(values, values + range.rows * width,
                values_.at(range.tensor).begin() + range.first_row * width);
      values += range.rows * width;
    }
  }

  const Checkpoint& source_;
  std::map<std::string, std::vector<float>> values_;
};

// The largest difference relative to the largest logit.
double RelativeDifference(const std::vector<std::vector<double>>& a,
                          const std::vector<std::vector<double>>& b) {
  double difference = 0;
  double largest = 0;
  for (size_t t = 0; t < a.size(); ++t) {
    for (size_t v = 0; v < a[t].size(); ++v) {
      difference = std::max(difference, std::abs(a[t][v] - b[t][v]));
      largest = std::max(largest, std::abs(a[t][v]));
    }
  }
  return difference / largest;
}

std::vector<std::string> PairNames(const DecoderConfig& config) {
  std::vector<std::string> names;
  for (const FoldablePair& pair : FoldablePairs(config)) {
    names.push_back(FoldIntoName(pair.producer));
  }
  return names;
}

class FoldingTest : public ::testing::TestWithParam<DecoderGraph> {};

// Each pair by itself, then all of them.
TEST_P(FoldingTest, ChangesNoLogit) {
  const DecoderConfig& config = GetParam().config;
  const Checkpoint checkpoint = testing::RandomCheckpoint(config, /*seed=*/5);
  const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 92, 65, 35, 89, 79};
  const auto expected = ReferenceLogits(checkpoint, tokens);
  const std::vector<FoldablePair> pairs = FoldablePairs(config);
  ThreadPool pool(2);
  for (size_t only = 0; only <= pairs.size(); ++only) {
    EditableCheckpoint folded(checkpoint);
    RandomValues random(7);
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      absl::StatusOr<BlockWeights<float>> block =
          LoadBlock(checkpoint, layer, pool);
      ASSERT_THAT(block.status(), IsOk());
      for (size_t p = 0; p < pairs.size(); ++p) {
        if (only < pairs.size() && p != only) continue;
        Fold(pairs[p], RandomScales(pairs[p].free_scales, random), config,
             *block);
      }
      folded.Write(layer, *block);
    }
    const auto logits = ReferenceLogits(folded.Finish(), tokens);
    // Several roundings of 2^-24 in each value; scales reach 6, and errors
    // pass through two blocks.
    EXPECT_LT(RelativeDifference(expected, logits), 1e-5)
        << (only < pairs.size() ? FoldIntoName(pairs[only].producer) : "all");
  }
}

// Else the test above could not fail.
TEST_P(FoldingTest, ScalingColumnsAloneChangesLogits) {
  const DecoderConfig& config = GetParam().config;
  const Checkpoint checkpoint = testing::RandomCheckpoint(config, /*seed=*/5);
  const std::vector<int32_t> tokens = {3, 1, 4, 1, 5};
  const auto expected = ReferenceLogits(checkpoint, tokens);
  ThreadPool pool(1);
  for (const FoldablePair& pair : FoldablePairs(config)) {
    absl::StatusOr<BlockWeights<float>> block = LoadBlock(checkpoint, 0, pool);
    ASSERT_THAT(block.status(), IsOk());
    for (const LinearId id : pair.consumers) {
      const MatrixView<float> weight = (*block)[id].view();
      for (int64_t i = 0; i < weight.rows; ++i) weight.row(i)[1] *= 2.0f;
    }
    EditableCheckpoint changed(checkpoint);
    changed.Write(0, *block);
    const auto logits = ReferenceLogits(changed.Finish(), tokens);
    EXPECT_GT(RelativeDifference(expected, logits), 1e-3)
        << FoldIntoName(pair.producer);
  }
}

std::vector<DecoderGraph> Graphs() {
  std::vector<DecoderGraph> graphs = testing::DecoderGraphs();
  // Falcon-7B: one key and one value for all heads, one norm, no bias but the
  // norm's.
  DecoderConfig falcon = testing::TinyDecoderConfig();
  falcon.norm = NormKind::kLayer;
  falcon.norm_layout = NormLayout::kShared;
  falcon.residual = Residual::kParallel;
  falcon.kv_heads = 1;
  falcon.gated = false;
  graphs.push_back({"FalconMultiQuery", falcon});
  // Falcon-40B: groups of queries, two norms.
  falcon.kv_heads = 2;
  falcon.norm_layout = NormLayout::kSeparate;
  falcon.qkv_bias = falcon.output_bias = falcon.mlp_bias = true;
  graphs.push_back({"FalconGroupedQueries", falcon});
  DecoderConfig gated = testing::TinyDecoderConfig();
  gated.norm = NormKind::kLayer;
  gated.norm_layout = NormLayout::kShared;
  gated.residual = Residual::kParallel;
  gated.qkv_bias = gated.output_bias = gated.mlp_bias = true;
  graphs.push_back({"GatedParallelSharedNorm", gated});
  return graphs;
}

INSTANTIATE_TEST_SUITE_P(Graphs, FoldingTest, ::testing::ValuesIn(Graphs()),
                         testing::GraphName);

TEST(FoldablePairsTest, LlamaHasFour) {
  const DecoderConfig config = testing::TinyDecoderConfig();
  EXPECT_THAT(PairNames(config),
              ElementsAre("attention_norm", "v", "mlp_norm", "up"));
  const std::vector<FoldablePair> pairs = FoldablePairs(config);
  EXPECT_THAT(pairs[0].consumers, ElementsAre(LinearId::kQkv));
  EXPECT_THAT(pairs[3].consumers, ElementsAre(LinearId::kDown));
  EXPECT_EQ(pairs[3].free_scales, config.ffn);
}

TEST(FoldablePairsTest, SharedNormServesBothItsReaders) {
  DecoderConfig config = testing::TinyDecoderConfig();
  config.residual = Residual::kParallel;
  config.norm_layout = NormLayout::kShared;
  config.gated = false;
  EXPECT_THAT(PairNames(config), ElementsAre("attention_norm", "v"));
  EXPECT_THAT(FoldablePairs(config)[0].consumers,
              ElementsAre(LinearId::kQkv, LinearId::kUp));
}

TEST(FoldablePairsTest, QueryHeadsShareTheScalesOfTheirValues) {
  DecoderConfig config = testing::TinyDecoderConfig();
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 2;
  const FoldablePair pair = FoldablePairs(config)[1];
  EXPECT_EQ(pair.free_scales, 4);
  EXPECT_THAT(pair.scale_of_input, ElementsAre(0, 1, 0, 1, 2, 3, 2, 3));
}

}  // namespace
}  // namespace nibble
