// The flags of `quantize --auto`.
#ifndef NIBBLE_APPS_AUTO_AUTO_FLAGS_H_
#define NIBBLE_APPS_AUTO_AUTO_FLAGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "quantization/search/search.h"
#include "runtime/evaluation/task.h"

namespace nibble {

struct AutoFlags {
  bool given = false;  // --auto
  std::vector<TaskSpec> tasks;
  int64_t limit = 0;           // items of each task; 0: all
  RecipeSearchOptions search;  // tolerance, mode, trials, time
  std::string search_space;    // a file of recipes; empty: the lattice
};

// Errors name the flag: values that mean nothing, no task, and flags of the
// search without --auto.
absl::StatusOr<AutoFlags> AutoFlagsFromFlags();

}  // namespace nibble

#endif  // NIBBLE_APPS_AUTO_AUTO_FLAGS_H_
