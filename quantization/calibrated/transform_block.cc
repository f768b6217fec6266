#include "quantization/calibrated/transform_block.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/gemm/gemm.h"
#include "quantization/awq/awq.h"
#include "quantization/calibrated/finish_matrix.h"
#include "quantization/folding/folding.h"
#include "quantization/gptq/damped_factor.h"
#include "quantization/gptq/gram.h"
#include "quantization/recipe/recipe.h"
#include "quantization/rounding/round_matrix.h"
#include "quantization/teq/teq.h"
#include "quantization/tuning/trained_block.h"

namespace nibble {
namespace {

constexpr auto At = BlockWork::At;

// Input j of the consumers is now that of before divided by its scale.
void ScaleImportance(const FoldablePair& pair, absl::Span<const float> scales,
                     BlockWork& work) {
  for (const LinearId id : pair.consumers) {
    std::vector<float>& importance = work.importance[At(id)];
    for (size_t j = 0; j < importance.size(); ++j) {
      const float scale = scales[static_cast<size_t>(pair.scale_of_input[j])];
      importance[j] /= scale * scale;
    }
  }
}

ScaleReport& AddScales(const FoldablePair& pair, absl::Span<const float> scales,
                       BlockWork& work) {
  ScaleReport& report = *work.block.report.add_scales();
  report.set_input(FoldIntoName(pair.producer));
  const auto [least, greatest] =
      std::minmax_element(scales.begin(), scales.end());
  report.set_least(*least);
  report.set_greatest(*greatest);
  return report;
}

absl::Status CheckAllWeights(const BlockWork& work) {
  for (const LinearId id : kAllLinears) {
    if (!work.grids[At(id)].has_value()) continue;
    const absl::Status checked =
        CheckWeights(std::as_const(work.weights)[id].view(), work.pool);
    if (!checked.ok()) {
      return absl::Status(checked.code(),
                          absl::StrCat(work.Name(id), ": ", checked.message()));
    }
  }
  return absl::OkStatus();
}

// Of the inputs of a matrix that GPTQ will round; else empty.
std::vector<double> VariancesBehind(const BlockWork& work, LinearId id) {
  if (!RunsGptq(work.recipe) || !IsCalibrated(work, id)) return {};
  FactorOptions factor;
  factor.act_order = work.recipe.gptq().act_order();
  factor.damping = work.recipe.gptq().damping();
  return ConditionalVariances(*work.grams[At(id)], factor, work.pool);
}

// What AWQ is told of the matrices, as far as their inputs go.
struct MomentStatistics {
  BlockStatistics inputs;
  std::array<std::vector<double>, kLinearCount> variances;  // viewed by inputs
};

absl::Status FillStatistics(const BlockWork& work, MomentStatistics* filled) {
  for (const LinearId id : kAllLinears) {
    const Gram& gram = *work.grams[At(id)];
    if (!gram.is_finite()) {
      return absl::InvalidArgumentError(
          absl::StrCat(work.Name(id), ": its inputs are not finite numbers"));
    }
    filled->variances[At(id)] = VariancesBehind(work, id);
    filled->inputs[At(id)] = {gram.mean(), gram.mean_absolute(),
                              filled->variances[At(id)]};
    const absl::Status asked = work.step(0);
    if (!asked.ok()) return asked;
  }
  return absl::OkStatus();
}

TrainedGrids GridsOf(const BlockWork& work) {
  TrainedGrids grids;
  for (const LinearId id : kAllLinears) {
    const std::optional<MatrixGrid>& grid = work.grids[At(id)];
    if (grid.has_value()) grids[At(id)] = grid->spec;
  }
  return grids;
}

absl::Status TransformByActivations(BlockWork& work) {
  const absl::Time start = absl::Now();
  absl::Status status = CheckAllWeights(work);
  MomentStatistics statistics;
  if (status.ok()) status = FillStatistics(work, &statistics);
  if (!status.ok()) return status;
  AwqOptions options;
  options.scale_steps = work.recipe.awq().scale_steps();
  options.clip = work.recipe.awq().clip();
  options.grids = GridsOf(work);
  AwqResult result = TransformAwq(work.config, statistics.inputs, options,
                                  work.weights, work.pool);
  for (const ChosenScales& chosen : result.pairs) {
    ScaleReport& report = AddScales(chosen.pair, chosen.scales, work);
    report.set_identity_loss(chosen.identity_loss);
    report.set_loss(chosen.loss);
    ScaleImportance(chosen.pair, chosen.scales, work);
  }
  work.clip = std::move(result.clip);
  // At 7B's width 0.7 GB, which the rounding wants.
  work.grams = {};
  work.AddPhase("transform", start);
  return absl::OkStatus();
}

// What GPTQ leaves of an error at each input: the square root of the share of
// its variance that the inputs which follow do not explain.
std::vector<float> ResidualsOf(const Gram& gram,
                               absl::Span<const double> variances) {
  const MomentDiagonal diagonal = DiagonalOf(gram);
  std::vector<float> residuals;
  residuals.reserve(variances.size());
  for (size_t j = 0; j < variances.size(); ++j) {
    // Damping may make more of a variance than the input has.
    residuals.push_back(static_cast<float>(
        std::sqrt(std::min(1.0, variances[j] / diagonal.values[j]))));
  }
  return residuals;
}

bool AnyCalibrated(const BlockWork& work, absl::Span<const LinearId> ids) {
  return std::any_of(ids.begin(), ids.end(),
                     [&](LinearId id) { return IsCalibrated(work, id); });
}

using Residuals = std::array<std::vector<float>, kLinearCount>;

// Where GPTQ rounds, TEQ trains for the errors that it leaves, and starts from
// AWQ's scales; what GPTQ does not round it leaves to TEQ's own start and the
// nearest codes. `options` views `residuals`.
absl::Status PrepareForGptq(BlockWork& work, TeqOptions& options,
                            Residuals& residuals) {
  const absl::Time begin = absl::Now();
  absl::Status status = CheckAllWeights(work);
  MomentStatistics statistics;
  if (status.ok()) status = FillStatistics(work, &statistics);
  if (!status.ok()) return status;
  for (const LinearId id : kAllLinears) {
    residuals[At(id)] =
        ResidualsOf(*work.grams[At(id)], statistics.variances[At(id)]);
    options.residuals[At(id)] = residuals[At(id)];
  }
  AwqOptions search;
  search.grids = GridsOf(work);
  const std::vector<ChosenScales> found = SearchAwqScales(
      work.config, statistics.inputs, search, work.weights, work.pool);
  for (const FoldablePair& pair : FoldablePairs(work.config)) {
    std::vector<float>& start = options.start.emplace_back();
    if (!AnyCalibrated(work, pair.consumers)) continue;
    for (const ChosenScales& chosen : found) {
      if (chosen.pair.producer == pair.producer) start = chosen.scales;
    }
  }
  work.AddPhase("scales to start from", begin);
  return work.step(0);
}

absl::Status TransformByTraining(BlockWork& work) {
  TrainedBlock trained;
  trained.config = &work.config;
  trained.layer = work.layer;
  trained.weights = &work.weights;
  trained.inputs = &*work.streams.quantized;
  trained.targets = &work.Targets();
  trained.grids = GridsOf(work);
  const Recipe::Teq& recipe = work.recipe.teq();
  TeqOptions options;
  options.iterations = recipe.iterations();
  options.learning_rate = recipe.learning_rate();
  options.batch = recipe.batch();
  options.seed = work.recipe.calibration().seed();
  if (work.precision == GemmPrecision::kF32) {
    options.precision = work.precision;  // else it is the method's to say
  }
  options.cancelled = work.Cancelled(options.batch);
  Residuals residuals;
  if (RunsGptq(work.recipe) && AnyCalibrated(work, kAllLinears)) {
    const absl::Status prepared = PrepareForGptq(work, options, residuals);
    if (!prepared.ok()) return prepared;
  }
  work.grams = {};  // as there
  const absl::Time start = absl::Now();
  const absl::StatusOr<TeqResult> result =
      TrainTeq(trained, options, work.pool);
  if (absl::IsCancelled(result.status())) {
    const absl::Status worded = work.step(0);
    if (!worded.ok()) return worded;
  }
  if (!result.ok()) return result.status();
  const std::vector<FoldablePair> pairs = FoldablePairs(work.config);
  for (size_t i = 0; i < pairs.size(); ++i) {
    Fold(pairs[i], result->scales[i], work.config, work.weights);
    AddScales(pairs[i], result->scales[i], work);
    ScaleImportance(pairs[i], result->scales[i], work);
  }
  BlockReport& report = work.block.report;
  report.set_start_loss(result->identity_loss);
  report.set_loss(result->best_loss);
  report.set_iterations(result->best_iteration);
  work.AddPhase("transform", start,
                work.TrainingMultiplies(recipe.iterations(), recipe.batch()));
  return absl::OkStatus();
}

}  // namespace

absl::Status TransformBlock(BlockWork& work) {
  if (work.recipe.transform() == Recipe::NONE) return absl::OkStatus();
  const absl::Status status = work.recipe.transform() == Recipe::AWQ
                                  ? TransformByActivations(work)
                                  : TransformByTraining(work);
  if (!status.ok()) return status;
  work.block.transformed = &work.weights;
  return work.step(0);
}

}  // namespace nibble
