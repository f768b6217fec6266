// One block on its way through transform and rounding: what the steps of
// BlockQuantizer share.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_WORK_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_WORK_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "quantization/calibrated/block_file.h"
#include "quantization/calibrated/block_pass.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/gptq/gram.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/recipe/recipe.pb.h"
#include "tensor/buffer.h"

namespace nibble {

// What a block is given, as far as the recipe needs it.
struct Streams {
  std::optional<HiddenStates> floats;     // by the float model
  std::optional<HiddenStates> quantized;  // by the quantized model
};

struct BlockWork {
  const DecoderConfig& config;
  const Recipe& recipe;  // complete
  const int64_t layer;
  BlockWeights<float>& weights;
  Streams& streams;
  const BlockStep& step;
  const GemmPrecision precision;
  BlockPass& pass;
  ThreadPool& pool;

  // In the order of LinearId, here and below.
  std::array<std::optional<MatrixGrid>, kLinearCount> grids = {};
  // Of the float model's inputs, before any transform; those that are the same
  // are shared. Null where nothing asks for them.
  std::array<std::shared_ptr<Gram>, kLinearCount> grams = {};
  // What the float block makes of streams.floats, where a method trains and
  // streams.floats are its inputs still.
  std::optional<HiddenStates> outputs = {};
  // Mean squared inputs behind the transform; empty where nothing asks.
  std::array<std::vector<float>, kLinearCount> importance = {};
  // [outputs, groups]: AWQ's ratios (rounding/round_matrix.h), or empty.
  std::array<Array<float>, kLinearCount> clip = {};
  FinishedBlock block = {};

  static size_t At(LinearId id) { return static_cast<size_t>(id); }

  // The float block's output on the float model's inputs.
  const HiddenStates& Targets() const {
    return outputs.has_value() ? *outputs : *streams.floats;
  }

  std::string Name(LinearId id) const {
    return absl::StrCat("layers.", layer, ".", LinearName(id), ".weight");
  }

  // For methods that ask by themselves, once for each of `iterations` of
  // `batch` windows, whether they shall end. Forward and backward through a
  // batch costs as much as three passes over it.
  std::function<bool()> Cancelled(int64_t batch) const {
    const double share = TrainingPasses(1, batch, streams.floats->windows());
    return [this, share] { return !step(share).ok(); };
  }
  static double TrainingPasses(int64_t iterations, int64_t batch,
                               int64_t windows) {
    return 3.0 * static_cast<double>(iterations) *
           static_cast<double>(std::min(batch, windows)) /
           static_cast<double>(windows);
  }

  // Multiply-adds of such a training, what it is judged by left out.
  double TrainingMultiplies(int64_t iterations, int64_t batch) const {
    const HiddenStates& states = *streams.quantized;
    return TrainingPasses(iterations, batch, states.windows()) *
           pass.MultipliesOf(states.windows() * states.length(),
                             states.length(), std::nullopt);
  }

  // Multiply-adds of a Gram, of whose products one triangle is computed.
  static double MultipliesOf(const Gram& gram) {
    return static_cast<double>(gram.tokens()) *
           static_cast<double>(gram.inputs()) *
           static_cast<double>(gram.inputs() + 1) / 2;
  }

  void AddPhase(const char* name, absl::Time start, double multiplies = 0) {
    PhaseReport* phase = block.report.add_phases();
    phase->set_name(name);
    phase->set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
    phase->set_multiplies(multiplies);
  }
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_WORK_H_
