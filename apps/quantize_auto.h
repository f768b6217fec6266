// quantize --auto: the search for a recipe, and the model by the one it found.
#ifndef NIBBLE_APPS_QUANTIZE_AUTO_H_
#define NIBBLE_APPS_QUANTIZE_AUTO_H_

#include <atomic>
#include <string>

#include "absl/status/statusor.h"
#include "apps/auto/auto_flags.h"
#include "apps/auto/search_report.h"
#include "apps/quantize_calibrated.h"
#include "apps/quantize_flags.h"
#include "kernels/thread_pool.h"

namespace nibble {

struct AutoOutcome {
  CalibratedOutcome model;
  SearchRun search;
};

// Writes request.out, also where no recipe is within tolerance (the best one
// then), and the recipe beside it: model.textproto for model.nib. The folder
// OUT.search holds what was found out until it is done; it stays for --resume
// when the search is interrupted or fails.
// REQUIRES: `request` was read for a search.
absl::StatusOr<AutoOutcome> QuantizeAuto(const QuantizeRequest& request,
                                         const AutoFlags& flags,
                                         const std::string& model_path,
                                         const std::atomic<bool>* cancelled,
                                         ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_APPS_QUANTIZE_AUTO_H_
