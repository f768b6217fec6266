#include "quantization/calibrated/block_quantizer.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "quantization/block/block.h"
#include "quantization/calibrated/mean_squares.h"
#include "quantization/calibrated/round_block.h"
#include "quantization/calibrated/transform_block.h"
#include "quantization/gptq/gram.h"
#include "quantization/recipe/recipe.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr auto At = BlockWork::At;

bool UsesImportance(const Recipe& recipe) {
  return recipe.rounding() == Recipe::NEAREST &&
         recipe.round_to_nearest().importance();
}

bool Trains(const Recipe& recipe) {
  return recipe.transform() == Recipe::TEQ ||
         recipe.rounding() == Recipe::SIGNROUND;
}

// The transform reads second moments: AWQ's always, TEQ's where it trains for
// the errors that GPTQ leaves.
bool TransformsByMoments(const Recipe& recipe) {
  return recipe.transform() == Recipe::AWQ ||
         (recipe.transform() == Recipe::TEQ && RunsGptq(recipe));
}

// GPTQ compares the inputs of both models.
bool Corrects(const Recipe& recipe) {
  return RunsGptq(recipe) && recipe.gptq().asymmetric_correction() > 0;
}

struct Distance {
  double error = 0;   // of (y - wanted)^2
  double signal = 0;  // of wanted^2
};

// Rows are summed one by one: the same for any number of threads.
void AddDistance(MatrixView<const float> y, MatrixView<const float> wanted,
                 ThreadPool& pool, Distance* sum) {
  std::vector<Distance> rows(static_cast<size_t>(y.rows));
  pool.ParallelFor(y.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      Distance row;
      for (int64_t j = 0; j < y.cols; ++j) {
        const double target = wanted.row(i)[j];
        const double difference = y.row(i)[j] - target;
        row.error += difference * difference;
        row.signal += target * target;
      }
      rows[static_cast<size_t>(i)] = row;
    }
  });
  for (const Distance& row : rows) {
    sum->error += row.error;
    sum->signal += row.signal;
  }
}

// Passes over all windows.
double PassesOf(const Recipe& recipe, const QuantizerOptions& options) {
  const StreamNeeds needs = NeedsOf(recipe, options);
  double passes = (needs.floats ? 1 : 0) + (needs.quantized ? 1 : 0);
  if (RunsGptq(recipe)) {
    passes += recipe.gptq().true_sequential() ? 4 : 1;
  }
  if (recipe.rounding() == Recipe::SIGNROUND) {
    passes +=
        BlockWork::TrainingPasses(recipe.signround().iterations(),
                                  recipe.signround().batch(), options.windows);
  }
  if (recipe.transform() == Recipe::TEQ) {
    passes += BlockWork::TrainingPasses(recipe.teq().iterations(),
                                        recipe.teq().batch(), options.windows);
  }
  return std::max(1.0, passes);
}

}  // namespace

StreamNeeds NeedsOf(const Recipe& recipe, const QuantizerOptions& options) {
  StreamNeeds needs;
  const bool trains = Trains(recipe);
  needs.quantized = trains || RunsGptq(recipe);
  needs.floats = trains || recipe.transform() == Recipe::AWQ ||
                 Corrects(recipe) || UsesImportance(recipe) ||
                 (options.measure_damage && !needs.quantized);
  return needs;
}

BlockQuantizer::BlockQuantizer(const DecoderConfig& config,
                               const Recipe& recipe, const MatrixGrids& grids,
                               const QuantizerOptions& options,
                               ThreadPool& pool)
    : config_(config),
      recipe_(recipe),
      grids_(grids),
      options_(options),
      pool_(pool),
      passes_(PassesOf(recipe, options)),
      pass_(config, pool) {}

bool BlockQuantizer::floats_wait() const { return Corrects(recipe_); }

absl::StatusOr<FinishedBlock> BlockQuantizer::Quantize(
    int64_t layer, BlockWeights<float>& weights, Streams& streams,
    const BlockStep& step) {
  BlockWork work = {
      config_, recipe_, layer, weights, streams, step, options_.precision,
      pass_,   pool_};
  work.block.report.set_layer(layer);
  for (const LinearId id : kAllLinears) {
    work.grids[At(id)] = grids_.Find(work.Name(id));
  }
  HiddenStates probe;
  if (options_.measure_damage) probe = TakeProbe(streams);
  absl::Status status;
  if (streams.floats.has_value()) status = FloatPass(work);
  if (status.ok()) status = TransformBlock(work);
  if (status.ok()) status = RoundBlock(work);
  if (!status.ok()) return status;
  if (options_.measure_damage) MeasureDamage(work, probe);
  return std::move(work.block);
}

absl::Status BlockQuantizer::FloatPass(BlockWork& work) {
  const absl::Time start = absl::Now();
  const double before = pass_.multiplies();
  const bool grams = TransformsByMoments(recipe_);
  HiddenStates& states = *work.streams.floats;
  HiddenStates* outputs = floats_wait() ? nullptr : &states;
  if (floats_wait() && Trains(recipe_)) {
    outputs = &work.outputs.emplace(states.windows(), states.length(),
                                    states.hidden());
  }
  if (!grams && outputs == nullptr) return absl::OkStatus();
  std::vector<MeanSquares> squares;
  for (const LinearId id : kAllLinears) {
    const int64_t inputs = work.weights[id].inputs;
    if (UsesImportance(recipe_)) squares.emplace_back(inputs);
    if (!grams) continue;
    const bool shared =
        id == LinearId::kUp && config_.norm_layout == NormLayout::kShared;
    work.grams[At(id)] = shared ? work.grams[At(LinearId::kQkv)]
                                : std::make_shared<Gram>(inputs);
  }
  Block<float> block(config_, work.layer, states.length(), options_.precision);
  block.SetWeights(work.weights, /*gradients=*/false, pool_);
  const absl::Status status = pass_.Run(
      block, states, std::nullopt, work.step,
      [&](int64_t first, const BlockActivations<float>& acts) {
        for (const LinearId id : kAllLinears) {
          if (!squares.empty()) squares[At(id)].Add(acts.input(id), pool_);
          Gram* gram = work.grams[At(id)].get();
          const bool seen = id == LinearId::kUp && gram == work.grams[0].get();
          if (gram != nullptr && !seen) gram->Add(acts.input(id), pool_);
        }
        if (outputs != nullptr) outputs->Store(first, acts.output(), pool_);
      });
  if (!status.ok()) return status;
  double multiplies = pass_.multiplies() - before;
  for (const LinearId id : kAllLinears) {
    if (!squares.empty()) work.importance[At(id)] = squares[At(id)].Values();
    Gram* gram = work.grams[At(id)].get();
    const bool seen = id == LinearId::kUp && gram == work.grams[0].get();
    if (gram == nullptr || seen) continue;
    gram->Finish(pool_);
    multiplies += BlockWork::MultipliesOf(*gram);
  }
  work.AddPhase("float pass", start, multiplies);
  return absl::OkStatus();
}

HiddenStates BlockQuantizer::TakeProbe(const Streams& streams) {
  const HiddenStates& all =
      streams.floats.has_value() ? *streams.floats : *streams.quantized;
  const int64_t windows = std::min(kProbeWindows, all.windows());
  HiddenStates probe(windows, all.length(), all.hidden());
  Array<float> values(static_cast<size_t>(all.length() * all.hidden()));
  const MatrixView<float> x(values.data(), all.length(), all.hidden());
  for (int64_t i = 0; i < windows; ++i) {
    all.Load(i, x, pool_);
    probe.Store(i, x, pool_);
  }
  return probe;
}

void BlockQuantizer::MeasureDamage(BlockWork& work, const HiddenStates& probe) {
  const absl::Time start = absl::Now();
  Block<float> block(config_, work.layer, probe.length(), options_.precision);
  block.SetWeights(work.weights, /*gradients=*/false, pool_);
  std::vector<Array<float>> wanted;  // of each window, [tokens, hidden]
  for (int64_t i = 0; i < probe.windows(); ++i) {
    const MatrixView<const float> y =
        pass_.RunWindows(block, probe, i, 1, std::nullopt).output();
    wanted.emplace_back(static_cast<size_t>(y.rows * y.cols));
    std::copy(y.data, y.data + y.rows * y.cols, wanted.back().begin());
  }
  for (const LinearId id : kAllLinears) {
    const std::optional<QuantizedMatrix>& codes = work.block.codes[At(id)];
    if (!codes.has_value()) continue;
    Array<float> rounded(static_cast<size_t>(codes->outputs * codes->inputs));
    const MatrixView<float> view(rounded.data(), codes->outputs, codes->inputs);
    Dequantize(*codes, view, pool_);
    block.SetLinear(id, view, pool_);
    Distance distance;
    for (int64_t i = 0; i < probe.windows(); ++i) {
      const MatrixView<const float> y =
          pass_.RunWindows(block, probe, i, 1, std::nullopt).output();
      const MatrixView<const float> target(
          wanted[static_cast<size_t>(i)].data(), y.rows, y.cols);
      AddDistance(y, target, pool_, &distance);
    }
    block.SetLinear(id, std::as_const(work.weights)[id].view(), pool_);
    work.block.report.mutable_matrices(static_cast<int>(At(id)))
        ->set_damage(distance.signal > 0 ? distance.error / distance.signal
                                         : 0.0);
  }
  work.AddPhase("damage", start);
}

absl::Status BlockQuantizer::AdvanceFloats(int64_t layer,
                                           const BlockWeights<float>& weights,
                                           Streams& streams,
                                           const BlockStep& step) {
  if (!streams.floats.has_value()) return absl::OkStatus();
  HiddenStates& states = *streams.floats;
  Block<float> block(config_, layer, states.length(), options_.precision);
  block.SetWeights(weights, /*gradients=*/false, pool_);
  return pass_.Run(block, states, std::nullopt, step,
                   [&](int64_t first, const BlockActivations<float>& acts) {
                     states.Store(first, acts.output(), pool_);
                   });
}

absl::Status BlockQuantizer::AdvanceQuantized(
    int64_t layer, const BlockWeights<float>& weights, Streams& streams,
    const BlockStep& step, double* error) {
  if (!streams.quantized.has_value()) return absl::OkStatus();
  HiddenStates& states = *streams.quantized;
  Block<float> block(config_, layer, states.length(), options_.precision);
  block.SetWeights(weights, /*gradients=*/false, pool_);
  Distance distance;
  Array<float> values;
  const absl::Status status =
      pass_.Run(block, states, std::nullopt, step,
                [&](int64_t first, const BlockActivations<float>& acts) {
                  const MatrixView<const float> y = acts.output();
                  states.Store(first, y, pool_);
                  if (error == nullptr || !streams.floats.has_value()) return;
                  const size_t size = static_cast<size_t>(y.rows * y.cols);
                  if (values.size() < size) values = Array<float>(size);
                  const MatrixView<float> wanted(values.data(), y.rows, y.cols);
                  streams.floats->Load(first, wanted, pool_);
                  AddDistance(y, wanted, pool_, &distance);
                });
  if (error != nullptr && distance.signal > 0) {
    *error = distance.error / distance.signal;
  }
  return status;
}

}  // namespace nibble
