// Which type each tensor of a GGUF export is written as.
//
//   absl::StatusOr<GgufTypes> types =
//       ChooseGgufTypes(checkpoint, options, std::move(plan.parts));
//   if (!types.ok()) return types.status();
//   types->parts[0].dtype;   // q8_0
//   MainGgufType(*types);    // q4_0: what the file calls itself
//
// The rules are those of gguf_export.h.
#ifndef NIBBLE_QUANTIZATION_EXPORT_GGUF_TYPES_H_
#define NIBBLE_QUANTIZATION_EXPORT_GGUF_TYPES_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/checkpoint.h"
#include "quantization/export/gguf_plan.h"
#include "quantization/flow.h"
#include "tensor/dtype.h"

namespace nibble {

// A part and how it is written.
struct TypedGgufPart {
  GgufPart part;
  DType dtype = DType::kF32;
  std::vector<float> values;  // of a vector that is in no tensor
};

struct GgufTypes {
  std::vector<TypedGgufPart> parts;
  int64_t stored_bytes = 0;  // of all matrices, where they are read
};

// InvalidArgument: bits or group size that no type has. What needs no
// checkpoint to know.
absl::Status CheckGgufRounding(const QuantizationOptions& options);

// With options.keep_codes, reads all scales (CodedBlocks::Survey).
// InvalidArgument: keep_float is no regular expression or matches nothing;
// codes that no type holds; codes to be kept where there are none.
// REQUIRES: CheckGgufRounding(options) is OK; `parts` are PlanGguf's.
absl::StatusOr<GgufTypes> ChooseGgufTypes(const Checkpoint& checkpoint,
                                          const QuantizationOptions& options,
                                          std::vector<GgufPart> parts);

// Of most weights in the layers, for the file's own description.
DType MainGgufType(const GgufTypes& types);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GGUF_TYPES_H_
