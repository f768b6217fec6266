#ifndef NIBBLE_RUNTIME_ENGINE_OPTIONS_H_
#define NIBBLE_RUNTIME_ENGINE_OPTIONS_H_

// How an engine is to hold and run a model, and whether a checkpoint allows it.
//
//   EngineOptions options;
//   options.model_path = "models/tolstoy-llama.nib";
//   options.threads = 2;
//   absl::Status status = CheckOptions(options);   // before anything is opened

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/matmul/matmul.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"

namespace nibble {

// Called with the work done and the work in all, in matrices or tokens.
using ProgressCallback = std::function<void(int64_t done, int64_t total)>;
using WarningCallback = std::function<void(const std::string& warning)>;

struct EngineOptions {
  // A Hugging Face folder, a .gguf, a packed .nib or a llama2.c .bin file.
  std::string model_path;
  // What weights are held in: kF32 or kBF16. Not given: as a packed file or a
  // quantized checkpoint has them, and otherwise kBF16. Another format than a
  // packed file's is an error.
  std::optional<WeightFormat> weights;
  // What products are computed in. Not given: kInt8 with integer weights, else
  // kF32. kBF16 needs weights other than f32.
  std::optional<Activations> activations;
  // What keys and values are held in: kF32; kBF16, which takes half the memory
  // and rounds each to 8 bits of precision; kI8, a quarter and a little more,
  // with one scale per token and head. Not given: kI8 with integer weights,
  // else kF32.
  std::optional<DType> kv_cache;
  // 0: as many as the machine grants (AvailableCores()).
  int threads = 0;
  // Most tokens of a sequence. 0: the model's own limit. More than that limit
  // is an error, except where the positions have no limit: ALiBi, and dynamic
  // rope scaling (which has none by itself either).
  int64_t context = 0;
  // Most bytes that weights, keys and values may take together, be they
  // allocated or mapped. 0: what the machine and the process's cgroup have free
  // when the model is opened.
  int64_t memory_limit = 0;
  // Tokens per prefill step; 0: kDefaultPrefillChunk.
  int64_t prefill_chunk = 0;
  // Called while weights are read, on the calling thread.
  ProgressCallback load_progress;
  // Called for everything odd about a quantized checkpoint that is read all the
  // same, on the calling thread.
  WarningCallback warn;
};

// InvalidArgument, naming the option, for a value that no model allows.
absl::Status CheckOptions(const EngineOptions& options);

// Most tokens of a sequence. InvalidArgument for more than the model has
// positions.
absl::StatusOr<int64_t> ResolveContext(const EngineOptions& options,
                                       const DecoderConfig& config);

// InvalidArgument where options.weights is another format than a packed file
// has, and for an integer format of a checkpoint that is not packed.
absl::Status CheckWeightsOption(const EngineOptions& options,
                                const Checkpoint& checkpoint);

// ResourceExhausted when the weights take more than `available` bytes as they
// will be held: in a format or, without one, as LoadWeights has it.
absl::Status CheckWeightsFit(const Checkpoint& checkpoint,
                             std::optional<WeightFormat> weights,
                             int64_t available);

// InvalidArgument: "option: problem".
absl::Status OptionError(absl::string_view option, absl::string_view problem);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_ENGINE_OPTIONS_H_
