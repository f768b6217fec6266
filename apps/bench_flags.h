// What bench is asked to measure.
//
//   absl::StatusOr<BenchPlan> plan = BenchPlanFromFlags();
#ifndef NIBBLE_APPS_BENCH_FLAGS_H_
#define NIBBLE_APPS_BENCH_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/benchmark/engine_phases.h"
#include "tensor/packed_layout.h"

namespace nibble {

struct BenchPlan {
  std::string shape;                        // empty: --model
  WeightFormat head = WeightFormat::kBF16;  // of a shape
  std::vector<std::string> products;        // none: no such rows
  std::vector<int64_t> rows;                // of activations, for products
  std::vector<int64_t> prompts;
  DecodePlan decode;  // steps 0: no such rows
  int repetitions = 5;
  bool json = false;
  std::string plot;  // empty: none

  // Most tokens that a sequence will hold; at least 1.
  int64_t MostTokens() const;
};

// Errors name the flag: values that mean nothing, values that contradict each
// other, and a plan without a single row.
absl::StatusOr<BenchPlan> BenchPlanFromFlags();

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCH_FLAGS_H_
