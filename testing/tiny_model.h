// Small random models written to disk, for tests that need a checkpoint and
// should not depend on data outside the repository.
//
//   TinyModelOptions options;
//   options.tied_head = true;
//   const std::string dir = ::testing::TempDir() + "/tiny";
//   ASSERT_THAT(WriteTinyLlama(dir, options), IsOk());
//   auto checkpoint = OpenCheckpoint(dir);
#ifndef NIBBLE_TESTING_TINY_MODEL_H_
#define NIBBLE_TESTING_TINY_MODEL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "tensor/dtype.h"

namespace nibble::testing {

struct TinyModelOptions {
  std::string model_type = "llama";  // "llama", "mistral" or "qwen2"
  int64_t vocabulary = 97;
  int64_t hidden = 32;
  int64_t layers = 2;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 8;
  int64_t ffn = 48;
  int64_t max_positions = 128;
  bool attention_bias = false;  // Llama: q, k, v, o. Qwen2 has q, k, v always.
  bool mlp_bias = false;
  bool tied_head = false;
  DType dtype = DType::kF32;  // kF32, kF16 or kBF16
  // Further members of config.json, such as
  // R"("rope_scaling": {"type": "linear", "factor": 4.0}, "sliding_window": 8)"
  std::string extra_config;
  uint64_t seed = 1;
};

// Writes config.json, generation_config.json and model.safetensors, in the
// form of Hugging Face folders, into `dir`, which is made if need be.
absl::Status WriteTinyLlama(const std::string& dir,
                            const TinyModelOptions& options);

// The config.json that WriteTinyLlama writes.
std::string TinyLlamaConfig(const TinyModelOptions& options);

// Replaces a file's contents.
void WriteText(const std::string& path, const std::string& text);

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_TINY_MODEL_H_
