#include "apps/quantize_keep_float.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "re2/re2.h"

namespace nibble {
namespace {

// Layers whose names are tried: eight times those of the deepest models.
constexpr int kMostLayers = 1000;

bool MatchesALayer(const RE2& pattern) {
  for (int layer = 0; layer < kMostLayers; ++layer) {
    for (const char* matrix : {"qkv", "attention", "up", "down"}) {
      const std::string name =
          absl::StrCat("layers.", layer, ".", matrix, ".weight");
      if (RE2::PartialMatch(name, pattern)) return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<KeptMatrices> MatchKeepFloat(const std::string& pattern) {
  const RE2 compiled(pattern, RE2::Quiet);
  if (!compiled.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("keep_float \"", pattern,
                     "\" is no regular expression: ", compiled.error()));
  }
  KeptMatrices kept;
  if (pattern.empty()) return kept;
  kept.head = RE2::PartialMatch("head.weight", compiled);
  kept.layers = !kept.head || MatchesALayer(compiled);
  return kept;
}

}  // namespace nibble
