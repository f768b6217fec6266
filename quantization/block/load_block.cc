#include "quantization/block/load_block.h"

#include <cstddef>
#include <utility>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/convert/convert.h"
#include "kernels/shared_status.h"
#include "models/matrix_gather.h"
#include "quantization/matrix_rows.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

absl::Status CheckNotPacked(const Checkpoint& checkpoint) {
  if (checkpoint.packed == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(checkpoint.path,
                   ": is packed already; calibrate with the checkpoint that it "
                   "was made from"));
}

absl::Status ReadRow(const MatrixRows& rows, int64_t row,
                     absl::Span<float> values) {
  absl::Status status = rows.Read(row, values);
  if (status.ok() && !AllFinite(values)) {
    status = absl::InvalidArgumentError(
        "holds a value that is not a finite number; the file is damaged");
  }
  return status.ok() ? status : rows.Error(row, status);
}

absl::StatusOr<BlockLinear<float>> LoadLinear(const TensorSource& tensors,
                                              const LinearTensors& names,
                                              MatrixGather& gather,
                                              ThreadPool& pool) {
  const absl::StatusOr<MatrixRows> rows =
      MatrixRows::Find(tensors, names.weight);
  if (!rows.ok()) return rows.status();
  BlockLinear<float> linear;
  linear.outputs = rows->rows();
  linear.inputs = rows->inputs();
  linear.weight =
      Array<float>(static_cast<size_t>(linear.outputs * linear.inputs));
  SharedStatus status;
  pool.ParallelFor(linear.outputs, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const absl::Status read =
          ReadRow(*rows, row, linear.view().row_span(row));
      status.Update(read);
      if (!read.ok()) return;
    }
  });
  rows->Release(0, linear.outputs);
  if (!status.Get().ok()) return status.Get();
  if (names.bias.empty()) return linear;
  absl::StatusOr<Array<float>> bias = gather.Bias(names.bias);
  if (!bias.ok()) return bias.status();
  linear.bias = *std::move(bias);
  return linear;
}

absl::StatusOr<BlockNorm<float>> LoadNorm(const NormTensors& names,
                                          MatrixGather& gather) {
  absl::StatusOr<Array<float>> weight = gather.Vector(names.weight);
  if (!weight.ok()) return weight.status();
  absl::StatusOr<Array<float>> bias = gather.Vector(names.bias);
  if (!bias.ok()) return bias.status();
  BlockNorm<float> norm;
  norm.weight = *std::move(weight);
  norm.bias = *std::move(bias);
  return norm;
}

// OK, or which window is not like the first or holds what no embedding has.
absl::Status CheckWindows(const Checkpoint& checkpoint,
                          absl::Span<const std::vector<int32_t>> windows) {
  if (windows.empty() || windows[0].empty()) {
    return absl::InvalidArgumentError("there are no windows of tokens");
  }
  for (size_t i = 0; i < windows.size(); ++i) {
    if (windows[i].size() != windows[0].size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("window ", i, " has ", windows[i].size(),
                       " tokens; window 0 has ", windows[0].size()));
    }
    for (const int32_t token : windows[i]) {
      if (token < 0 || token >= checkpoint.config.vocabulary) {
        return absl::InvalidArgumentError(absl::StrCat(
            checkpoint.path, ": token id ", token, " of window ", i,
            " is outside the vocabulary of ", checkpoint.config.vocabulary));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BlockWeights<float>> LoadBlock(const Checkpoint& checkpoint,
                                              int64_t layer, ThreadPool& pool) {
  CHECK(layer >= 0 && layer < checkpoint.config.layers);
  const absl::Status usable = CheckNotPacked(checkpoint);
  if (!usable.ok()) return usable;
  const LayerTensors& names =
      checkpoint.names.layers[static_cast<size_t>(layer)];
  const TensorSource& tensors = *checkpoint.tensors;
  MatrixGather gather(tensors, pool);
  BlockWeights<float> weights;
  const auto norm = [&](const NormTensors& from, BlockNorm<float>& to) {
    absl::StatusOr<BlockNorm<float>> loaded = LoadNorm(from, gather);
    if (loaded.ok()) to = *std::move(loaded);
    return loaded.status();
  };
  absl::Status status = norm(names.attention_norm, weights.attention_norm);
  if (status.ok() && !names.mlp_norm.weight.empty()) {
    status = norm(names.mlp_norm, weights.mlp_norm);
  }
  const LinearTensors* const linears[] = {&names.qkv, &names.attention,
                                          &names.up, &names.down};
  for (const LinearId id : kAllLinears) {
    if (!status.ok()) return status;
    absl::StatusOr<BlockLinear<float>> linear =
        LoadLinear(tensors, *linears[static_cast<size_t>(id)], gather, pool);
    if (linear.ok()) weights[id] = *std::move(linear);
    status = linear.status();
  }
  if (!status.ok()) return status;
  status = tensors.CheckUnchanged();
  if (!status.ok()) return status;
  return weights;
}

absl::StatusOr<HiddenStates> EmbedWindows(
    const Checkpoint& checkpoint,
    absl::Span<const std::vector<int32_t>> windows, ThreadPool& pool) {
  absl::Status status = CheckNotPacked(checkpoint);
  if (status.ok()) status = CheckWindows(checkpoint, windows);
  if (!status.ok()) return status;
  const RowRange all = {checkpoint.names.embedding, 0,
                        checkpoint.config.vocabulary};
  const absl::StatusOr<MatrixRows> rows =
      MatrixRows::Find(*checkpoint.tensors, {all});
  if (!rows.ok()) return rows.status();
  const int64_t length = static_cast<int64_t>(windows[0].size());
  const int64_t hidden = checkpoint.config.hidden;
  HiddenStates states(static_cast<int64_t>(windows.size()), length, hidden);
  Array<float> values(static_cast<size_t>(length * hidden));
  const MatrixView<float> x(values.data(), length, hidden);  // one window
  SharedStatus shared;
  for (size_t i = 0; i < windows.size(); ++i) {
    pool.ParallelFor(length, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        shared.Update(
            ReadRow(*rows, windows[i][static_cast<size_t>(t)], x.row_span(t)));
      }
    });
    if (!shared.Get().ok()) return shared.Get();
    states.Store(static_cast<int64_t>(i), x, pool);
  }
  return states;
}

}  // namespace nibble
