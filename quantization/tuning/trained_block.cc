#include "quantization/tuning/trained_block.h"

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/round_matrix.h"

namespace nibble {
namespace {

constexpr const char* kLinearNames[kLinearCount] = {"qkv", "attention", "up",
                                                    "down"};

std::string ShapeOf(const HiddenStates& states) {
  return absl::StrCat("[", states.windows(), ", ", states.length(), ", ",
                      states.hidden(), "]");
}

}  // namespace

absl::Status CheckTrainedBlock(const TrainedBlock& trained, ThreadPool& pool) {
  const HiddenStates& inputs = *trained.inputs;
  if (inputs.windows() < 1 || inputs.length() < 1) {
    return absl::InvalidArgumentError(
        "training needs at least one window of calibration text");
  }
  if (ShapeOf(inputs) != ShapeOf(*trained.targets) ||
      inputs.hidden() != trained.config->hidden) {
    return absl::InvalidArgumentError(absl::StrCat(
        "inputs ", ShapeOf(inputs), " and targets ", ShapeOf(*trained.targets),
        ": both must be [windows, length, ", trained.config->hidden, "]"));
  }
  for (size_t i = 0; i < kLinearCount; ++i) {
    if (!trained.grids[i].has_value()) continue;
    absl::Status status = CheckGridSpec(*trained.grids[i]);
    if (status.ok()) {
      status = CheckWeights(trained.weights->linears[i].view(), pool);
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("layers.", trained.layer, ".", kLinearNames[i],
                       ".weight: ", status.message()));
    }
  }
  return absl::OkStatus();
}

GemmPrecision TrainingPrecision(const TrainedGrids& grids) {
  for (const std::optional<GridSpec>& grid : grids) {
    if (grid.has_value() && grid->bits == 8) return GemmPrecision::kF32;
  }
  return GemmPrecision::kBF16;
}

}  // namespace nibble
