#include "quantization/packing_plan.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/functional/function_ref.h"
#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/coded_gather.h"
#include "models/decoder_config.h"
#include "models/packed_names.h"
#include "quantization/round_to_nearest.h"
#include "re2/re2.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/tensor_source.h"
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

// The matrix of `source` in the file, its name and rows filled in.
using ChooseMatrix = absl::FunctionRef<absl::Status(
    int64_t outputs, int64_t inputs, PlannedTensor& matrix)>;

// Adds tensors one by one, and remembers the first error.
class Planner {
 public:
  explicit Planner(ChooseMatrix choose) : choose_(choose) {}

  void Norm(const NormTensors& names, const NormTensors& source,
            int64_t hidden) {
    if (!source.weight.empty()) {
      Vector(names.weight, {{source.weight, 0, hidden}});
    }
    if (!source.bias.empty()) Vector(names.bias, {{source.bias, 0, hidden}});
  }

  void Linear(const LinearTensors& names, const LinearTensors& source,
              int64_t inputs) {
    if (!status_.ok()) return;
    PlannedTensor matrix;
    matrix.name = names.weight[0].tensor;
    matrix.rows = source.weight;
    const absl::Status chosen =
        choose_(TotalRows(source.weight), inputs, matrix);
    if (!chosen.ok()) {
      status_ = chosen;
      return;
    }
    const absl::Span<const int32_t> order = matrix.codes
                                                ? matrix.codes->input_order()
                                                : absl::Span<const int32_t>();
    plan_.push_back(std::move(matrix));
    if (!source.bias.empty()) Vector(names.bias[0].tensor, source.bias);
    if (order.empty()) return;
    PlannedTensor stored;
    stored.name = names.input_order;
    stored.what = PlainTensor{DType::kI32, Shape({inputs})};
    stored.input_order = order;
    plan_.push_back(std::move(stored));
  }

  void Embedding(const std::string& name, const std::string& source,
                 DType dtype, const Shape& shape) {
    PlannedTensor embedding;
    embedding.name = name;
    embedding.rows = {{source, 0, shape.dim(0)}};
    embedding.what = PlainTensor{dtype, shape};
    plan_.push_back(std::move(embedding));
  }

  absl::StatusOr<std::vector<PlannedTensor>> Result() && {
    if (!status_.ok()) return status_;
    return std::move(plan_);
  }

 private:
  void Vector(const std::string& name, std::vector<RowRange> elements) {
    PlannedTensor vector;
    vector.name = name;
    vector.what = PlainTensor{DType::kF32, Shape({TotalRows(elements)})};
    vector.rows = std::move(elements);
    plan_.push_back(std::move(vector));
  }

  const ChooseMatrix choose_;
  absl::Status status_;
  std::vector<PlannedTensor> plan_;
};

// How the embedding is stored; what is there as codes alone is read as f32.
struct StoredEmbedding {
  DType dtype;
  Shape shape;
};

absl::StatusOr<StoredEmbedding> FindEmbedding(const Checkpoint& checkpoint) {
  const std::string& name = checkpoint.names.embedding;
  const absl::StatusOr<TensorView> dense = checkpoint.tensors->Find(name);
  if (dense.ok()) return StoredEmbedding{dense->dtype, dense->shape};
  const CodedMatrix* codes = checkpoint.tensors->FindCoded(name);
  if (codes == nullptr) return dense.status();
  return StoredEmbedding{DType::kF32,
                         Shape({codes->form().outputs, codes->form().inputs})};
}

// The plan of a file with `config`, which may differ from the checkpoint's in
// whether the head is tied. An embedding in f32 is rounded to bf16 if
// `narrow_embedding` is set.
absl::StatusOr<PackingPlan> PlanWith(const Checkpoint& checkpoint,
                                     const DecoderConfig& config,
                                     bool narrow_embedding,
                                     ChooseMatrix choose) {
  const DecoderTensors& source = checkpoint.names;
  const DecoderTensors names = PackedTensorNames(config);
  Planner planner(choose);
  if (!names.embedding.empty()) {
    const absl::StatusOr<StoredEmbedding> stored = FindEmbedding(checkpoint);
    if (!stored.ok()) return stored.status();
    const bool narrow = narrow_embedding && stored->dtype == DType::kF32;
    planner.Embedding(names.embedding, source.embedding,
                      narrow ? DType::kBF16 : stored->dtype, stored->shape);
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
  absl::StatusOr<std::vector<PlannedTensor>> tensors =
      std::move(planner).Result();
  if (!tensors.ok()) return tensors.status();
  return PackingPlan{config, *std::move(tensors)};
}

// Whether bf16 holds every value of a matrix exactly.
bool IsExactInBF16(const TensorView& matrix, ThreadPool& pool) {
  if (matrix.dtype == DType::kBF16) return true;
  if (matrix.dtype != DType::kF32 && matrix.dtype != DType::kF16) return false;
  std::atomic<bool> exact(true);
  pool.ParallelFor(matrix.shape.dim(0), [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(matrix.shape.dim(1)));
    for (int64_t i = begin; i < end && exact.load(); ++i) {
      CHECK_OK(ConvertRowToF32(matrix, i, absl::MakeSpan(row)));
      const bool same = absl::c_all_of(
          row, [](float value) { return ToFloat(ToBF16(value)) == value; });
      if (!same) exact.store(false);
    }
  });
  return exact.load();
}

// Whether the head's matrix, held as `head`, has the embedding's values.
bool HeadHasEmbedding(const Checkpoint& checkpoint, const StoredMatrix& head,
                      ThreadPool& pool) {
  if (head.codes || head.layout.format == WeightFormat::kF32) return true;
  const absl::StatusOr<TensorView> embedding =
      checkpoint.tensors->Find(checkpoint.names.embedding);
  if (!embedding.ok()) return false;
  const bool exact = IsExactInBF16(*embedding, pool);
  checkpoint.tensors->Release(
      absl::MakeConstSpan(embedding->data, embedding->bytes));
  return exact;
}

// Whether any matrix is stored in fewer bits than floats have.
bool IsQuantizedCheckpoint(const Checkpoint& checkpoint) {
  const TensorSource& tensors = *checkpoint.tensors;
  return absl::c_any_of(tensors.names(), [&](const std::string& name) {
    if (tensors.FindCoded(name) != nullptr) return true;
    const absl::StatusOr<TensorView> dense = tensors.Find(name);
    return dense.ok() && IsQuantized(dense->dtype);
  });
}

}  // namespace

absl::StatusOr<PackingPlan> PlanRounded(const Checkpoint& checkpoint,
                                        const RoundingOptions& rounding,
                                        const std::string& keep_float) {
  const RE2 keep(keep_float, RE2::Quiet);
  if (!keep.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("keep_float \"", keep_float,
                     "\" is no regular expression: ", keep.error()));
  }
  int64_t kept = 0;
  absl::StatusOr<PackingPlan> plan = PlanWith(
      checkpoint, checkpoint.config, /*narrow_embedding=*/true,
      [&](int64_t outputs, int64_t inputs, PlannedTensor& matrix) {
        const bool is_kept =
            !keep_float.empty() && RE2::PartialMatch(matrix.name, keep);
        kept += is_kept ? 1 : 0;
        if (is_kept) matrix.reason = "keep_float";
        absl::StatusOr<PackedLayout> layout =
            is_kept ? PackedLayout::Create(WeightFormat::kBF16, outputs, inputs)
                    : RoundedLayout(rounding, outputs, inputs);
        if (layout.ok()) {
          matrix.what = *layout;
          return absl::OkStatus();
        }
        return absl::Status(
            layout.status().code(),
            absl::StrCat(matrix.name, ": ", layout.status().message()));
      });
  if (plan.ok() && !keep_float.empty() && kept == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "keep_float \"", keep_float,
        "\" matches none of the matrices to keep as floats; they are "
        "layers.N.qkv.weight, layers.N.attention.weight, layers.N.up.weight, "
        "layers.N.down.weight and head.weight"));
  }
  return plan;
}

absl::StatusOr<PackingPlan> PlanKept(const Checkpoint& checkpoint,
                                     ThreadPool& pool) {
  const TensorSource& tensors = *checkpoint.tensors;
  if (!IsQuantizedCheckpoint(checkpoint)) {
    return absl::InvalidArgumentError(absl::StrCat(
        checkpoint.path,
        ": holds floats, and no quantized weights that could be kept; round "
        "them to nearest (--method=rtn)"));
  }
  DecoderConfig config = checkpoint.config;
  if (config.tied_head) {
    const absl::StatusOr<StoredMatrix> head =
        AsStored(tensors, checkpoint.names.head.weight, pool);
    if (!head.ok()) return head.status();
    config.tied_head = HeadHasEmbedding(checkpoint, *head, pool);
  }
  return PlanWith(checkpoint, config, /*narrow_embedding=*/false,
                  [&](int64_t, int64_t, PlannedTensor& matrix) -> absl::Status {
                    absl::StatusOr<StoredMatrix> stored =
                        AsStored(tensors, matrix.rows, pool);
                    if (!stored.ok()) return stored.status();
                    matrix.what = stored->layout;
                    matrix.codes = std::move(stored->codes);
                    if (matrix.codes) {
                      matrix.codes->Release();  // until it is written
                      return absl::OkStatus();
                    }
                    matrix.reason =
                        HasCodes(tensors, matrix.rows)
                            ? "no packed layout holds its codes together"
                            : "stored as floats, or as a type without codes";
                    return absl::OkStatus();
                  });
}

}  // namespace nibble
