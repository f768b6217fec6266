// The tensors of a quantized Hugging Face folder, under the names that they
// have in the float checkpoint it was made from.
//
//   absl::StatusOr<std::optional<ConfigReader>> settings =
//       FindQuantizationConfig(folder, config_json);
//   if (!settings.ok()) return settings.status();
//   if (settings->has_value()) {
//     absl::StatusOr<std::unique_ptr<QuantizedTensors>> tensors =
//         OpenQuantizedTensors(std::move(stored), **settings);
//   }
//
// Read are GPTQ (zeros of v1 and v2, with and without act-order), AWQ (GEMM and
// GEMV), AutoRound (its three packings) and compressed-tensors (pack-quantized)
// at 2, 3, 4 and 8 bits where the format defines them; docs/quantization.md
// ("Importing") has the table.
#ifndef NIBBLE_MODELS_QUANTIZED_QUANTIZED_FOLDER_H_
#define NIBBLE_MODELS_QUANTIZED_QUANTIZED_FOLDER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/config_reader.h"
#include "models/quantized/quantized_summary.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

// For a quantized X, names() lists X.weight and hides what it is stored in
// (X.qweight, X.scales, ...); FindCoded("X.weight") is the matrix, and
// Find("X.weight") is Unimplemented, for there are no dense bytes. Every other
// tensor is as it is stored.
class QuantizedTensors : public TensorSource {
 public:
  virtual const QuantizedSummary& summary() const = 0;

  // Biases of quantized modules that hold only zeros. Some writers give every
  // module one; where the model has none, they may be ignored.
  virtual const std::vector<std::string>& zero_biases() const = 0;
};

// The settings of a quantized checkpoint: "quantization_config" of config.json
// or, where it has none, quantize_config.json or quantization_config.json in
// the folder. nullopt when there are none: a float checkpoint.
absl::StatusOr<std::optional<ConfigReader>> FindQuantizationConfig(
    const std::string& folder, ConfigReader& config_json);

// For a checkpoint without settings. InvalidArgument: it holds quantized
// matrices, which cannot be read without them.
absl::Status CheckNotQuantized(const TensorSource& tensors);

// `stored`, which the result owns, seen through `settings`. Shapes, dtypes and
// group indices of every quantized matrix are checked, its codes and scales are
// not read. Unimplemented: a method, format or width that is not supported;
// InvalidArgument: settings or tensors that do not fit together. Messages name
// the file, the field or tensor, and what is supported.
absl::StatusOr<std::unique_ptr<QuantizedTensors>> OpenQuantizedTensors(
    std::unique_ptr<TensorSource> stored, ConfigReader& settings);

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_QUANTIZED_FOLDER_H_
