// --weights, --group_size and --symmetric: how a model's weights are held.
//
//   absl::StatusOr<WeightFlags> flags = WeightsFromFlags();
//   if (!flags.ok()) return flags.status();
//   if (flags->quantizes()) Quantize(*flags->format);
#ifndef NIBBLE_APPS_COMMON_WEIGHT_FLAGS_H_
#define NIBBLE_APPS_COMMON_WEIGHT_FLAGS_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/checkpoint.h"
#include "tensor/packed_layout.h"

namespace nibble {

struct WeightFlags {
  // Not set: --weights=auto, which keeps packed and quantized weights as they
  // are and holds others in bf16.
  std::optional<WeightFormat> format;
  // Set where the flag was given. A positive multiple of 32; from the length of
  // a row on, one group is the whole row.
  std::optional<int64_t> group_size;
  std::optional<bool> symmetric;

  // Whether anything was asked for.
  bool given() const {
    return format.has_value() || group_size.has_value() ||
           symmetric.has_value();
  }
  // Whether a checkpoint has to be quantized, from its values.
  bool quantizes() const { return format.has_value() && IsInteger(*format); }
};

// InvalidArgument, naming the flag: values that mean nothing, and values that
// contradict each other.
absl::StatusOr<WeightFlags> WeightsFromFlags();

// InvalidArgument, naming the flag and the file, where the weights of a packed
// model are not what the flags ask for. REQUIRES: checkpoint.packed is set.
absl::Status CheckPackedWeights(const WeightFlags& flags,
                                const Checkpoint& checkpoint);

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_WEIGHT_FLAGS_H_
