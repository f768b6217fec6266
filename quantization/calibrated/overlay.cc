#include "quantization/calibrated/overlay.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/shared_status.h"
#include "models/matrix_gather.h"
#include "quantization/block/block_weights.h"
#include "quantization/calibrated/tensor_codes.h"
#include "quantization/matrix_rows.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

absl::Status At(const TensorSource& tensors, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(tensors.path(), ": ", status.message()));
}

std::array<const LinearTensors*, kLinearCount> LinearsOf(
    const LayerTensors& layer) {
  return {&layer.qkv, &layer.attention, &layer.up, &layer.down};
}

// Rows as bf16, into `values` [rows, inputs] unless it is null.
absl::Status NarrowRows(const MatrixRows& rows, BF16* values,
                        ThreadPool& pool) {
  const size_t inputs = static_cast<size_t>(rows.inputs());
  SharedStatus status;
  pool.ParallelFor(rows.rows(), [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(inputs);
    std::vector<BF16> unused(values == nullptr ? inputs : 0);
    for (int64_t i = begin; i < end; ++i) {
      const absl::Status read = rows.Read(i, absl::MakeSpan(row));
      if (!read.ok()) return status.Update(rows.Error(i, read));
      const absl::Span<BF16> out =
          values == nullptr
              ? absl::MakeSpan(unused)
              : absl::MakeSpan(values + static_cast<size_t>(i) * inputs,
                               inputs);
      F32ToBF16(row, out);
      BF16ToF32(out, absl::MakeSpan(row));
      if (!AllFinite(row)) {
        return status.Update(rows.Error(
            i, absl::InvalidArgumentError("holds a value that is not finite, "
                                          "or beyond bf16's range")));
      }
    }
  });
  if (status.Get().ok()) rows.Release(0, rows.rows());
  return status.Get();
}

// OK where NarrowRows is.
absl::Status CheckNarrow(const TensorSource& tensors,
                         const std::vector<RowRange>& ranges,
                         ThreadPool& pool) {
  const absl::StatusOr<MatrixRows> rows = MatrixRows::Find(tensors, ranges);
  return rows.ok() ? NarrowRows(*rows, nullptr, pool) : rows.status();
}

std::vector<RowRange> EmbeddingRows(const Checkpoint& checkpoint) {
  return {{checkpoint.names.embedding, 0, checkpoint.config.vocabulary}};
}

class OverlayTensors : public TensorSource {
 public:
  OverlayTensors(std::shared_ptr<const TensorSource> source,
                 std::vector<std::shared_ptr<const BlockFile>> blocks)
      : source_(std::move(source)), blocks_(std::move(blocks)) {}

  const std::string& path() const override { return source_->path(); }
  const std::vector<std::string>& names() const override {
    return source_->names();
  }
  bool Contains(absl::string_view name) const override {
    return source_->Contains(name);
  }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    if (const auto dense = dense_.find(name); dense != dense_.end()) {
      return dense->second.view;
    }
    if (codes_.find(name) != codes_.end()) {
      return absl::UnimplementedError(
          absl::StrCat(path(), ": tensor ", name, " is there as codes alone"));
    }
    return source_->Find(name);
  }
  const CodedMatrix* FindCoded(absl::string_view name) const override {
    if (dense_.find(name) != dense_.end()) return nullptr;
    const auto codes = codes_.find(name);
    return codes != codes_.end() ? codes->second.get()
                                 : source_->FindCoded(name);
  }
  absl::Status CheckUnchanged() const override {
    return source_->CheckUnchanged();
  }
  void Release(absl::Span<const std::byte> range) const override {
    source_->Release(range);
  }

  // What takes the place of a layer's tensors.
  absl::Status AddLayer(const LayerTensors& names, size_t layer) {
    const BlockFile& block = *blocks_[layer];
    const auto linears = LinearsOf(names);
    for (const LinearId id : kAllLinears) {
      const absl::Status added =
          AddLinear(*linears[static_cast<size_t>(id)], block, id);
      if (!added.ok()) return added;
    }
    AddVector(names.attention_norm.weight, block.norm("attention_norm.weight"));
    AddVector(names.attention_norm.bias, block.norm("attention_norm.bias"));
    AddVector(names.mlp_norm.weight, block.norm("mlp_norm.weight"));
    AddVector(names.mlp_norm.bias, block.norm("mlp_norm.bias"));
    return absl::OkStatus();
  }

  absl::Status AddRounded(const std::vector<RowRange>& rows, int64_t group_size,
                          ThreadPool& pool) {
    absl::StatusOr<std::unique_ptr<const RoundedCodes>> codes =
        RoundedCodes::Create(*source_, rows, group_size, pool);
    if (!codes.ok()) return codes.status();
    codes_[rows[0].tensor] = *std::move(codes);
    return absl::OkStatus();
  }

  // The tensor as bf16.
  absl::Status AddNarrowed(const std::vector<RowRange>& ranges,
                           ThreadPool& pool) {
    const absl::StatusOr<MatrixRows> rows = MatrixRows::Find(*source_, ranges);
    if (!rows.ok()) return rows.status();
    const Shape shape({rows->rows(), rows->inputs()});
    return NarrowRows(*rows, AddMemory<BF16>(ranges[0].tensor, shape).data(),
                      pool);
  }

 private:
  struct Dense {
    AlignedBuffer memory;  // empty: the view is of a block
    TensorView view;
  };

  // Room for a tensor's elements.
  template <class T>
  absl::Span<T> AddMemory(const std::string& name, const Shape& shape) {
    const size_t count = static_cast<size_t>(shape.elements());
    Dense& dense = dense_[name];
    dense.memory = AlignedBuffer(count * sizeof(T));
    const absl::Span<T> values =
        absl::MakeSpan(reinterpret_cast<T*>(dense.memory.data()), count);
    dense.view = MakeTensorView(absl::Span<const T>(values), shape);
    return values;
  }

  void AddVector(const std::string& name, absl::Span<const float> values) {
    if (name.empty() || values.empty()) return;
    AddRowsOf<float>(name, {{0, static_cast<int64_t>(values.size()), 0}},
                     values, Shape({static_cast<int64_t>(values.size())}));
  }

  // The tensor whose rows lie in `values`, a part of a block, each of as many
  // as `shape` has in a row: in place, unless they lie in another order there.
  template <class T>
  void AddRowsOf(const std::string& name, const std::vector<TensorRows>& rows,
                 absl::Span<const T> values, const Shape& shape) {
    const size_t width = static_cast<size_t>(
        shape.elements() / std::max<int64_t>(1, shape.dim(0)));
    const int64_t from = rows[0].from;
    if (std::all_of(rows.begin(), rows.end(), [from](const TensorRows& part) {
          return part.from == from + part.first;
        })) {
      dense_[name] = {
          AlignedBuffer(),
          MakeTensorView(values.subspan(static_cast<size_t>(from) * width,
                                        static_cast<size_t>(shape.elements())),
                         shape)};
      return;
    }
    const absl::Span<T> tensor = AddMemory<T>(name, shape);
    for (const TensorRows& part : rows) {
      std::memcpy(tensor.data() + static_cast<size_t>(part.first) * width,
                  values.data() + static_cast<size_t>(part.from) * width,
                  static_cast<size_t>(part.rows) * width * sizeof(T));
    }
  }

  absl::Status AddLinear(const LinearTensors& names, const BlockFile& block,
                         LinearId id) {
    const CodedMatrix* codes = block.codes(id);
    const absl::Span<const BF16> floats = block.floats(id);
    if (codes != nullptr || !floats.empty()) {
      auto tensors = RowsByTensor(names.weight);
      if (!tensors.ok()) return At(*source_, tensors.status());
      int64_t total = 0;
      for (const RowRange& range : names.weight) total += range.rows;
      for (auto& [name, rows] : *tensors) {
        if (codes != nullptr) {
          codes_[name] = std::make_unique<TensorCodes>(*codes, rows);
          continue;
        }
        const int64_t inputs = static_cast<int64_t>(floats.size()) / total;
        AddRowsOf(name, rows, floats,
                  Shape({rows.back().first + rows.back().rows, inputs}));
      }
    }
    const absl::Span<const float> bias = block.bias(id);
    if (bias.empty()) return absl::OkStatus();
    const auto tensors = RowsByTensor(names.bias);
    if (!tensors.ok()) return At(*source_, tensors.status());
    for (const auto& [name, elements] : *tensors) {
      AddRowsOf(name, elements, bias,
                Shape({elements.back().first + elements.back().rows}));
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<const TensorSource> source_;
  const std::vector<std::shared_ptr<const BlockFile>> blocks_;
  std::map<std::string, Dense, std::less<>> dense_;
  std::map<std::string, std::unique_ptr<const CodedMatrix>, std::less<>> codes_;
};

bool IsDense(const TensorSource& tensors, const std::string& name,
             DType dtype) {
  const absl::StatusOr<TensorView> view = tensors.Find(name);
  return view.ok() && view->dtype == dtype;
}

}  // namespace

absl::Status CheckOverlay(const Checkpoint& checkpoint,
                          std::optional<int64_t> head_group_size,
                          ThreadPool& pool) {
  const DecoderTensors& names = checkpoint.names;
  const TensorSource& source = *checkpoint.tensors;
  for (const LayerTensors& layer : names.layers) {
    for (const LinearTensors* linear : LinearsOf(layer)) {
      for (const auto* ranges : {&linear->weight, &linear->bias}) {
        const absl::Status alone = RowsByTensor(*ranges).status();
        if (!alone.ok()) return At(source, alone);
      }
    }
  }
  MatrixGather gather(source, pool);
  absl::Status status = gather.Vector(names.final_norm.weight).status();
  if (status.ok()) status = gather.Vector(names.final_norm.bias).status();
  if (status.ok()) status = gather.Bias(names.head.bias).status();
  if (!status.ok()) return status;
  const std::vector<RowRange>& head = names.head.weight;
  status =
      head_group_size.has_value()
          ? RoundedCodes::Create(source, head, *head_group_size, pool).status()
          : CheckNarrow(source, head, pool);
  if (!status.ok() || names.embedding == head[0].tensor) return status;
  return CheckNarrow(source, EmbeddingRows(checkpoint), pool);
}

absl::StatusOr<Checkpoint> OverlayCheckpoint(
    const Checkpoint& checkpoint,
    std::vector<std::shared_ptr<const BlockFile>> blocks,
    std::optional<int64_t> head_group_size, ThreadPool& pool) {
  const DecoderTensors& names = checkpoint.names;
  const TensorSource& source = *checkpoint.tensors;
  CHECK_EQ(blocks.size(), names.layers.size());
  const size_t layers = blocks.size();
  auto tensors =
      std::make_shared<OverlayTensors>(checkpoint.tensors, std::move(blocks));
  absl::Status status;
  for (size_t layer = 0; status.ok() && layer < layers; ++layer) {
    status = tensors->AddLayer(names.layers[layer], layer);
  }
  const std::string& head = names.head.weight[0].tensor;
  const bool tied = names.embedding == head;
  if (status.ok() && head_group_size.has_value()) {
    status = tensors->AddRounded(names.head.weight, *head_group_size, pool);
  } else if (status.ok() && (tied ? !IsDense(source, head, DType::kBF16)
                                  : source.FindCoded(head) != nullptr)) {
    status = tensors->AddNarrowed(names.head.weight, pool);
  }
  if (status.ok() && !tied && IsDense(source, names.embedding, DType::kF32)) {
    status = tensors->AddNarrowed(EmbeddingRows(checkpoint), pool);
  }
  if (!status.ok()) return status;
  Checkpoint result = checkpoint;
  result.tensors = std::move(tensors);
  result.quantized = nullptr;
  return result;
}

}  // namespace nibble
