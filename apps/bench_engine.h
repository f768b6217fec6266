// The engine that bench measures: a model's, or one around random weights.
//
//   absl::StatusOr<std::unique_ptr<Engine>> engine = OpenBenchEngine(plan);
#ifndef NIBBLE_APPS_BENCH_ENGINE_H_
#define NIBBLE_APPS_BENCH_ENGINE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "apps/bench_flags.h"
#include "runtime/engine.h"

namespace nibble {

// Limits dispatch to --isa, and opens --model or makes plan.shape with the
// flags that programs share. A shape's context is as long as the plan needs:
// speed does not depend on what the model was trained for. ResourceExhausted,
// naming the shape, when its weights do not fit into the memory that is free.
absl::StatusOr<std::unique_ptr<Engine>> OpenBenchEngine(const BenchPlan& plan);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCH_ENGINE_H_
