#include "quantization/record.h"

#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

// What matrices are counted by: format, group size (0: the whole row), whether
// symmetric.
using Kind = std::tuple<WeightFormat, int64_t, bool>;

Kind KindOf(const PackedLayout& layout) {
  const bool whole_row = layout.group_size == layout.inputs;
  return {layout.format, whole_row ? 0 : layout.group_size, layout.symmetric};
}

// The kind of most integer matrices; of the float ones if there are no others.
Kind MostCommon(absl::Span<const PlannedTensor> plan) {
  std::map<Kind, int> counts;
  for (const PlannedTensor& tensor : plan) {
    if (tensor.codes) ++counts[KindOf(*tensor.layout())];
  }
  Kind best = {WeightFormat::kBF16, 0, true};
  int most = 0;
  for (const auto& [kind, count] : counts) {
    if (count > most) {
      best = kind;
      most = count;
    }
  }
  return best;
}

int BitsOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt4:
      return 4;
    case WeightFormat::kInt8:
      return 8;
    case WeightFormat::kBF16:
      return 16;
    case WeightFormat::kF32:
      return 32;
  }
  return 0;
}

QuantizationRecord::Override* AddOverride(const PlannedTensor& tensor,
                                          QuantizationRecord& record) {
  QuantizationRecord::Override* added = record.add_overrides();
  added->set_tensor(tensor.name);
  added->set_format(std::string(WeightFormatName(tensor.layout()->format)));
  if (!tensor.reason.empty()) added->set_reason(tensor.reason);
  return added;
}

}  // namespace

QuantizationRecord RoundedRecord(const RoundingOptions& rounding,
                                 const std::string& keep_float,
                                 absl::Span<const PlannedTensor> plan) {
  QuantizationRecord record;
  record.set_method("rtn");
  record.set_bits(rounding.bits);
  record.set_group_size(rounding.group_size == kWholeRow ? 0
                                                         : rounding.group_size);
  record.set_symmetric(rounding.bits == 8 || rounding.symmetric);
  record.set_keep_float(keep_float);
  for (const PlannedTensor& tensor : plan) {
    if (!tensor.reason.empty()) AddOverride(tensor, record);
  }
  return record;
}

QuantizationRecord KeptRecord(const Checkpoint& checkpoint,
                              absl::Span<const PlannedTensor> plan) {
  const Kind common = MostCommon(plan);
  QuantizationRecord record;
  record.set_method(absl::StrCat(checkpoint.quantized != nullptr
                                     ? checkpoint.quantized->method
                                     : checkpoint.format,
                                 " (kept)"));
  record.set_bits(BitsOf(std::get<0>(common)));
  record.set_group_size(std::get<1>(common));
  record.set_symmetric(std::get<2>(common));
  for (const PlannedTensor& tensor : plan) {
    const PackedLayout* layout = tensor.layout();
    if (layout == nullptr || (tensor.codes && KindOf(*layout) == common)) {
      continue;
    }
    QuantizationRecord::Override* added = AddOverride(tensor, record);
    if (!tensor.codes) continue;
    added->set_group_size(std::get<1>(KindOf(*layout)));
    added->set_symmetric(layout->symmetric);
    added->set_reason("stored so");
  }
  return record;
}

}  // namespace nibble
