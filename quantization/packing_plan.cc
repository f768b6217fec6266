#include "quantization/packing_plan.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/packed_names.h"
#include "quantization/round_to_nearest.h"
#include "re2/re2.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

int64_t TotalRows(const std::vector<RowRange>& ranges) {
  int64_t rows = 0;
  for (const RowRange& range : ranges) rows += range.rows;
  return rows;
}

// Adds tensors one by one, and remembers the first error.
class Planner {
 public:
  // `keep` may be null.
  Planner(const RoundingOptions& rounding, const RE2* keep)
      : rounding_(rounding), keep_(keep) {}

  void Norm(const NormTensors& names, const NormTensors& source,
            int64_t hidden) {
    if (!source.weight.empty()) {
      Vector(names.weight, {{source.weight, 0, hidden}});
    }
    if (!source.bias.empty()) Vector(names.bias, {{source.bias, 0, hidden}});
  }

  void Linear(const LinearTensors& names, const LinearTensors& source,
              int64_t inputs) {
    const std::string& name = names.weight[0].tensor;
    const bool kept = keep_ != nullptr && RE2::PartialMatch(name, *keep_);
    kept_ += kept ? 1 : 0;
    const int64_t outputs = TotalRows(source.weight);
    absl::StatusOr<PackedLayout> layout =
        kept ? PackedLayout::Create(WeightFormat::kBF16, outputs, inputs)
             : RoundedLayout(rounding_, outputs, inputs);
    if (!layout.ok()) {
      status_.Update(
          absl::Status(layout.status().code(),
                       absl::StrCat(name, ": ", layout.status().message())));
      return;
    }
    plan_.push_back({name, source.weight, *layout});
    if (!source.bias.empty()) Vector(names.bias[0].tensor, source.bias);
  }

  void Embedding(const std::string& name, const std::string& source,
                 DType stored, const Shape& shape) {
    const DType dtype = stored == DType::kF32 ? DType::kBF16 : stored;
    plan_.push_back(
        {name, {{source, 0, shape.dim(0)}}, PlainTensor{dtype, shape}});
  }

  absl::StatusOr<std::vector<PlannedTensor>> Result() && {
    if (!status_.ok()) return status_;
    if (keep_ != nullptr && kept_ == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "keep_float \"", keep_->pattern(),
          "\" matches none of the matrices to keep as floats; they are "
          "layers.N.qkv.weight, layers.N.attention.weight, layers.N.up.weight, "
          "layers.N.down.weight and head.weight"));
    }
    return std::move(plan_);
  }

 private:
  void Vector(const std::string& name, std::vector<RowRange> elements) {
    const int64_t size = TotalRows(elements);
    plan_.push_back(
        {name, std::move(elements), PlainTensor{DType::kF32, Shape({size})}});
  }

  const RoundingOptions& rounding_;
  const RE2* keep_;
  int64_t kept_ = 0;
  absl::Status status_;
  std::vector<PlannedTensor> plan_;
};

}  // namespace

absl::StatusOr<std::vector<PlannedTensor>> PlanTensors(
    const Checkpoint& checkpoint, const RoundingOptions& rounding,
    const std::string& keep_float) {
  const RE2 keep(keep_float, RE2::Quiet);
  if (!keep.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("keep_float \"", keep_float,
                     "\" is no regular expression: ", keep.error()));
  }
  const DecoderConfig& config = checkpoint.config;
  const DecoderTensors& source = checkpoint.names;
  const DecoderTensors names = PackedTensorNames(config);
  Planner planner(rounding, keep_float.empty() ? nullptr : &keep);
  if (!names.embedding.empty()) {
    const absl::StatusOr<TensorView> stored =
        checkpoint.tensors->Find(source.embedding);
    if (!stored.ok()) return stored.status();
    planner.Embedding(names.embedding, source.embedding, stored->dtype,
                      stored->shape);
  }
  for (size_t i = 0; i < source.layers.size(); ++i) {
    const LayerTensors& to = names.layers[i];
    const LayerTensors& from = source.layers[i];
    planner.Norm(to.attention_norm, from.attention_norm, config.hidden);
    planner.Linear(to.qkv, from.qkv, config.hidden);
    planner.Linear(to.attention, from.attention, config.q_dim());
    planner.Norm(to.mlp_norm, from.mlp_norm, config.hidden);
    planner.Linear(to.up, from.up, config.hidden);
    planner.Linear(to.down, from.down, config.ffn);
  }
  planner.Norm(names.final_norm, source.final_norm, config.hidden);
  planner.Linear(names.head, source.head, config.hidden);
  return std::move(planner).Result();
}

}  // namespace nibble
