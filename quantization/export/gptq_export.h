// A checkpoint as a GPTQ folder, which Transformers and GPTQModel load.
//
//   QuantizationOptions options;
//   options.rounding = {/*bits=*/4, /*group_size=*/128, /*symmetric=*/true};
//   absl::StatusOr<QuantizationReport> report =
//       ExportGptq("models/tolstoy-llama", "tolstoy-gptq", options, pool,
//                  nullptr);
//
// Every matrix of the decoder's layers becomes qweight, qzeros, scales and
// g_idx (gptq_matrix.h) under its own name and in its own row order; fused q, k
// and v stay fused. Embedding, head, norms and biases keep 16 bits: bf16 stays,
// f32 becomes f16. The rest of the folder (configuration, tokenizer) comes
// along. The codes are those of a .nib file of the same options whose scales
// are f16.
//
// Symmetric matrices are written as checkpoint_format "gptq", whose zeros are
// stored minus 1, and the others as "gptq_v2", which can say 0. Scales of
// symmetric matrices may be negative (round_to_nearest.h).
//
// With `options.keep_codes` a quantized folder keeps its codes and values, and
// act-order its g_idx. What GPTQ cannot say exactly is an error: minimums,
// matrices that differ in bits or group size, scales beyond f16.
#ifndef NIBBLE_QUANTIZATION_EXPORT_GPTQ_EXPORT_H_
#define NIBBLE_QUANTIZATION_EXPORT_GPTQ_EXPORT_H_

#include <string>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/flow.h"

namespace nibble {

// As QuantizeCheckpoint, with a Hugging Face folder in, and a folder that is
// not there yet (or empty) out; `options.keep_float` must be the default, as
// GPTQ's settings cannot name matrices of layers that stay floats. Weights
// beyond 4 GB are split into files of that size. Memory: the largest matrix, as
// written.
// A kill leaves nothing called `out_path`, but may leave
// `<out_path>.nibble-tmp-<pid>`, which the next export of that name removes
// (output_folder.h).
absl::StatusOr<QuantizationReport> ExportGptq(
    const std::string& model_path, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress);

// The same of a checkpoint that is open, also with codes of a method's own.
absl::StatusOr<QuantizationReport> ExportOpenGptq(
    const Checkpoint& checkpoint, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress);

// The same with another size of files, for tests.
absl::StatusOr<QuantizationReport> ExportOpenGptqInShards(
    const Checkpoint& checkpoint, const std::string& out_path,
    const QuantizationOptions& options, int64_t shard_bytes, ThreadPool& pool,
    const QuantizationProgress& progress);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GPTQ_EXPORT_H_
