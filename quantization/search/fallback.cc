#include "quantization/search/fallback.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/search.h"
#include "re2/re2.h"

namespace nibble {
namespace {

double DamagePerWeight(const MatrixDamage& matrix) {
  if (std::isnan(matrix.damage)) {
    return std::numeric_limits<double>::infinity();
  }
  return matrix.damage /
         static_cast<double>(std::max<int64_t>(matrix.weights, 1));
}

}  // namespace

std::vector<std::string> ByDamage(absl::Span<const MatrixDamage> damage) {
  std::vector<MatrixDamage> sorted(damage.begin(), damage.end());
  absl::c_stable_sort(sorted, [](const MatrixDamage& a, const MatrixDamage& b) {
    return DamagePerWeight(a) > DamagePerWeight(b);
  });
  std::vector<std::string> names;
  for (const MatrixDamage& matrix : sorted) names.push_back(matrix.name);
  return names;
}

Recipe Raised(const Recipe& base, absl::Span<const std::string> names,
              int bits) {
  Recipe recipe = base;
  for (const std::string& name : names) {
    Recipe::LayerSettings* layer = recipe.add_layers();
    layer->set_pattern(absl::StrCat("^", RE2::QuoteMeta(name), "$"));
    layer->set_bits(bits);
  }
  return recipe;
}

Bisection::Bisection(size_t count)
    : count_(count), step_(std::max<size_t>(1, count / 32)) {
  CHECK_GT(count, 0u);
}

std::optional<size_t> Bisection::Next() {
  if (!enough_.has_value()) {
    if (too_few_ == count_) return std::nullopt;
    const size_t first = std::max<size_t>(1, count_ / 8);
    tried_ = std::min(count_, too_few_ == 0 ? first : 2 * too_few_);
    return tried_;
  }
  if (*enough_ - too_few_ <= step_) return std::nullopt;
  tried_ = too_few_ + (*enough_ - too_few_) / 2;
  return tried_;
}

void Bisection::Report(bool enough) {
  CHECK_GT(tried_, too_few_);
  if (enough) {
    enough_ = tried_;
  } else {
    too_few_ = tried_;
  }
}

}  // namespace nibble
