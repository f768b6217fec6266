#include "quantization/calibrated/flow_checks.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/checkpoint.h"
#include "models/packed_names.h"
#include "quantization/recipe/recipe.h"
#include "quantization/rounding/grid.h"

namespace nibble {

std::vector<std::string> MatrixNames(const DecoderConfig& config) {
  std::vector<std::string> names;
  for (const LayerTensors& layer : PackedTensorNames(config).layers) {
    for (const LinearTensors* linear :
         {&layer.qkv, &layer.attention, &layer.up, &layer.down}) {
      names.push_back(linear->weight[0].tensor);
    }
  }
  return names;
}

absl::Status CheckWindows(const Recipe& recipe,
                          const CalibrationWindows* windows, bool needed,
                          int64_t max_positions) {
  if (windows == nullptr) {
    if (!needed) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(MethodName(recipe),
                     " measures activations: give a text to measure them on "
                     "(--calibration=FILE)"));
  }
  if (windows->length > max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibration windows have ", windows->length,
                     " tokens; the model was made for ", max_positions));
  }
  const std::string& digest = recipe.calibration().digest();
  if (digest.empty() || digest == windows->digest) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the recipe was made with other calibration windows: their digest is ",
      digest, ", that of these is ", windows->digest,
      "; give the same text and tokenizer, or remove calibration.digest"));
}

absl::Status CheckGrids(const MatrixGrids& grids, const DecoderConfig& config) {
  const std::vector<std::string> names = MatrixNames(config);
  const absl::Status patterns = grids.CheckPatterns(names);
  if (!patterns.ok()) return patterns;
  for (const std::string& name : names) {
    const std::optional<MatrixGrid> grid = grids.Find(name);
    if (!grid.has_value()) continue;
    const absl::Status valid = CheckGridSpec(grid->spec);
    if (!valid.ok()) {
      return absl::Status(valid.code(),
                          absl::StrCat(name, ": ", valid.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble
