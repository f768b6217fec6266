#include "testing/coded_tensors.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tensor/bf16.h"

namespace nibble::testing {
namespace {

// Of either sign, from half of `size` to its double, as f16 has it.
float Narrow(RandomValues& random, float size) {
  const float value = size * static_cast<float>(0.5 + 1.5 * random.Unit()) *
                      (random.Below(2) == 0 ? -1.0f : 1.0f);
  return ToFloat(ToF16(value));
}

std::vector<int32_t> RandomOrder(int64_t inputs, RandomValues& random) {
  std::vector<int32_t> order(static_cast<size_t>(inputs));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = inputs - 1; i > 0; --i) {
    std::swap(order[i], order[random.Below(i + 1)]);
  }
  return order;
}

}  // namespace

void MemoryCodes::Read(int64_t first_row, int64_t rows,
                       const CodedRowsBuffer& out) const {
  const int64_t groups = shape.groups();
  CHECK(first_row >= 0 && rows >= 0 && first_row + rows <= shape.outputs);
  const auto copy = [&](const auto& from, int64_t row_size, auto to) {
    CHECK_EQ(static_cast<int64_t>(to.size()), rows * row_size);
    std::copy_n(from.begin() + first_row * row_size, rows * row_size,
                to.begin());
  };
  if (!out.codes.empty()) copy(codes, shape.inputs, out.codes);
  copy(scales, groups, out.scales);
  if (shape.offset != CodeOffset::kSymmetric) {
    copy(offsets, groups, out.offsets);
  }
}

float MemoryCodes::Value(int64_t row, int64_t k) const {
  const int64_t group = row * shape.groups() + k / shape.group_size;
  const int code = codes[row * shape.inputs + k];
  switch (shape.offset) {
    case CodeOffset::kSymmetric:
      return scales[group] * static_cast<float>(code - (1 << (shape.bits - 1)));
    case CodeOffset::kZeros:
      return scales[group] *
             static_cast<float>(code - static_cast<int>(offsets[group]));
    case CodeOffset::kMinimums:
      break;
  }
  const float product = scales[group] * static_cast<float>(code);
  return product + offsets[group];
}

void MemoryCodes::Shuffle(RandomValues& random) {
  order = RandomOrder(shape.inputs, random);
  shape.input_order = order;
}

std::unique_ptr<MemoryCodes> RandomCodes(const CodedForm& form,
                                         RandomValues& random, float scale) {
  auto matrix = std::make_unique<MemoryCodes>();
  matrix->shape = form;
  matrix->codes.resize(static_cast<size_t>(form.outputs * form.inputs));
  for (uint8_t& code : matrix->codes) {
    code = static_cast<uint8_t>(random.Below(1 << form.bits));
  }
  matrix->scales.resize(static_cast<size_t>(form.outputs * form.groups()));
  for (float& value : matrix->scales) value = Narrow(random, scale);
  if (form.offset == CodeOffset::kSymmetric) return matrix;
  matrix->offsets.resize(matrix->scales.size());
  const int codes = 1 << form.bits;
  for (size_t i = 0; i < matrix->offsets.size(); ++i) {
    matrix->offsets[i] =
        form.offset == CodeOffset::kZeros
            ? static_cast<float>(random.Below(codes))
            // So that weights are about zero.
            : ToFloat(ToF16(-matrix->scales[i] * static_cast<float>(codes) *
                            static_cast<float>(0.3 + 0.4 * random.Unit())));
  }
  return matrix;
}

CodedTensors::CodedTensors(std::shared_ptr<const TensorSource> others)
    : others_(std::move(others)) {
  if (others_ != nullptr) names_ = others_->names();
}

void CodedTensors::Add(const std::string& name,
                       std::unique_ptr<MemoryCodes> matrix) {
  CHECK(coded_.emplace(name, std::move(matrix)).second);
  const auto at = std::lower_bound(names_.begin(), names_.end(), name);
  if (at == names_.end() || *at != name) names_.insert(at, name);
}

bool CodedTensors::Contains(absl::string_view name) const {
  return std::binary_search(names_.begin(), names_.end(), name);
}

absl::StatusOr<TensorView> CodedTensors::Find(absl::string_view name) const {
  if (FindCoded(name) != nullptr) {
    return absl::UnimplementedError(
        absl::StrCat(path_, ": tensor ", name, " has no dense bytes"));
  }
  if (others_ != nullptr) return others_->Find(name);
  return absl::NotFoundError(
      absl::StrCat(path_, ": there is no tensor ", name));
}

const CodedMatrix* CodedTensors::FindCoded(absl::string_view name) const {
  const auto at = coded_.find(name);
  if (at != coded_.end()) return at->second.get();
  return others_ == nullptr ? nullptr : others_->FindCoded(name);
}

Checkpoint CodedCheckpoint(const Checkpoint& floats,
                           const CodedCheckpointOptions& options,
                           uint64_t seed) {
  RandomValues random(seed);
  auto tensors = std::make_shared<CodedTensors>(floats.tensors);
  const auto code = [&](const LinearTensors& linear) {
    for (const RowRange& range : linear.weight) {
      if (tensors->FindCoded(range.tensor) != nullptr) continue;
      const absl::StatusOr<TensorView> view =
          floats.tensors->Find(range.tensor);
      CHECK_OK(view.status());
      CodedForm form = options.form;
      form.outputs = view->shape.dim(0);
      form.inputs = view->shape.dim(1);
      if (form.group_size == 0) form.group_size = form.inputs;
      std::unique_ptr<MemoryCodes> matrix =
          RandomCodes(form, random, 0.32f / static_cast<float>(1 << form.bits));
      if (options.act_order) matrix->Shuffle(random);
      tensors->Add(range.tensor, std::move(matrix));
    }
  };
  for (const LayerTensors& layer : floats.names.layers) {
    code(layer.qkv);
    code(layer.attention);
    code(layer.up);
    code(layer.down);
  }
  if (options.head) code(floats.names.head);
  Checkpoint coded = floats;
  coded.path = tensors->path();
  coded.tensors = std::move(tensors);
  return coded;
}

}  // namespace nibble::testing
