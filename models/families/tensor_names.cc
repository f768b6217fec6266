#include "models/families/tensor_names.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

std::vector<RowRange> GroupedRanges(const std::string& tensor,
                                    const DecoderConfig& config) {
  // One group is q, k, v already: the whole tensor, read in place.
  if (config.kv_heads == 1) return {{tensor, 0, config.qkv_dim()}};
  const int64_t queries = config.heads / config.kv_heads;
  std::vector<RowRange> ranges;
  ranges.reserve(static_cast<size_t>(3 * config.kv_heads));
  const auto add = [&](int64_t first_head, int64_t heads) {
    for (int64_t group = 0; group < config.kv_heads; ++group) {
      const int64_t head = group * (queries + 2) + first_head;
      ranges.push_back(
          {tensor, head * config.head_dim, heads * config.head_dim});
    }
  };
  add(0, queries);
  add(queries, 1);
  add(queries + 1, 1);
  return ranges;
}

}  // namespace

void AddRows(LinearTensors& linear, const std::string& name, int64_t rows,
             bool bias) {
  linear.weight.push_back({name + ".weight", 0, rows});
  if (bias) linear.bias.push_back({name + ".bias", 0, rows});
}

NormTensors LayerNormNames(const std::string& name) {
  return {name + ".weight", name + ".bias"};
}

LinearTensors GroupedQkvRows(const std::string& name,
                             const DecoderConfig& config) {
  LinearTensors linear;
  linear.weight = GroupedRanges(name + ".weight", config);
  if (config.qkv_bias) linear.bias = GroupedRanges(name + ".bias", config);
  return linear;
}

absl::Status CheckGroupedQkv(const TensorSource& tensors,
                             const std::string& name,
                             const DecoderConfig& config) {
  const std::string tensor = name + ".weight";
  const Shape wanted = {config.qkv_dim(), config.hidden};
  Shape found;
  if (const CodedMatrix* coded = tensors.FindCoded(tensor)) {
    found = {coded->form().outputs, coded->form().inputs};
  } else {
    const absl::StatusOr<TensorView> view = tensors.Find(tensor);
    if (!view.ok()) return view.status();
    found = view->shape;
  }
  if (found == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      tensors.path(), ": tensor ", tensor, " has shape ", found.ToString(),
      "; the configuration asks for ", wanted.ToString()));
}

}  // namespace nibble
