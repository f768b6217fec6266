#include "models/checkpoint.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "kernels/convert/convert.h"
#include "models/decoder_config.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Checks tensors one by one and remembers which were asked for.
class TensorChecker {
 public:
  explicit TensorChecker(const Checkpoint& checkpoint)
      : tensors_(*checkpoint.tensors), packed_(checkpoint.packed.get()) {}

  const absl::Status& status() const { return status_; }

  void Norm(const NormTensors& norm, int64_t size) {
    if (!norm.weight.empty()) Expect(norm.weight, {size});
    if (!norm.bias.empty()) Expect(norm.bias, {size});
  }

  void Linear(const LinearTensors& linear, int64_t inputs) {
    const std::string* last = nullptr;  // Ranges of a tensor stand together.
    for (const RowRange& range : linear.weight) {
      if (last != nullptr && *last == range.tensor) continue;
      last = &range.tensor;
      const Shape shape = {TotalRows(linear.weight, range.tensor), inputs};
      packed_ == nullptr ? Expect(range.tensor, shape)
                         : ExpectPacked(range.tensor, shape);
    }
    last = nullptr;
    for (const RowRange& range : linear.bias) {
      if (last != nullptr && *last == range.tensor) continue;
      last = &range.tensor;
      Expect(range.tensor, {TotalRows(linear.bias, range.tensor)});
    }
    ExpectOrder(linear.input_order, inputs);
  }

  void Expect(const std::string& name, const Shape& shape) {
    if (!status_.ok() || !used_.insert(name).second) return;
    if (const CodedMatrix* codes = tensors_.FindCoded(name)) {
      const Shape found = {codes->form().outputs, codes->form().inputs};
      if (found != shape) status_ = WrongShape(name, found, shape);
      return;
    }
    const absl::StatusOr<TensorView> view = tensors_.Find(name);
    if (!view.ok()) {
      status_ = view.status();
    } else if (view->shape != shape) {
      status_ = WrongShape(name, view->shape, shape);
    } else if (!CanConvertToF32(view->dtype)) {
      status_ = absl::InvalidArgumentError(absl::StrCat(
          tensors_.path(), ": tensor ", name, " is of type ",
          DTypeName(view->dtype), ", which is not a type for weights"));
    }
  }

  // Where a packed file has the input order of a matrix. Whether it is a
  // permutation is checked when it is loaded.
  void ExpectOrder(const std::string& name, int64_t inputs) {
    if (name.empty() || !tensors_.Contains(name)) return;
    if (!status_.ok() || !used_.insert(name).second) return;
    const absl::StatusOr<TensorView> view = tensors_.Find(name);
    if (!view.ok()) {
      status_ = view.status();
    } else if (view->dtype != DType::kI32 || view->shape != Shape({inputs})) {
      status_ = absl::InvalidArgumentError(absl::StrCat(
          tensors_.path(), ": tensor ", name, " is of type ",
          DTypeName(view->dtype), " and shape ", view->shape.ToString(),
          "; an input order is i32 ", Shape({inputs}).ToString()));
    }
  }

  // A matrix of a packed file.
  void ExpectPacked(const std::string& name, const Shape& shape) {
    if (!status_.ok() || !used_.insert(name).second) return;
    const absl::StatusOr<PackedTensor> stored = packed_->FindPacked(name);
    if (!stored.ok()) {
      status_ = stored.status();
      return;
    }
    const Shape found = {stored->layout.outputs, stored->layout.inputs};
    if (found != shape) status_ = WrongShape(name, found, shape);
  }

  // Every stored tensor was asked for or may be ignored.
  absl::Status NothingElse(const std::vector<std::string>& ignored) const {
    constexpr size_t kNamesShown = 3;
    std::vector<std::string> unknown;
    size_t count = 0;
    for (const std::string& name : tensors_.names()) {
      if (used_.contains(name) || MayIgnore(name, ignored)) continue;
      if (++count <= kNamesShown) unknown.push_back(name);
    }
    if (count == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        tensors_.path(), ": ", count,
        " tensors are no part of the model that the configuration describes: ",
        absl::StrJoin(unknown, ", "), count > kNamesShown ? ", ..." : ""));
  }

 private:
  absl::Status WrongShape(const std::string& name, const Shape& found,
                          const Shape& wanted) const {
    return absl::InvalidArgumentError(absl::StrCat(
        tensors_.path(), ": tensor ", name, " has shape ", found.ToString(),
        "; the configuration asks for ", wanted.ToString()));
  }

  // A tensor that feeds several ranges is used up by them.
  static int64_t TotalRows(const std::vector<RowRange>& ranges,
                           const std::string& tensor) {
    int64_t rows = 0;
    for (const RowRange& range : ranges) {
      if (range.tensor == tensor) rows += range.rows;
    }
    return rows;
  }

  static bool MayIgnore(absl::string_view name,
                        const std::vector<std::string>& ignored) {
    return std::any_of(ignored.begin(), ignored.end(),
                       [name](absl::string_view pattern) {
                         return absl::ConsumePrefix(&pattern, "*")
                                    ? absl::EndsWith(name, pattern)
                                    : name == pattern;
                       });
  }

  const TensorSource& tensors_;
  const PackedFile* const packed_;  // null for other files
  absl::flat_hash_set<std::string> used_;
  absl::Status status_;
};

}  // namespace

absl::Status CheckTensors(const Checkpoint& checkpoint) {
  const DecoderConfig& config = checkpoint.config;
  const DecoderTensors& names = checkpoint.names;
  TensorChecker checker(checkpoint);
  if (!names.embedding.empty()) {
    checker.Expect(names.embedding, {config.vocabulary, config.hidden});
  }
  for (const LayerTensors& layer : names.layers) {
    if (!checker.status().ok()) break;
    checker.Norm(layer.attention_norm, config.hidden);
    checker.Linear(layer.qkv, config.hidden);
    checker.Linear(layer.attention, config.q_dim());
    checker.Norm(layer.mlp_norm, config.hidden);
    checker.Linear(layer.up, config.hidden);
    checker.Linear(layer.down, config.ffn);
  }
  checker.Norm(names.final_norm, config.hidden);
  checker.Linear(names.head, config.hidden);
  if (!checker.status().ok()) return checker.status();
  return checker.NothingElse(names.ignored);
}

}  // namespace nibble
