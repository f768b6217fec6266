// What a recipe makes of one block: transform, then rounding.
//
//   BlockQuantizer quantizer(config, recipe, grids, options, pool);
//   absl::StatusOr<FinishedBlock> block =
//       quantizer.Quantize(layer, weights, streams, step);
//
// The streams are what the block is given: by the float model, by the quantized
// one, or by both, as the recipe needs it.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_QUANTIZER_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_QUANTIZER_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "quantization/calibrated/block_file.h"
#include "quantization/calibrated/block_pass.h"
#include "quantization/calibrated/block_work.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {

struct QuantizerOptions {
  GemmPrecision precision = GemmPrecision::kBF16;
  // Measures what each matrix alone does to its block's output.
  bool measure_damage = false;
  int64_t windows = 1;  // of the calibration
};

struct StreamNeeds {
  bool floats = false;
  bool quantized = false;
};

// Of a complete recipe (recipe.h).
StreamNeeds NeedsOf(const Recipe& recipe, const QuantizerOptions& options);

class BlockQuantizer {
 public:
  // Borrows all but `options`. REQUIRES: the recipe is complete.
  BlockQuantizer(const DecoderConfig& config, const Recipe& recipe,
                 const MatrixGrids& grids, const QuantizerOptions& options,
                 ThreadPool& pool);

  // streams.floats, where it is needed, becomes what the float block makes of
  // it, unless floats_wait(); streams.quantized stays. A transform changes
  // `weights`: they are what the result's codes stand for, and the result
  // points to them.
  absl::StatusOr<FinishedBlock> Quantize(int64_t layer,
                                         BlockWeights<float>& weights,
                                         Streams& streams,
                                         const BlockStep& step);

  // Whether Quantize leaves streams.floats as they are, for it needs them until
  // the end: AdvanceFloats, with the checkpoint's own weights, is then due.
  bool floats_wait() const;

  // What the float block makes of streams.floats, and nothing else.
  absl::Status AdvanceFloats(int64_t layer, const BlockWeights<float>& weights,
                             Streams& streams, const BlockStep& step);
  // What these weights make of streams.quantized. `error`, unless it is null,
  // becomes the relative squared distance from streams.floats.
  absl::Status AdvanceQuantized(int64_t layer,
                                const BlockWeights<float>& weights,
                                Streams& streams, const BlockStep& step,
                                double* error);

  // Passes over the windows that one block takes, for progress.
  double passes() const { return passes_; }

  const BlockPass& pass() const { return pass_; }

 private:
  // Windows for measure_damage: 4096 tokens of the default length. A matrix's
  // share of the error does not hang on more.
  static constexpr int64_t kProbeWindows = 8;

  absl::Status FloatPass(BlockWork& work);
  HiddenStates TakeProbe(const Streams& streams);
  void MeasureDamage(BlockWork& work, const HiddenStates& probe);

  const DecoderConfig& config_;
  const Recipe& recipe_;
  const MatrixGrids& grids_;
  const QuantizerOptions options_;
  ThreadPool& pool_;
  const double passes_;
  BlockPass pass_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_QUANTIZER_H_
