#include "apps/common/engine_flags.h"

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "apps/common/app.h"
#include "apps/common/model_flag.h"
#include "apps/common/progress_bar.h"
#include "apps/common/quantized_cache.h"
#include "apps/common/weight_flags.h"
#include "kernels/cpu.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "quantization/round_to_nearest.h"
#include "runtime/engine.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"

ABSL_FLAG(std::optional<int64_t>, threads, std::nullopt,
          "threads to compute with; without it, as many as the machine grants "
          "(affinity mask and cgroup quota)");
ABSL_FLAG(std::string, isa, "best",
          "instruction set to stay within: best, scalar, avx2, avx_vnni, "
          "avx512, avx512_vnni, amx or emulated_amx");
ABSL_FLAG(std::string, activations, "auto",
          "what matrix products compute in: auto (int8 with int8 and int4 "
          "weights, else f32), int8, bf16 or f32");
ABSL_FLAG(std::string, kv_cache, "auto",
          "what keys and values are held in: auto (int8 with int8 and int4 "
          "weights, else f32), int8, bf16 or f32");

namespace nibble {
namespace {

// More threads than any machine that the engine was made for has cores; it
// keeps a slip of the finger from starting a million of them.
constexpr int64_t kMaxThreads = 4096;

absl::Status ReadThreads(EngineOptions* options) {
  const std::optional<int64_t> threads = absl::GetFlag(FLAGS_threads);
  if (!threads.has_value()) return absl::OkStatus();
  if (*threads < 1 || *threads > kMaxThreads) {
    return FlagError("threads", absl::StrCat(*threads),
                     absl::StrCat("must be between 1 and ", kMaxThreads));
  }
  options->threads = static_cast<int>(*threads);
  return absl::OkStatus();
}

absl::Status ReadActivations(const WeightFlags& weights,
                             EngineOptions* options) {
  const std::string activations = absl::GetFlag(FLAGS_activations);
  if (activations == "f32") {
    options->activations = Activations::kF32;
  } else if (activations == "bf16") {
    options->activations = Activations::kBF16;
    if (weights.format == WeightFormat::kF32) {
      return FlagError("activations", "bf16",
                       "contradicts --weights=f32: products in bf16 need "
                       "weights in bf16, int8 or int4");
    }
  } else if (activations == "int8") {
    options->activations = Activations::kInt8;
    if (weights.format.has_value() && !weights.quantizes()) {
      return FlagError(
          "activations", "int8",
          absl::StrCat(
              "contradicts --weights=", WeightFormatName(*weights.format),
              ": products in int8 need weights in int8 or int4"));
    }
  } else if (activations != "auto") {
    return FlagError("activations", activations,
                     "must be auto, int8, bf16 or f32");
  }
  return absl::OkStatus();
}

absl::Status ReadKvCache(EngineOptions* options) {
  const std::string kv_cache = absl::GetFlag(FLAGS_kv_cache);
  if (kv_cache == "f32") {
    options->kv_cache = DType::kF32;
  } else if (kv_cache == "bf16") {
    options->kv_cache = DType::kBF16;
  } else if (kv_cache == "int8") {
    options->kv_cache = DType::kI8;
  } else if (kv_cache != "auto") {
    return FlagError("kv_cache", kv_cache, "must be auto, int8, bf16 or f32");
  }
  return absl::OkStatus();
}

// The packed form of the float checkpoint at `path`, made now unless the user's
// cache has it.
absl::StatusOr<std::string> QuantizedPath(const std::string& path,
                                          const WeightFlags& weights,
                                          const EngineOptions& options) {
  RoundingOptions rounding;
  rounding.bits = weights.format == WeightFormat::kInt8 ? 8 : 4;
  rounding.group_size = weights.group_size.value_or(rounding.group_size);
  rounding.symmetric = weights.symmetric.value_or(rounding.symmetric);
  ThreadPool pool(options.threads > 0 ? options.threads : AvailableCores());
  ProgressBar bar("quantizing, once", stderr);
  absl::StatusOr<std::string> packed = QuantizeIntoCache(
      path, rounding, pool,
      [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
  bar.Finish();
  return packed;
}

// Whether `path` is a packed model, by its first bytes.
bool IsPackedModel(const std::string& path) {
  std::string magic(4, '\0');
  std::ifstream(path, std::ios::binary).read(magic.data(), 4);
  return magic == "NIBB";
}

// What the engine is to open for --model, given --weights.
absl::StatusOr<std::string> PathWithWeights(const std::string& path,
                                            const WeightFlags& weights,
                                            const EngineOptions& options) {
  if (IsPackedModel(path)) {
    const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(path);
    if (!checkpoint.ok()) return checkpoint.status();
    const absl::Status fits = CheckPackedWeights(weights, *checkpoint);
    if (!fits.ok()) return fits;
    return path;
  }
  if (weights.quantizes()) return QuantizedPath(path, weights, options);
  for (const bool given :
       {weights.group_size.has_value(), weights.symmetric.has_value()}) {
    if (!given) continue;
    return absl::InvalidArgumentError(
        "--group_size and --symmetric need --weights=int4 or int8, or a "
        "packed model");
  }
  return path;
}

}  // namespace

absl::Status ApplyIsaFlag() {
  const std::string name = absl::GetFlag(FLAGS_isa);
  const absl::StatusOr<Isa> isa = ParseIsa(name);
  const absl::Status status = isa.ok() ? LimitIsa(*isa) : isa.status();
  if (status.ok()) return status;
  return FlagError("isa", name, status.message());
}

absl::StatusOr<EngineOptions> EngineOptionsFromFlags() {
  EngineOptions options;
  const absl::StatusOr<WeightFlags> weights = WeightsFromFlags();
  if (!weights.ok()) return weights.status();
  options.weights = weights->format;
  absl::Status status = ReadThreads(&options);
  if (status.ok()) status = ReadActivations(*weights, &options);
  if (status.ok()) status = ReadKvCache(&options);
  if (!status.ok()) return status;
  return options;
}

absl::StatusOr<std::unique_ptr<Engine>> OpenEngineFromFlags() {
  absl::StatusOr<EngineOptions> options = EngineOptionsFromFlags();
  if (!options.ok()) return options.status();
  absl::Status status = ApplyIsaFlag();
  if (!status.ok()) return status;
  const absl::StatusOr<WeightFlags> weights = WeightsFromFlags();
  if (!weights.ok()) return weights.status();
  // How to hold weights is a question about floats: of the bundled model, they
  // lie beside it.
  absl::StatusOr<std::string> path =
      weights->given() ? FloatModelPathFromFlag() : ModelPathFromFlag();
  if (!path.ok()) return path.status();
  path = PathWithWeights(*path, *weights, *options);
  if (!path.ok()) return path.status();
  options->model_path = *std::move(path);
  return OpenEngineWithBar(*std::move(options));
}

absl::StatusOr<std::unique_ptr<Engine>> OpenEngineWithBar(
    EngineOptions options) {
  ProgressBar bar("loading", stderr);
  options.load_progress = [&bar](int64_t done, int64_t total) {
    bar.Update(done, total);
  };
  // Names from the file must not move the cursor.
  options.warn = [](const std::string& warning) {
    absl::FPrintF(stderr, "warning: %s\n", absl::Utf8SafeCEscape(warning));
  };
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Open(options);
  bar.Finish();
  return engine;
}

}  // namespace nibble
