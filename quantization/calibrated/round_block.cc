#include "quantization/calibrated/round_block.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "quantization/block/block.h"
#include "quantization/gptq/gptq.h"
#include "quantization/gptq/gram.h"
#include "quantization/gptq/residual_moment.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "quantization/signround/signround.h"
#include "quantization/tuning/trained_block.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr auto At = BlockWork::At;

const char* OffsetName(CodeOffset offset) {
  switch (offset) {
    case CodeOffset::kSymmetric:
      return "symmetric";
    case CodeOffset::kZeros:
      return "zeros";
    case CodeOffset::kMinimums:
      break;
  }
  return "minimums";
}

// sqrt(sum (w - w')^2 / sum w^2). Rows are summed one by one: the same for any
// number of threads.
double RelativeError(MatrixView<const float> weights,
                     const QuantizedMatrix& matrix, ThreadPool& pool) {
  const size_t rows = static_cast<size_t>(weights.rows);
  std::vector<double> errors(rows), signals(rows);
  pool.ParallelFor(weights.rows, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(weights.cols));
    for (int64_t i = begin; i < end; ++i) {
      matrix.DequantizeRow(i, absl::MakeSpan(row));
      double error = 0, signal = 0;
      for (int64_t j = 0; j < weights.cols; ++j) {
        const double w = weights.row(i)[j];
        const double difference = w - row[static_cast<size_t>(j)];
        error += difference * difference;
        signal += w * w;
      }
      errors[static_cast<size_t>(i)] = error;
      signals[static_cast<size_t>(i)] = signal;
    }
  });
  double error = 0, signal = 0;
  for (size_t i = 0; i < rows; ++i) {
    error += errors[i];
    signal += signals[i];
  }
  return signal > 0 ? std::sqrt(error / signal) : 0.0;
}

// Codes, and scales and offsets of 2 bytes (zeros of 4 bits take half of one).
int64_t PackedBytes(const QuantizedMatrix& matrix) {
  const int64_t code_bits = matrix.spec.bits <= 4 ? 4 : 8;
  const int64_t groups = matrix.outputs * matrix.groups();
  const int64_t offset_bits =
      matrix.spec.offset == CodeOffset::kSymmetric
          ? 0
          : (matrix.spec.offset == CodeOffset::kZeros ? 4 : 16);
  return (matrix.outputs * matrix.inputs * code_bits +
          groups * (16 + offset_bits)) /
         8;
}

MatrixReport& ReportOf(BlockWork& work, LinearId id) {
  return *work.block.report.mutable_matrices(static_cast<int>(At(id)));
}

// One report for each matrix, in the order of LinearId.
void AddReports(BlockWork& work) {
  for (const LinearId id : kAllLinears) {
    MatrixReport& report = *work.block.report.add_matrices();
    const std::optional<MatrixGrid>& grid = work.grids[At(id)];
    const BlockLinear<float>& linear = work.weights[id];
    report.set_name(work.Name(id));
    report.set_bits(grid.has_value() ? grid->spec.bits : 16);
    report.set_weights(linear.outputs * linear.inputs);
    report.set_bytes(2 * report.weights());  // as bf16
    if (!grid.has_value()) continue;
    report.set_group_size(grid->spec.group_inputs(linear.inputs));
    report.set_offset(OffsetName(grid->spec.offset));
  }
}

absl::Status Named(const BlockWork& work, LinearId id,
                   const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(work.Name(id), ": ", status.message()));
}

void Keep(BlockWork& work, LinearId id, QuantizedMatrix matrix,
          absl::Time start) {
  MatrixReport& report = ReportOf(work, id);
  report.set_relative_error(
      RelativeError(work.weights[id].view(), matrix, work.pool));
  report.set_bytes(PackedBytes(matrix));
  report.set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  work.block.codes[At(id)] = std::move(matrix);
}

// A matrix that no method of calibration rounds.
absl::Status RoundToNearest(BlockWork& work, LinearId id) {
  const absl::Time start = absl::Now();
  const MatrixGrid& grid = *work.grids[At(id)];
  const MatrixView<const float> weights =
      std::as_const(work.weights)[id].view();
  const absl::Status checked = CheckWeights(weights, work.pool);
  if (!checked.ok()) return Named(work, id, checked);
  RoundOptions options;
  options.spec = grid.spec;
  if (!grid.nearest) {
    options.search = work.recipe.round_to_nearest().search();
    options.importance = work.importance[At(id)];
    options.clip = work.clip[At(id)].span();
  }
  Keep(work, id, RoundMatrix(weights, options, work.pool), start);
  return work.step(0);
}

// GPTQ over the matrices of a block, with what they are given by the block as
// it is quantized so far.
class GptqRounding {
 public:
  explicit GptqRounding(BlockWork& work)
      : work_(work),
        shared_norm_(work.config.norm_layout == NormLayout::kShared),
        correction_(work.recipe.gptq().asymmetric_correction()),
        block_(std::in_place, work.config, work.layer,
               work.streams.quantized->length(), work.precision),
        float_pass_(std::in_place, work.config, work.pool) {}

  absl::Status Run() {
    block_->SetWeights(work_.weights, /*gradients=*/false, work_.pool);
    if (correction_ > 0) {
      float_block_.emplace(work_.config, work_.layer,
                           work_.streams.floats->length(), work_.precision);
      float_block_->SetWeights(work_.weights, /*gradients=*/false, work_.pool);
    }
    for (const std::vector<LinearId>& ids : Rounds()) {
      absl::Status status = Measure(ids);
      for (const LinearId id : ids) {
        if (status.ok()) status = Round(id);
      }
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  // Matrices whose inputs are measured together.
  std::vector<std::vector<LinearId>> Rounds() const {
    if (!work_.recipe.gptq().true_sequential()) {
      return {{kAllLinears.begin(), kAllLinears.end()}};
    }
    if (shared_norm_) {
      return {{LinearId::kQkv, LinearId::kUp},
              {LinearId::kAttention},
              {LinearId::kDown}};
    }
    return {{LinearId::kQkv},
            {LinearId::kAttention},
            {LinearId::kUp},
            {LinearId::kDown}};
  }

  bool IsCalibrated(LinearId id) const {
    const std::optional<MatrixGrid>& grid = work_.grids[At(id)];
    return grid.has_value() && !grid->nearest;
  }

  // The matrix whose inputs these are too, of smaller id.
  LinearId Source(LinearId id) const {
    return id == LinearId::kUp && shared_norm_ ? LinearId::kQkv : id;
  }

  absl::Status Measure(const std::vector<LinearId>& ids) {
    const absl::Time start = absl::Now();
    const double before = work_.pass.multiplies();
    for (std::shared_ptr<Gram>& gram : grams_) gram.reset();
    std::optional<LinearId> until;
    for (const LinearId id : ids) {
      if (!IsCalibrated(id)) continue;
      const LinearId source = Source(id);
      until = std::max(source, until.value_or(source));
      std::shared_ptr<Gram>& gram = grams_[At(source)];
      if (gram == nullptr) {
        gram = std::make_shared<Gram>(work_.weights[id].inputs);
      }
    }
    if (!until.has_value()) return absl::OkStatus();
    residual_.reset();
    if (correction_ > 0 && ids == std::vector<LinearId>{LinearId::kDown}) {
      // Alone and last: it can make up for the whole block.
      const BlockLinear<float>& down = work_.weights[LinearId::kDown];
      residual_.emplace(down.outputs, down.inputs);
      until.reset();
    }
    const absl::Status status =
        work_.pass.Run(*block_, *work_.streams.quantized, until, work_.step,
                       [&](int64_t first, const BlockActivations<float>& acts) {
                         Add(first, acts, until);
                       });
    if (!status.ok()) return status;
    if (ids.back() == LinearId::kDown) {
      // The last: nothing more runs through the blocks, and the moments of
      // down's inputs need the room.
      block_.reset();
      float_block_.reset();
      float_pass_.reset();
    }
    if (residual_.has_value()) residual_->Finish(work_.pool);
    double multiplies = work_.pass.multiplies() - before;
    for (const std::shared_ptr<Gram>& gram : grams_) {
      if (gram == nullptr) continue;
      gram->Finish(work_.pool);
      multiplies += BlockWork::MultipliesOf(*gram);
    }
    work_.AddPhase("statistics", start, multiplies);
    return absl::OkStatus();
  }

  void Add(int64_t first, const BlockActivations<float>& acts,
           std::optional<LinearId> until) {
    const BlockActivations<float>* floats = nullptr;
    if (float_block_.has_value()) {
      const int64_t count =
          acts.input(LinearId::kQkv).rows / work_.streams.quantized->length();
      floats = &float_pass_->RunWindows(*float_block_, *work_.streams.floats,
                                        first, count, until);
    }
    for (const LinearId id : kAllLinears) {
      Gram* gram = grams_[At(id)].get();
      if (gram == nullptr) continue;
      if (floats != nullptr && !residual_.has_value()) {
        gram->AddPair(acts.input(id), floats->input(id), work_.pool);
      } else {
        gram->Add(acts.input(id), work_.pool);
      }
    }
    if (residual_.has_value()) {
      residual_->Add(floats->output(), acts.output(),
                     acts.input(LinearId::kDown), work_.pool);
    }
  }

  absl::Status Round(LinearId id) {
    if (!work_.grids[At(id)].has_value()) return absl::OkStatus();
    const absl::Time start = absl::Now();
    absl::Status status =
        IsCalibrated(id) ? Calibrate(id) : RoundToNearest(work_, id);
    if (!status.ok()) return status;
    if (block_.has_value()) SetRounded(id);
    work_.AddPhase("rounding", start);
    return work_.step(0);
  }

  // The matrices behind this one see it as it is rounded.
  void SetRounded(LinearId id) {
    const QuantizedMatrix& matrix = *work_.block.codes[At(id)];
    Array<float> values(static_cast<size_t>(matrix.outputs * matrix.inputs));
    const MatrixView<float> view(values.data(), matrix.outputs, matrix.inputs);
    Dequantize(matrix, view, work_.pool);
    block_->SetLinear(id, view, work_.pool);
  }

  absl::Status Calibrate(LinearId id) {
    const absl::Time start = absl::Now();
    const Recipe::Gptq& recipe = work_.recipe.gptq();
    const MatrixView<const float> weights =
        std::as_const(work_.weights)[id].view();
    GptqOptions options;
    options.spec = work_.grids[At(id)]->spec;
    options.act_order = recipe.act_order();
    options.static_groups = recipe.static_groups();
    options.damping = recipe.damping();
    options.block = recipe.block();
    options.search = recipe.search();
    options.correction = correction_;
    if (residual_.has_value()) options.residual = residual_->mean();
    options.refinements = recipe.refinements();
    absl::StatusOr<GptqResult> result =
        QuantizeGptq(weights, *grams_[At(Source(id))], options, work_.pool);
    if (!result.ok()) return Named(work_, id, result.status());
    MatrixReport& report = ReportOf(work_, id);
    report.set_loss(result->loss);
    report.set_nearest_loss(result->nearest_loss);
    report.set_damping(result->damping_used);
    report.set_fell_back(result->fell_back_to_nearest);
    Keep(work_, id, std::move(result->matrix), start);
    return absl::OkStatus();
  }

  BlockWork& work_;
  const bool shared_norm_;
  const double correction_;
  std::optional<Block<float>> block_;
  // For the correction.
  std::optional<Block<float>> float_block_;
  std::optional<BlockPass> float_pass_;
  // While down is measured and rounded: what the block's output lacks.
  std::optional<ResidualMoment> residual_;
  std::array<std::shared_ptr<Gram>, kLinearCount> grams_;
};

absl::Status RoundBySign(BlockWork& work) {
  const absl::Time start = absl::Now();
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
    const absl::Status status = GptqRounding(work).Run();
    if (!status.ok()) return status;
    for (const LinearId id : kAllLinears) {
      if (!trained.grids[At(id)].has_value()) continue;
      options.starts[At(id)] = &*work.block.codes[At(id)];
    }
  }
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
  work.AddPhase("training", start);
  return work.step(0);
}

}  // namespace

absl::Status RoundBlock(BlockWork& work) {
  AddReports(work);
  switch (work.recipe.rounding()) {
    case Recipe::GPTQ:
      return GptqRounding(work).Run();
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
