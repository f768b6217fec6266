// What a --keep_float pattern keeps in bf16, known without the model.
//
//   absl::StatusOr<KeptMatrices> kept = MatchKeepFloat("^head");
//   if (!kept.ok()) return kept.status();
//   kept->head;     // true
//   kept->layers;   // false
#ifndef NIBBLE_APPS_QUANTIZE_KEEP_FLOAT_H_
#define NIBBLE_APPS_QUANTIZE_KEEP_FLOAT_H_

#include <string>

#include "absl/status/statusor.h"

namespace nibble {

struct KeptMatrices {
  bool head = false;
  // Matrices of layers. Also true of a pattern that matches nothing, so that
  // the model's names refuse it.
  bool layers = false;
};

// `pattern` is RE2, searched for in names; empty: nothing is kept.
// InvalidArgument: no regular expression.
absl::StatusOr<KeptMatrices> MatchKeepFloat(const std::string& pattern);

}  // namespace nibble

#endif  // NIBBLE_APPS_QUANTIZE_KEEP_FLOAT_H_
