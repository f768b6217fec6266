#include "quantization/calibrated/round_by_gptq.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "quantization/block/block.h"
#include "quantization/block/block_weights.h"
#include "quantization/calibrated/block_pass.h"
#include "quantization/calibrated/block_work.h"
#include "quantization/calibrated/finish_matrix.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/gptq/gptq.h"
#include "quantization/gptq/gram.h"
#include "quantization/gptq/residual_moment.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr auto At = BlockWork::At;

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
      if (!IsCalibrated(work_, id)) continue;
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
        IsCalibrated(work_, id) ? Calibrate(id) : RoundToNearest(work_, id);
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

}  // namespace

absl::Status RoundByGptq(BlockWork& work) { return GptqRounding(work).Run(); }

}  // namespace nibble
