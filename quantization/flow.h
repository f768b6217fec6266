// From a checkpoint to a .nib file, matrix by matrix: floats are rounded, or
// the codes of a quantized checkpoint are kept.
//
//   QuantizationOptions options;
//   options.rounding = {/*bits=*/4, /*group_size=*/128, /*symmetric=*/false};
//   absl::StatusOr<QuantizationReport> report = QuantizeCheckpoint(
//       "models/tolstoy-llama", "tolstoy.nib", options, pool,
//       [](int64_t done, int64_t total) { ... });
//
// Weights are read twice. The first pass refuses what cannot be rounded and
// finds the matrices whose scales need f32, so that the size of every tensor is
// known before the file is begun; the second rounds, packs and writes. Both
// stream: the process never holds more than the blocks of rows it works on.
#ifndef NIBBLE_QUANTIZATION_FLOW_H_
#define NIBBLE_QUANTIZATION_FLOW_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/round_to_nearest.h"

namespace nibble {

// Matrices that stay bf16: the output head, whose errors reach every logit.
inline constexpr char kDefaultKeepFloat[] = "^head";

struct QuantizationOptions {
  RoundingOptions rounding;
  // Keeps the codes of a quantized checkpoint, and floats as a decoder holds
  // them; `rounding` and `keep_float` are not read then. The file gives the
  // logits of the checkpoint, bit for bit.
  bool keep_codes = false;
  // With `keep_codes`: where the codes come from, for the file's record; empty:
  // what the checkpoint says. "gptq int4 g128 zeros", and a recipe as text.
  std::string method;
  std::string recipe;
  // RE2 pattern, searched for in the matrices' .nib names; empty: none is kept.
  std::string keep_float = kDefaultKeepFloat;
  // For the file's record.
  std::string program_version;
  // When it becomes true the work ends with Cancelled. May be null.
  const std::atomic<bool>* cancelled = nullptr;
};

struct QuantizedTensor {
  std::string name;    // in the .nib file
  std::string format;  // "int4", "int8", "bf16" for packed, a dtype for plain
  int64_t outputs = 0;
  int64_t inputs = 0;
  bool wide_scales = false;
  int64_t stored_bytes = 0;  // in the checkpoint
  int64_t bytes = 0;         // in the .nib file
  double seconds = 0;        // to read, round, pack and write it
  // sqrt(sum (w - decoded w)^2 / sum w^2); of matrices rounded to integers
  // only.
  std::optional<double> relative_error;
};

struct QuantizationReport {
  std::vector<QuantizedTensor> tensors;  // matrices, in the order of the file
  int64_t stored_bytes = 0;              // of these matrices in the checkpoint
  int64_t file_bytes = 0;                // of the .nib file
  double survey_seconds = 0;             // the first pass
  double seconds = 0;                    // all of it, the flush to disk too
  // Over all integer matrices.
  double relative_error = 0;
};

// Work done and all of it, in bytes read.
using QuantizationProgress = std::function<void(int64_t done, int64_t total)>;

// Reads the checkpoint at `model_path`, of any format that OpenCheckpoint takes
// and that is not packed yet, and writes `out_path`. Nothing appears there
// unless all went well. Errors name the file and the tensor or option; also
// InvalidArgument when `out_path` is the model or there are no codes to keep,
// Aborted when the model changed meanwhile, ResourceExhausted when the disk is
// full. `progress` may be null.
absl::StatusOr<QuantizationReport> QuantizeCheckpoint(
    const std::string& model_path, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress);

// The same of a checkpoint that is open.
absl::StatusOr<QuantizationReport> QuantizeOpenCheckpoint(
    const Checkpoint& checkpoint, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FLOW_H_
