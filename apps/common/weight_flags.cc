#include "apps/common/weight_flags.h"

#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/common/app.h"
#include "tensor/io/packed_file.h"

ABSL_FLAG(
    std::string, weights, "auto",
    "what weights are held in: auto (a packed or quantized model as it is, "
    "others in bf16), f32, bf16, int8 or int4; the latter two quantize a "
    "checkpoint once, into the user's cache");
ABSL_FLAG(std::optional<int64_t>, group_size, std::nullopt,
          "weights per scale of --weights=int8 and int4, a multiple of 32; "
          "without it 128");
ABSL_FLAG(std::optional<bool>, symmetric, std::nullopt,
          "--weights=int4 without zero points; without it false");

namespace nibble {
namespace {

absl::string_view BoolText(bool value) { return value ? "true" : "false"; }

absl::Status CheckGroups(const WeightFlags& flags) {
  const std::string weights = absl::GetFlag(FLAGS_weights);
  const bool no_groups = flags.format.has_value() && !flags.quantizes();
  if (flags.group_size.has_value()) {
    const std::string size = absl::StrCat(*flags.group_size);
    if (no_groups) {
      return FlagError("group_size", size,
                       absl::StrCat("contradicts --weights=", weights,
                                    ", which has no groups"));
    }
    if (*flags.group_size < 1 || *flags.group_size % kGroupSizeUnit != 0) {
      return FlagError(
          "group_size", size,
          absl::StrCat("must be a positive multiple of ", kGroupSizeUnit,
                       "; the length of a row or more is one group per row"));
    }
  }
  if (!flags.symmetric.has_value()) return absl::OkStatus();
  if (no_groups) {
    return FlagError("symmetric", BoolText(*flags.symmetric),
                     absl::StrCat("contradicts --weights=", weights,
                                  ", which has no zero points"));
  }
  if (flags.format == WeightFormat::kInt8 && !*flags.symmetric) {
    return FlagError("symmetric", "false",
                     "contradicts --weights=int8, which is always symmetric");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WeightFlags> WeightsFromFlags() {
  WeightFlags flags;
  const std::string weights = absl::GetFlag(FLAGS_weights);
  if (weights != "auto") {
    const absl::StatusOr<WeightFormat> format = ParseWeightFormat(weights);
    if (!format.ok()) {
      return FlagError("weights", weights,
                       "must be auto, f32, bf16, int8 or int4");
    }
    flags.format = *format;
  }
  flags.group_size = absl::GetFlag(FLAGS_group_size);
  flags.symmetric = absl::GetFlag(FLAGS_symmetric);
  const absl::Status valid = CheckGroups(flags);
  if (!valid.ok()) return valid;
  return flags;
}

absl::Status CheckPackedWeights(const WeightFlags& flags,
                                const Checkpoint& checkpoint) {
  const absl::StatusOr<PackedTensor> stored = checkpoint.packed->FindPacked(
      checkpoint.names.layers[0].up.weight[0].tensor);
  if (!stored.ok()) return stored.status();
  const PackedLayout& layout = stored->layout;
  const auto contradicts = [&](absl::string_view has) {
    return absl::StrCat("contradicts ", checkpoint.path, ", which has ", has,
                        "; give the checkpoint that it was made from, or "
                        "leave the flag out");
  };
  if (flags.format.has_value() && *flags.format != layout.format) {
    return FlagError(
        "weights", WeightFormatName(*flags.format),
        contradicts(absl::StrCat(WeightFormatName(layout.format), " weights")));
  }
  const bool integer = IsInteger(layout.format);
  if (flags.group_size.has_value() &&
      (!integer || layout.group_size != *flags.group_size) &&
      !(integer && layout.group_size == layout.inputs &&
        *flags.group_size >= layout.inputs)) {
    return FlagError(
        "group_size", absl::StrCat(*flags.group_size),
        contradicts(integer ? absl::StrCat("groups of ", layout.group_size)
                            : "no groups"));
  }
  if (flags.symmetric.has_value() &&
      (!integer || layout.symmetric != *flags.symmetric)) {
    return FlagError("symmetric", BoolText(*flags.symmetric),
                     contradicts(layout.has_zeros()      ? "zero points"
                                 : layout.has_minimums() ? "minimums"
                                                         : "no zero points"));
  }
  return absl::OkStatus();
}

}  // namespace nibble
