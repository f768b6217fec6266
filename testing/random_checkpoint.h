// Checkpoints made in memory, for tests of the decoder with any configuration
// it can express, also those that no family file produces.
//
//   DecoderConfig config = TinyDecoderConfig();
//   config.residual = Residual::kParallel;
//   Checkpoint checkpoint = RandomCheckpoint(config, /*seed=*/3);
//   auto decoder = Decoder::Load(checkpoint, options, pool);
#ifndef NIBBLE_TESTING_RANDOM_CHECKPOINT_H_
#define NIBBLE_TESTING_RANDOM_CHECKPOINT_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble::testing {

// Tensors of floats held in memory.
class MemoryTensors : public TensorSource {
 public:
  // REQUIRES: `name` is new, values.size() == shape.elements().
  void Add(const std::string& name, const Shape& shape,
           std::vector<float> values);

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override;
  absl::StatusOr<TensorView> Find(absl::string_view name) const override;

 private:
  std::string path_ = "memory";
  std::vector<std::string> names_;
  std::deque<std::vector<float>> values_;
  std::map<std::string, TensorView, std::less<>> views_;
};

// Two layers, hidden 32, 4 heads of 8 on 2 kv heads, ffn 48, vocabulary 97:
// Llama's graph.
DecoderConfig TinyDecoderConfig();

// Random weights for `config`. The q, k and v rows are stored interleaved, one
// group per kv head, as some families do.
Checkpoint RandomCheckpoint(const DecoderConfig& config, uint64_t seed);

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_RANDOM_CHECKPOINT_H_
