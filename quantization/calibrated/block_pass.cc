#include "quantization/calibrated/block_pass.h"

#include <algorithm>
#include <cstddef>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tensor/view.h"

namespace nibble {

int64_t BlockPass::WindowsAtOnce(const HiddenStates& states) {
  return std::clamp<int64_t>(kPassTokens / states.length(), 1,
                             states.windows());
}

absl::Status BlockPass::Run(Block<float>& block, const HiddenStates& states,
                            std::optional<LinearId> until,
                            const BlockStep& step, Visit visit) {
  const int64_t at_once = WindowsAtOnce(states);
  for (int64_t first = 0; first < states.windows(); first += at_once) {
    const int64_t count = std::min(at_once, states.windows() - first);
    visit(first, RunWindows(block, states, first, count, until));
    const absl::Status go_on = step(static_cast<double>(count) /
                                    static_cast<double>(states.windows()));
    if (!go_on.ok()) return go_on;
  }
  return absl::OkStatus();
}

const BlockActivations<float>& BlockPass::RunWindows(
    Block<float>& block, const HiddenStates& states, int64_t first,
    int64_t count, std::optional<LinearId> until) {
  const absl::Time start = absl::Now();
  const int64_t tokens = count * states.length();
  const size_t size = static_cast<size_t>(tokens * states.hidden());
  if (x_.size() < size) x_ = Array<float>(size);
  const MatrixView<float> x(x_.data(), tokens, states.hidden());
  states.Load(first, x, pool_);
  block.Forward(x, acts_, pool_, until);
  seconds_ += absl::ToDoubleSeconds(absl::Now() - start);
  multiplies_ += MultipliesOf(tokens, states.length(), until);
  return acts_;
}

double BlockPass::MultipliesOf(int64_t tokens, int64_t length,
                               std::optional<LinearId> until) const {
  const auto before = [until](LinearId id) {
    return !until.has_value() || id < *until;
  };
  double token = 0;
  if (before(LinearId::kQkv)) {
    token += static_cast<double>(config_.hidden * config_.qkv_dim());
    // Scores and sums of values, half of each behind the diagonal.
    token += static_cast<double>(length * config_.q_dim());
  }
  if (before(LinearId::kAttention)) {
    token += static_cast<double>(config_.hidden * config_.q_dim());
  }
  const int64_t up = (config_.gated ? 2 : 1) * config_.ffn;
  if (before(LinearId::kUp)) token += static_cast<double>(config_.hidden * up);
  if (before(LinearId::kDown)) {
    token += static_cast<double>(config_.hidden * config_.ffn);
  }
  return token * static_cast<double>(tokens);
}

}  // namespace nibble
