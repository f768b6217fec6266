// All calibration windows through one block, some at a time.
//
//   BlockPass pass(config, step, pool);
//   absl::Status status = pass.Run(block, states, LinearId::kDown,
//       [&](int64_t first, const BlockActivations<float>& acts) {
//         gram.Add(acts.input(LinearId::kDown), pool);
//       });
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_PASS_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_PASS_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "tensor/buffer.h"

namespace nibble {

// Tokens of one Forward. At 7B's width activations take 80 kB a token, so this
// is 330 MB beside the weights; the products are long past the length from
// which they run at full speed.
inline constexpr int64_t kPassTokens = 2048;

// Called between two pieces of work with the share of a block's work just
// done; an error (Cancelled) ends the work.
using BlockStep = std::function<absl::Status(double share)>;

class BlockPass {
 public:
  // Windows [first, ...) went through: their activations.
  using Visit = absl::FunctionRef<void(int64_t first,
                                       const BlockActivations<float>& acts)>;

  // Borrows all of it.
  BlockPass(const DecoderConfig& config, ThreadPool& pool)
      : config_(config), pool_(pool) {}

  // With `until` as in Block::Forward. `step` is called after each piece with
  // its share of this pass.
  absl::Status Run(Block<float>& block, const HiddenStates& states,
                   std::optional<LinearId> until, const BlockStep& step,
                   Visit visit);

  // Windows [first, first + count): valid until the next call.
  const BlockActivations<float>& RunWindows(Block<float>& block,
                                            const HiddenStates& states,
                                            int64_t first, int64_t count,
                                            std::optional<LinearId> until);

  // Windows that are taken at once.
  static int64_t WindowsAtOnce(const HiddenStates& states);

  // Multiply-adds of the products of all passes so far.
  double multiplies() const { return multiplies_; }
  double seconds() const { return seconds_; }  // in Block::Forward
  // Of `tokens` in windows of `length`, as far as `until`.
  double MultipliesOf(int64_t tokens, int64_t length,
                      std::optional<LinearId> until) const;

 private:
  const DecoderConfig& config_;
  ThreadPool& pool_;
  BlockActivations<float> acts_;
  Array<float> x_;  // [tokens, hidden]
  double multiplies_ = 0;
  double seconds_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_PASS_H_
