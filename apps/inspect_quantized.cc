#include "apps/inspect_quantized.h"

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "apps/inspect_check.h"
#include "kernels/cpu.h"
#include "kernels/thread_pool.h"
#include "models/coded_gather.h"
#include "models/packed_names.h"
#include "models/quantized/quantized_summary.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

Json SummaryJson(const QuantizedSummary& summary) {
  return {{"method", summary.method},
          {"format", summary.format},
          {"bits", summary.bits},
          {"group_size", summary.group_size},
          {"symmetric", summary.symmetric},
          {"act_order", summary.act_order},
          {"coded_matrices", summary.coded_matrices},
          {"float_matrices", summary.float_matrices},
          {"exceptions", summary.exceptions},
          {"warnings", summary.warnings}};
}

struct NamedMatrix {
  std::string name;  // as in a .nib file
  const std::vector<RowRange>* rows;
};

std::vector<NamedMatrix> MatricesOf(const Checkpoint& checkpoint) {
  const DecoderTensors names = PackedTensorNames(checkpoint.config);
  std::vector<NamedMatrix> all;
  const auto add = [&](const LinearTensors& name, const LinearTensors& from) {
    all.push_back({name.weight[0].tensor, &from.weight});
  };
  for (size_t i = 0; i < names.layers.size(); ++i) {
    const LayerTensors& from = checkpoint.names.layers[i];
    add(names.layers[i].qkv, from.qkv);
    add(names.layers[i].attention, from.attention);
    add(names.layers[i].up, from.up);
    add(names.layers[i].down, from.down);
  }
  add(names.head, checkpoint.names.head);
  return all;
}

std::string LayoutText(const PackedLayout& layout) {
  std::string text(WeightFormatName(layout.format));
  if (!IsInteger(layout.format)) return text;
  return absl::StrCat(text, " in groups of ", layout.group_size,
                      layout.has_zeros()      ? " with zero points"
                      : layout.has_minimums() ? " with minimums"
                                              : "",
                      layout.wide_scales ? " and f32 scales" : "");
}

absl::StatusOr<std::string> HeldAs(const Checkpoint& checkpoint) {
  ThreadPool pool(AvailableCores());
  std::map<std::string, int> counts;
  std::vector<std::string> f32;
  for (const NamedMatrix& matrix : MatricesOf(checkpoint)) {
    const absl::StatusOr<StoredMatrix> stored =
        AsStored(*checkpoint.tensors, *matrix.rows, pool);
    if (!stored.ok()) return stored.status();
    ++counts[LayoutText(stored->layout)];
    if (stored->layout.format == WeightFormat::kF32) f32.push_back(matrix.name);
  }
  std::vector<std::string> parts;
  for (const auto& [layout, count] : counts) {
    parts.push_back(absl::StrCat(count, count == 1 ? " matrix" : " matrices",
                                 " as ", layout));
  }
  return absl::StrCat(
      absl::StrJoin(parts, ", "),
      f32.empty() ? ""
                  : absl::StrCat("; f32 because no packed layout holds their "
                                 "codes together: ",
                                 absl::StrJoin(f32, ", ")));
}

}  // namespace

void AddQuantized(Json& report, const Checkpoint& checkpoint) {
  if (checkpoint.quantized != nullptr) {
    report["quantization"] = SummaryJson(*checkpoint.quantized);
  }
  const bool any_codes =
      absl::c_any_of(checkpoint.tensors->names(), [&](const std::string& name) {
        return checkpoint.tensors->FindCoded(name) != nullptr;
      });
  if (!any_codes) return;
  const absl::StatusOr<std::string> held = HeldAs(checkpoint);
  AddCheck(report, "weights", held.status(), held.ok() ? *held : "");
}

}  // namespace nibble
