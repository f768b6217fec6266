#include "quantization/calibrated/calibrated_flow.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/cpu.h"
#include "kernels/gemm/gemm.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "quantization/block/load_block.h"
#include "quantization/calibrated/block_cache.h"
#include "quantization/calibrated/block_file.h"
#include "quantization/calibrated/block_pass.h"
#include "quantization/calibrated/block_quantizer.h"
#include "quantization/calibrated/flow_checks.h"
#include "quantization/calibrated/model_digest.h"
#include "quantization/calibrated/overlay.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/recipe/recipe.h"

namespace nibble {
namespace {

const char* PrecisionName(GemmPrecision precision) {
  return precision == GemmPrecision::kF32 ? "f32" : "bf16";
}

class Flow {
 public:
  Flow(const Checkpoint& checkpoint, const CalibrationWindows* windows,
       const Recipe& recipe, const MatrixGrids& grids,
       const CalibratedOptions& options, ThreadPool& pool)
      : checkpoint_(checkpoint),
        windows_(windows),
        recipe_(recipe),
        grids_(grids),
        quantizer_options_({options.precision, options.measure_damage,
                            windows == nullptr ? 1
                                               : static_cast<int64_t>(
                                                     windows->windows.size())}),
        needs_(NeedsOf(recipe, quantizer_options_)),
        options_(options),
        pool_(pool),
        layers_(checkpoint.config.layers),
        quantizer_(checkpoint.config, recipe, grids, quantizer_options_, pool) {
  }

  absl::StatusOr<WorkFolder> Open() {
    const absl::Time start = absl::Now();
    absl::StatusOr<std::string> model = ModelDigest(checkpoint_, pool_);
    if (!model.ok()) return model.status();
    AddPhase("model digest", start);
    identity_ = {RecipeText(recipe_),
                 *std::move(model),
                 windows_ == nullptr ? "" : windows_->digest,
                 options_.program_version,
                 std::string(IsaName(ActiveIsa())),
                 PrecisionName(options_.precision)};
    return WorkFolder::Open(options_.work_folder, identity_, options_.resume);
  }

  absl::Status Run(const WorkFolder& work) {
    std::vector<std::string> notes;
    auto finished = work.FinishedBlocks(layers_, &notes);
    if (!finished.ok()) return finished.status();
    blocks_ = *std::move(finished);
    for (const std::string& note : notes) report_.add_notes(note);
    report_.set_resumed_blocks(static_cast<int64_t>(blocks_.size()));
    for (const auto& block : blocks_) *report_.add_blocks() = block->report();
    BlockCache cache(options_.cache_folder, identity_, recipe_, grids_,
                     /*chained=*/needs_.quantized);
    for (int64_t layer = 0; layer < layers_; ++layer) {
      const std::string key = cache.KeyOf(layer, options_.measure_damage);
      if (layer < static_cast<int64_t>(blocks_.size())) continue;
      absl::Status status;
      if (cache.Take(key, work.BlockPath(layer))) {
        status = AddBlock(layer, work);
        report_.set_cached_blocks(report_.cached_blocks() + 1);
      } else {
        status = AdvanceTo(layer);
        if (status.ok()) status = Finish(layer, work);
        if (status.ok()) cache.Put(key, work.BlockPath(layer));
      }
      if (!status.ok()) return status;
    }
    return checkpoint_.tensors->CheckUnchanged();
  }

  std::vector<std::shared_ptr<const BlockFile>> TakeBlocks() {
    return std::move(blocks_);
  }

  CalibratedReport TakeReport() {
    if (quantizer_.pass().multiplies() > 0) {
      AddPhase("of which forward", quantizer_.pass().seconds(),
               quantizer_.pass().multiplies());
    }
    for (const PhaseReport& phase : phases_) *report_.add_phases() = phase;
    if (windows_ != nullptr) {
      report_.set_windows(static_cast<int64_t>(windows_->windows.size()));
      report_.set_length(windows_->length);
      report_.set_calibration_digest(windows_->digest);
    }
    return std::move(report_);
  }

 private:
  void AddPhase(const std::string& name, absl::Time start,
                double multiplies = 0) {
    AddPhase(name, absl::ToDoubleSeconds(absl::Now() - start), multiplies);
  }

  void AddPhase(const std::string& name, double seconds, double multiplies) {
    auto found = std::find_if(
        phases_.begin(), phases_.end(),
        [&name](const PhaseReport& phase) { return phase.name() == name; });
    if (found == phases_.end()) found = phases_.emplace(phases_.end());
    PhaseReport& phase = *found;
    phase.set_name(name);
    phase.set_seconds(phase.seconds() + seconds);
    phase.set_multiplies(phase.multiplies() + multiplies);
  }

  absl::Status Embed() {
    if (!needs_.floats && !needs_.quantized) return absl::OkStatus();
    const absl::Time start = absl::Now();
    for (const auto& [needed, states] :
         {std::make_pair(needs_.floats, &streams_.floats),
          std::make_pair(needs_.quantized, &streams_.quantized)}) {
      if (!needed) continue;
      absl::StatusOr<HiddenStates> embedded =
          EmbedWindows(checkpoint_, windows_->windows, pool_);
      if (!embedded.ok()) return embedded.status();
      *states = *std::move(embedded);
    }
    AddPhase("embedding", start);
    return absl::OkStatus();
  }

  // Called between pieces of work on a block.
  absl::Status Step(int64_t layer, double share) {
    if (options_.cancelled != nullptr && options_.cancelled->load()) {
      return absl::CancelledError(
          absl::StrCat("interrupted; ", blocks_.size(), " of ", layers_,
                       " blocks are finished in ", options_.work_folder,
                       ", and --resume goes on behind them"));
    }
    block_share_ += share / std::max(1.0, quantizer_.passes());
    if (options_.progress) {
      const double done =
          static_cast<double>(layer) + std::min(1.0, block_share_);
      options_.progress({layer, layers_, done / static_cast<double>(layers_)});
    }
    return absl::OkStatus();
  }

  BlockStep StepOf(int64_t layer) {
    block_share_ = 0;
    return [this, layer](double share) { return Step(layer, share); };
  }

  bool IsLast(int64_t layer) const { return layer + 1 == layers_; }

  // Runs the streams through the blocks that were finished earlier, until they
  // are what block `layer` is given.
  absl::Status AdvanceTo(int64_t layer) {
    absl::Status status;
    if (streams_at_ < 0) {
      status = Embed();
      streams_at_ = 0;
    }
    for (; status.ok() && streams_at_ < layer; ++streams_at_) {
      status = Replay(streams_at_);
    }
    return status;
  }

  absl::Status Replay(int64_t layer) {
    if (!needs_.floats && !needs_.quantized) return absl::OkStatus();
    const BlockStep step = StepOf(layer);
    const absl::Time start = absl::Now();
    absl::StatusOr<BlockWeights<float>> weights =
        LoadBlock(checkpoint_, layer, pool_);
    if (!weights.ok()) return weights.status();
    absl::Status status =
        quantizer_.AdvanceFloats(layer, *weights, streams_, step);
    if (!status.ok()) return status;
    ApplyBlock(*blocks_[static_cast<size_t>(layer)], *weights, pool_);
    status =
        quantizer_.AdvanceQuantized(layer, *weights, streams_, step, nullptr);
    AddPhase("replay of finished blocks", start);
    return status;
  }

  absl::Status Finish(int64_t layer, const WorkFolder& work) {
    const BlockStep step = StepOf(layer);
    const absl::Time start = absl::Now();
    absl::StatusOr<BlockWeights<float>> weights =
        LoadBlock(checkpoint_, layer, pool_);
    if (!weights.ok()) return weights.status();
    AddPhase("loading", start);
    absl::StatusOr<FinishedBlock> finished =
        quantizer_.Quantize(layer, *weights, streams_, step);
    if (!finished.ok()) return finished.status();
    const absl::Status written = Write(layer, work, *finished);
    if (!written.ok()) return written;
    for (const PhaseReport& phase : finished->report.phases()) {
      AddPhase(phase.name(), phase.seconds(), phase.multiplies());
    }
    *finished = FinishedBlock();
    if (quantizer_.floats_wait()) {
      // A transform may have changed the weights, and a later run would have
      // the checkpoint's.
      *weights = BlockWeights<float>();
      weights = LoadBlock(checkpoint_, layer, pool_);
      if (!weights.ok()) return weights.status();
      const absl::Time floats = absl::Now();
      const absl::Status status =
          quantizer_.AdvanceFloats(layer, *weights, streams_, step);
      if (!status.ok()) return status;
      AddPhase("float pass", floats);
    }
    const absl::Status advanced = Advance(layer, *weights, step);
    streams_at_ = layer + 1;
    return advanced;
  }

  // Writes a block and opens what was written.
  absl::Status Write(int64_t layer, const WorkFolder& work,
                     const FinishedBlock& finished) {
    const absl::Time start = absl::Now();
    const absl::Status written = WriteBlock(work.BlockPath(layer), finished);
    if (!written.ok()) {
      return absl::Status(
          written.code(),
          absl::StrCat(written.message(), "; ", blocks_.size(), " of ", layers_,
                       " blocks are finished, and --resume goes on "
                       "behind them"));
    }
    const absl::Status opened = AddBlock(layer, work);
    AddPhase("saving", start);
    return opened;
  }

  absl::Status AddBlock(int64_t layer, const WorkFolder& work) {
    absl::StatusOr<std::shared_ptr<const BlockFile>> block =
        BlockFile::Open(work.BlockPath(layer));
    if (!block.ok()) return block.status();
    *report_.add_blocks() = (*block)->report();
    blocks_.push_back(*std::move(block));
    return absl::OkStatus();
  }

  // Runs the quantized stream through the block that was just written, as a
  // later run would.
  absl::Status Advance(int64_t layer, BlockWeights<float>& weights,
                       const BlockStep& step) {
    const absl::Time start = absl::Now();
    const bool compared = needs_.floats && needs_.quantized;
    if (!needs_.quantized || (IsLast(layer) && !compared)) {
      return step(quantizer_.passes());
    }
    ApplyBlock(*blocks_.back(), weights, pool_);
    const double before = quantizer_.pass().multiplies();
    double error = 0;
    const absl::Status status =
        quantizer_.AdvanceQuantized(layer, weights, streams_, step, &error);
    if (!status.ok()) return status;
    AddPhase("quantized pass", start, quantizer_.pass().multiplies() - before);
    if (compared) {
      report_.mutable_blocks(report_.blocks_size() - 1)
          ->set_output_error(error);
    }
    return step(quantizer_.passes());
  }

  const Checkpoint& checkpoint_;
  const CalibrationWindows* windows_;
  const Recipe& recipe_;
  const MatrixGrids& grids_;
  const QuantizerOptions quantizer_options_;
  const StreamNeeds needs_;
  const CalibratedOptions& options_;
  ThreadPool& pool_;
  const int64_t layers_;
  BlockQuantizer quantizer_;
  Streams streams_;
  std::vector<std::shared_ptr<const BlockFile>> blocks_;  // finished
  int64_t streams_at_ = -1;  // the block that is given them; -1: not there yet
  WorkIdentity identity_;
  double block_share_ = 0;           // of the work on one block
  std::vector<PhaseReport> phases_;  // in the order of their beginning
  CalibratedReport report_;
};

}  // namespace

absl::StatusOr<CalibratedResult> QuantizeWithRecipe(
    const Checkpoint& checkpoint, const CalibrationWindows* windows,
    const Recipe& recipe, const CalibratedOptions& options, ThreadPool& pool) {
  const absl::Time start = absl::Now();
  if (checkpoint.packed != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.path,
                     ": is packed already; give the checkpoint it was made "
                     "from"));
  }
  absl::StatusOr<Recipe> complete = CompleteRecipe(recipe);
  if (!complete.ok()) return complete.status();
  absl::Status status = CheckWindows(
      *complete, windows, NeedsCalibration(*complete) || options.measure_damage,
      checkpoint.config.max_positions);
  if (!status.ok()) return status;
  if (NeedsCalibration(*complete)) {
    complete->mutable_calibration()->set_digest(windows->digest);
  }
  const absl::StatusOr<MatrixGrids> grids = MatrixGrids::Create(*complete);
  if (!grids.ok()) return grids.status();
  status = CheckGrids(*grids, checkpoint.config);
  if (!status.ok()) return status;
  const std::optional<MatrixGrid> head = grids->Find("head.weight");
  std::optional<int64_t> head_group_size;
  if (head.has_value()) head_group_size = head->spec.group_size;
  status = CheckOverlay(checkpoint, head_group_size, pool);
  if (!status.ok()) return status;
  Flow flow(checkpoint, windows, *complete, *grids, options, pool);
  absl::StatusOr<WorkFolder> work = flow.Open();
  if (!work.ok()) return work.status();
  status = flow.Run(*work);
  if (!status.ok()) return status;
  absl::StatusOr<Checkpoint> overlay =
      OverlayCheckpoint(checkpoint, flow.TakeBlocks(), head_group_size, pool);
  if (!overlay.ok()) return overlay.status();
  CalibratedResult result = {*std::move(overlay), *std::move(complete),
                             flow.TakeReport(), *std::move(work)};
  result.report.set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  return result;
}

}  // namespace nibble
