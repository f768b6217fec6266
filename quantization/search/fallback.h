// Which matrices to raise to more bits when no recipe is within tolerance, and
// how many.
//
//   std::vector<std::string> names = ByDamage(trial.model.damage);
//   Bisection count(names.size());
//   while (std::optional<size_t> n = count.Next()) {
//     Recipe recipe = Raised(base, absl::MakeSpan(names).first(*n), 8);
//     count.Report(Try(recipe));
//   }
#ifndef NIBBLE_QUANTIZATION_SEARCH_FALLBACK_H_
#define NIBBLE_QUANTIZATION_SEARCH_FALLBACK_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/search.h"

namespace nibble {

// The names of the matrices, those first with the most damage for each weight:
// raising one costs bytes in proportion to its weights. NaN counts as endless
// damage; equal ones keep their order.
std::vector<std::string> ByDamage(absl::Span<const MatrixDamage> damage);

// `base` with an exception for each of the names.
Recipe Raised(const Recipe& base, absl::Span<const std::string> names,
              int bits);

// Finds the least number that suffices, or nearly: an eighth of them all, twice
// as many until it does, then halves down to a 32nd: ten trials at most, where
// one after the other would be hundreds. More is taken to be better.
class Bisection {
 public:
  // REQUIRES: count > 0.
  explicit Bisection(size_t count);

  // The number to try; none when there is nothing left to find out.
  std::optional<size_t> Next();
  // Whether it sufficed.
  void Report(bool enough);

 private:
  const size_t count_, step_;
  size_t too_few_ = 0;
  std::optional<size_t> enough_;
  size_t tried_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SEARCH_FALLBACK_H_
