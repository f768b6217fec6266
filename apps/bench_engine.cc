#include "apps/bench_engine.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "apps/common/app.h"
#include "apps/common/engine_flags.h"
#include "apps/common/weight_flags.h"
#include "kernels/cpu.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/synthetic/synthetic_model.h"
#include "models/synthetic/synthetic_shapes.h"
#include "runtime/memory.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

absl::StatusOr<SyntheticOptions> OptionsOf(const BenchPlan& plan) {
  const absl::StatusOr<WeightFlags> flags = WeightsFromFlags();
  if (!flags.ok()) return flags.status();
  SyntheticOptions options;
  options.weights = flags->format.value_or(WeightFormat::kInt4);
  options.group_size = flags->group_size.value_or(options.group_size);
  options.symmetric = flags->symmetric.value_or(options.symmetric);
  options.head = plan.head;
  return options;
}

absl::Status CheckFits(const BenchPlan& plan, const DecoderConfig& config,
                       const SyntheticOptions& options) {
  const absl::StatusOr<int64_t> bytes = SyntheticBytes(config, options);
  if (!bytes.ok()) return bytes.status();
  const int64_t available = AvailableMemoryBytes();
  if (*bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "--shape=", plan.shape, ": its weights take ", FormatBytes(*bytes),
      " in ", WeightFormatName(options.weights), ", and ",
      FormatBytes(available),
      " of memory are free; use a smaller shape or fewer bits"));
}

absl::StatusOr<std::unique_ptr<Engine>> MakeShape(const BenchPlan& plan) {
  absl::StatusOr<EngineOptions> engine_options = EngineOptionsFromFlags();
  if (!engine_options.ok()) return engine_options.status();
  const absl::Status isa = ApplyIsaFlag();
  if (!isa.ok()) return isa;
  const absl::StatusOr<SyntheticOptions> options = OptionsOf(plan);
  if (!options.ok()) return options.status();
  DecoderConfig config = *SyntheticShape(plan.shape);
  config.max_positions = std::max(config.max_positions, plan.MostTokens());
  config.rope.max_positions = config.max_positions;
  const absl::Status fits = CheckFits(plan, config, *options);
  if (!fits.ok()) return fits;

  const int threads =
      engine_options->threads > 0 ? engine_options->threads : AvailableCores();
  ThreadPool pool(threads);
  absl::StatusOr<DecoderWeights> weights =
      MakeSyntheticWeights(config, *options, pool);
  if (!weights.ok()) return weights.status();
  DecoderOptions decoder_options;
  decoder_options.activations = engine_options->activations;
  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Create(*std::move(weights), decoder_options);
  if (!decoder.ok()) return decoder.status();
  engine_options->model_path = plan.shape;
  if (!engine_options->kv_cache.has_value()) {
    engine_options->kv_cache =
        IsInteger(options->weights) ? DType::kI8 : DType::kF32;
  }
  return Engine::Create(*engine_options, *std::move(decoder), nullptr);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> OpenBenchEngine(const BenchPlan& plan) {
  return plan.shape.empty() ? OpenEngineFromFlags() : MakeShape(plan);
}

}  // namespace nibble
