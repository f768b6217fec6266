// H as GPTQ needs it: damped, ordered, inverted and factored.
//
//   std::optional<DampedFactor> factor = FactorDamped(gram, options, pool);
#ifndef NIBBLE_QUANTIZATION_GPTQ_DAMPED_FACTOR_H_
#define NIBBLE_QUANTIZATION_GPTQ_DAMPED_FACTOR_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/thread_pool.h"
#include "quantization/gptq/gram.h"
#include "quantization/gptq/panel_solver.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

struct FactorOptions {
  bool act_order = false;
  double damping = 0.05;
  // [outputs, inputs], or no rows: what DampedFactor::shift is made of.
  MatrixView<const float> pull = {};
};

// H's diagonal before damping. What was never active takes the mean of what
// was; where nothing was, 1.
struct MomentDiagonal {
  std::vector<double> values;  // [inputs], as they lie
  double mean = 0;             // over the active inputs, or 1
  double most = 0;             // 0 where no input was active
};

MomentDiagonal DiagonalOf(const Gram& gram);

struct DampedFactor {
  // [inputs]: column c is input order[c]. Equal diagonals in the inputs' order.
  std::vector<int32_t> order;
  StripMatrix factor;  // U of the damped H, in that order
  // [outputs, inputs]: pull H^-1, inputs as they lie; or empty.
  Array<float> shift;
  double damping_used = 0;
};

// No value where no damping up to the last of gptq.h's ladder helps.
// REQUIRES: gram.is_finite(), and gram.tokens() > 0.
std::optional<DampedFactor> FactorDamped(const Gram& gram,
                                         const FactorOptions& options,
                                         ThreadPool& pool);

// [inputs]: 1 / U_cc^2, what a squared error at each input costs once the
// inputs that come later in the order have made up for what they can: its
// damped variance given theirs. Empty where FactorDamped has no value.
// REQUIRES: as there; options.pull is not looked at.
std::vector<double> ConditionalVariances(const Gram& gram,
                                         const FactorOptions& options,
                                         ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_DAMPED_FACTOR_H_
