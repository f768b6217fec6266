// A checkpoint as a GGUF file that llama.cpp loads.
//
//   QuantizationOptions options;
//   options.rounding = {/*bits=*/4, /*group_size=*/32, /*symmetric=*/true};
//   absl::StatusOr<QuantizationReport> report =
//       ExportGguf("models/tolstoy-llama", "tolstoy-q4_0.gguf", options, pool,
//                  nullptr);
//
// `options.rounding` chooses the type of the matrices:
//
//   bits 4, symmetric   Q4_0
//   bits 4              Q4_1
//   bits 8              Q8_0
//   bits 16             F16
//
// with groups of 32 (for 16 bits the group size means nothing). The embedding
// and the head are Q8_0 in files of 4 bits: an embedding's error goes into
// every layer, a head's into every logit. Matrices that `options.keep_float`
// matches (by default the head, and so a tied embedding), and those whose rows
// are not a multiple of 32, are F16. Norms and biases are F32. A model that
// GPT-NeoX's graph wants biases of and that has none gets zeros.
//
// With `options.keep_codes` a quantized Hugging Face folder keeps its codes and
// values: each matrix takes the smallest of Q4_0, Q4_1 and Q8_0 that holds it
// exactly, floats keep their type, and what no type holds is an error.
//
// Names, row orders and what cannot be expressed: gguf_plan.h. Metadata and
// tokenizer: gguf_metadata.h.
#ifndef NIBBLE_QUANTIZATION_EXPORT_GGUF_EXPORT_H_
#define NIBBLE_QUANTIZATION_EXPORT_GGUF_EXPORT_H_

#include <string>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/flow.h"

namespace nibble {

// As QuantizeCheckpoint; memory stays below 100 MB beside the mapped input.
// A kill leaves what was there (tensor/io/atomic_file.h).
absl::StatusOr<QuantizationReport> ExportGguf(
    const std::string& model_path, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress);

// The same of a checkpoint that is open, also with codes of a method's own.
absl::StatusOr<QuantizationReport> ExportOpenGguf(
    const Checkpoint& checkpoint, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GGUF_EXPORT_H_
