// Which trials a search can spare, judging by those that it has made.
#ifndef NIBBLE_QUANTIZATION_SEARCH_PRUNING_H_
#define NIBBLE_QUANTIZATION_SEARCH_PRUNING_H_

#include <string>

#include "absl/types/span.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/search.h"

namespace nibble {

// Round to nearest without more, which takes seconds.
bool IsPlainRounding(const Recipe& recipe);

// What plain rounding does on the recipe's grid, with its exceptions and its
// head, by the screening; null where no trial tells.
const QuantizedTrial* PlainlyRounded(const Recipe& recipe,
                                     absl::Span<const Trial> trials);

// Whether a model diverges more than one that failed.
bool IsHopeless(const QuantizedTrial& model, absl::Span<const Trial> trials);

// Why one of `recipes` is not worth a trial; empty where it is.
std::string ReasonToSpare(const Recipe& recipe, absl::Span<const Trial> trials,
                          absl::Span<const Recipe> recipes);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SEARCH_PRUNING_H_
