#include "quantization/calibrated/round_block.h"

#include <cstddef>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "quantization/block/block_weights.h"
#include "quantization/calibrated/block_work.h"
#include "quantization/calibrated/finish_matrix.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/calibrated/round_by_gptq.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/signround/signround.h"
#include "quantization/tuning/trained_block.h"

namespace nibble {
namespace {

constexpr auto At = BlockWork::At;

absl::Status RoundBySign(BlockWork& work) {
  TrainedBlock trained;
  trained.config = &work.config;
  trained.layer = work.layer;
  trained.weights = &work.weights;
  trained.inputs = &*work.streams.quantized;
  trained.targets = &work.Targets();
  bool any = false;
  for (const LinearId id : kAllLinears) {
    const std::optional<MatrixGrid>& grid = work.grids[At(id)];
    if (!grid.has_value()) continue;
    if (grid->nearest) {
      const absl::Status status = RoundToNearest(work, id);
      if (!status.ok()) return status;
      continue;
    }
    trained.grids[At(id)] = grid->spec;
    any = true;
  }
  if (!any) return absl::OkStatus();
  const Recipe::SignRound& recipe = work.recipe.signround();
  SignRoundOptions options;
  if (recipe.start_with_gptq()) {
    const absl::Status status = RoundByGptq(work);
    if (!status.ok()) return status;
    for (const LinearId id : kAllLinears) {
      if (!trained.grids[At(id)].has_value()) continue;
      options.starts[At(id)] = &*work.block.codes[At(id)];
    }
  }
  const absl::Time start = absl::Now();
  options.iterations = recipe.iterations();
  if (recipe.has_learning_rate()) {
    options.learning_rate = recipe.learning_rate();
  }
  options.batch = recipe.batch();
  options.tune_range = recipe.tune_range();
  options.seed = work.recipe.calibration().seed();
  if (work.precision == GemmPrecision::kF32) {
    options.precision = work.precision;  // else it is the method's to say
  }
  options.cancelled = work.Cancelled(options.batch);
  absl::StatusOr<SignRoundResult> result =
      TuneSignRound(trained, options, work.pool);
  if (absl::IsCancelled(result.status())) {
    const absl::Status worded = work.step(0);
    if (!worded.ok()) return worded;
  }
  if (!result.ok()) return result.status();
  for (const LinearId id : kAllLinears) {
    if (!trained.grids[At(id)].has_value()) continue;
    Keep(work, id, std::move(result->matrices[At(id)]), start);
  }
  BlockReport& report = work.block.report;
  report.set_start_loss(result->start_loss);
  report.set_loss(result->best_loss);
  report.set_iterations(result->best_iteration);
  work.AddPhase("training", start,
                work.TrainingMultiplies(result->iterations, recipe.batch()));
  return work.step(0);
}

}  // namespace

absl::Status RoundBlock(BlockWork& work) {
  AddReports(work);
  switch (work.recipe.rounding()) {
    case Recipe::GPTQ:
      return RoundByGptq(work);
    case Recipe::SIGNROUND:
      return RoundBySign(work);
    case Recipe::NEAREST:
      break;
  }
  const absl::Time start = absl::Now();
  absl::Status status;
  for (const LinearId id : kAllLinears) {
    if (!status.ok() || !work.grids[At(id)].has_value()) continue;
    status = RoundToNearest(work, id);
  }
  work.AddPhase("rounding", start);
  return status;
}

}  // namespace nibble
