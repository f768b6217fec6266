// What a .nib file says of how its weights came about.
//
//   *manifest.mutable_record() = options.keep_codes
//                                    ? KeptRecord(checkpoint, plan.tensors)
//                                    : RoundedRecord(options.rounding,
//                                                    options.keep_float,
//                                                    plan.tensors);
//
// Source and program version are left to the caller.
#ifndef NIBBLE_QUANTIZATION_RECORD_H_
#define NIBBLE_QUANTIZATION_RECORD_H_

#include <string>

#include "absl/types/span.h"
#include "models/checkpoint.h"
#include "quantization/packing_plan.h"
#include "quantization/round_to_nearest.h"
#include "tensor/io/packed_manifest.pb.h"

namespace nibble {

QuantizationRecord RoundedRecord(const RoundingOptions& rounding,
                                 const std::string& keep_float,
                                 absl::Span<const PlannedTensor> plan);

// The method is that of the checkpoint: "gptq (kept)". Bits, group size and
// symmetry are those of most matrices; the others are listed.
QuantizationRecord KeptRecord(const Checkpoint& checkpoint,
                              absl::Span<const PlannedTensor> plan);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_RECORD_H_
