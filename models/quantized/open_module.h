// One quantized linear layer of a Hugging Face folder, from its tensors.
//
//   absl::StatusOr<std::unique_ptr<StoredCodes>> up =
//       OpenModule(tensors, "model.layers.0.mlp.up_proj", settings);
//   if (!up.ok()) return up.status();   // names the file and the tensor
//
// Every shape and dtype is checked against the settings, and g_idx against the
// group size. Codes and scales are not read.
#ifndef NIBBLE_MODELS_QUANTIZED_OPEN_MODULE_H_
#define NIBBLE_MODELS_QUANTIZED_OPEN_MODULE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "models/quantized/quantization_settings.h"
#include "models/quantized/stored_codes.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

// What the tensors of a module end in, such as ".qweight"; the codes first.
absl::Span<const absl::string_view> ModuleParts(CodeLayout layout);

// `tensors` must outlive the result. Where the settings allow several forms,
// the first that the shapes fit. InvalidArgument: the tensors fit none;
// NotFound: one is missing.
absl::StatusOr<std::unique_ptr<StoredCodes>> OpenModule(
    const TensorSource& tensors, const std::string& module,
    const QuantizationSettings& settings);

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_OPEN_MODULE_H_
