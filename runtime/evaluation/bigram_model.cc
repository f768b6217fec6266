#include "runtime/evaluation/bigram_model.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "runtime/engine.h"
#include "tensor/packed_layout.h"
#include "testing/random_checkpoint.h"
#include "tokenizer/tokenizer.h"

namespace nibble::testing {
namespace {

LinearTensors Matrix(MemoryTensors& tensors, const std::string& name,
                     int64_t outputs, int64_t inputs,
                     std::vector<float> values) {
  tensors.Add(name, {outputs, inputs}, std::move(values));
  LinearTensors linear;
  linear.weight = {{name, 0, outputs}};
  return linear;
}

LinearTensors Zeros(MemoryTensors& tensors, const std::string& name,
                    int64_t outputs, int64_t inputs) {
  return Matrix(tensors, name, outputs, inputs,
                std::vector<float>(static_cast<size_t>(outputs * inputs)));
}

NormTensors Ones(MemoryTensors& tensors, const std::string& name,
                 int64_t size) {
  tensors.Add(name, {size}, std::vector<float>(static_cast<size_t>(size), 1));
  NormTensors norm;
  norm.weight = name;
  return norm;
}

Checkpoint BigramCheckpoint(const BigramLogits& logits) {
  Checkpoint checkpoint;
  checkpoint.path = checkpoint.format = "memory";
  DecoderConfig& config = checkpoint.config;
  config = TinyDecoderConfig();
  config.vocabulary = kBigramVocabulary;
  config.layers = 1;
  config.windows = {0};
  config.max_positions = config.rope.max_positions = 128;
  CHECK_EQ(config.hidden, kBigramClasses);
  // What RMSNorm leaves of a one-hot vector's 1.
  const double one = 1.0 / std::sqrt(1.0 / static_cast<double>(kBigramClasses) +
                                     static_cast<double>(config.norm_eps));
  const size_t size = static_cast<size_t>(kBigramVocabulary * kBigramClasses);
  std::vector<float> embedding(size), head(size);
  for (int64_t token = 0; token < kBigramVocabulary; ++token) {
    const int64_t row = token * kBigramClasses;
    embedding[static_cast<size_t>(
        row + BigramClass(static_cast<int32_t>(token)))] = 1.0f;
    for (int64_t c = 0; c < kBigramClasses; ++c) {
      head[static_cast<size_t>(row + c)] =
          static_cast<float>(logits(token, c) / one);
    }
  }
  auto tensors = std::make_shared<MemoryTensors>();
  DecoderTensors& names = checkpoint.names;
  names.embedding = "embedding";
  tensors->Add("embedding", {kBigramVocabulary, kBigramClasses},
               std::move(embedding));
  LayerTensors layer;
  layer.attention_norm = Ones(*tensors, "norm1", config.hidden);
  layer.mlp_norm = Ones(*tensors, "norm2", config.hidden);
  layer.qkv = Zeros(*tensors, "qkv", config.qkv_dim(), config.hidden);
  layer.attention = Zeros(*tensors, "o", config.hidden, config.q_dim());
  layer.up = Zeros(*tensors, "up", 2 * config.ffn, config.hidden);
  layer.down = Zeros(*tensors, "down", config.hidden, config.ffn);
  names.layers.push_back(layer);
  names.final_norm = Ones(*tensors, "norm3", config.hidden);
  names.head = Matrix(*tensors, "head", kBigramVocabulary, kBigramClasses,
                      std::move(head));
  checkpoint.tensors = std::move(tensors);
  CHECK_OK(CheckTensors(checkpoint));
  return checkpoint;
}

}  // namespace

double BigramLogProb(const BigramLogits& logits, int32_t token, int32_t last) {
  const int64_t c = BigramClass(last);
  double sum = 0.0;
  for (int64_t v = 0; v < kBigramVocabulary; ++v) sum += std::exp(logits(v, c));
  return logits(token, c) - std::log(sum);
}

std::unique_ptr<Engine> BigramEngine(const BigramLogits& logits, int threads,
                                     std::unique_ptr<Tokenizer> tokenizer) {
  ThreadPool pool(1);
  DecoderOptions decoder_options;
  decoder_options.weights = WeightFormat::kF32;
  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Load(BigramCheckpoint(logits), decoder_options, pool);
  CHECK_OK(decoder.status());
  EngineOptions options;
  options.model_path = "bigram";
  options.threads = threads;
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(options, *std::move(decoder), std::move(tokenizer));
  CHECK_OK(engine.status());
  return *std::move(engine);
}

}  // namespace nibble::testing
