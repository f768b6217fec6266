#include "apps/common/engine_flags.h"

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/common/app.h"
#include "apps/common/model_flag.h"
#include "apps/common/progress_bar.h"
#include "kernels/cpu.h"
#include "kernels/matmul/matmul.h"
#include "runtime/engine.h"
#include "tensor/dtype.h"

ABSL_FLAG(std::optional<int64_t>, threads, std::nullopt,
          "threads to compute with; without it, as many as the machine grants "
          "(affinity mask and cgroup quota)");
ABSL_FLAG(std::string, isa, "best",
          "instruction set to stay within: best, scalar, avx2, avx512, "
          "avx512_vnni, amx or emulated_amx");
ABSL_FLAG(std::string, weights, "auto",
          "what a float checkpoint is held in: auto (bf16), bf16 or f32");
ABSL_FLAG(std::optional<int64_t>, group_size, std::nullopt,
          "weights per scale of int8 and int4 weights, which this version does "
          "not have yet");
ABSL_FLAG(std::optional<bool>, symmetric, std::nullopt,
          "int8 and int4 weights without zero points, which this version does "
          "not have yet");
ABSL_FLAG(std::string, activations, "f32",
          "what matrix products compute in: f32, or bf16 with bf16 weights");
ABSL_FLAG(std::string, kv_cache, "f32",
          "what keys and values are held in: f32 or bf16");

namespace nibble {
namespace {

// More threads than any machine that the engine was made for has cores; it
// keeps a slip of the finger from starting a million of them.
constexpr int64_t kMaxThreads = 4096;

absl::Status NotYet(absl::string_view flag, absl::string_view value,
                    absl::string_view instead) {
  return absl::UnimplementedError(
      absl::StrCat("--", flag, "=", value,
                   ": not supported by this version yet; use ", instead));
}

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

absl::Status ReadWeights(EngineOptions* options) {
  const std::string weights = absl::GetFlag(FLAGS_weights);
  if (weights == "f32") {
    options->weights = DType::kF32;
  } else if (weights == "bf16") {
    options->weights = DType::kBF16;
  } else if (weights == "int8" || weights == "int4") {
    return NotYet("weights", weights, "auto, bf16 or f32");
  } else if (weights != "auto") {
    return FlagError("weights", weights, "must be auto, bf16 or f32");
  }
  // Both belong to weights of few bits.
  if (const auto size = absl::GetFlag(FLAGS_group_size); size.has_value()) {
    return NotYet("group_size", absl::StrCat(*size), "--weights alone");
  }
  if (const auto value = absl::GetFlag(FLAGS_symmetric); value.has_value()) {
    return NotYet("symmetric", *value ? "true" : "false", "--weights alone");
  }
  return absl::OkStatus();
}

absl::Status ReadActivations(EngineOptions* options) {
  const std::string activations = absl::GetFlag(FLAGS_activations);
  if (activations == "f32") {
    options->activations = Activations::kF32;
  } else if (activations == "bf16") {
    options->activations = Activations::kBF16;
    if (options->weights == DType::kF32) {
      return FlagError("activations", "bf16",
                       "contradicts --weights=f32: products in bf16 need bf16 "
                       "weights");
    }
  } else if (activations == "int8") {
    return NotYet("activations", activations, "f32 or bf16");
  } else {
    return FlagError("activations", activations, "must be f32 or bf16");
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
    return NotYet("kv_cache", kv_cache, "f32 or bf16");
  } else {
    return FlagError("kv_cache", kv_cache, "must be f32 or bf16");
  }
  return absl::OkStatus();
}

absl::Status ApplyIsaFlag() {
  const std::string name = absl::GetFlag(FLAGS_isa);
  const absl::StatusOr<Isa> isa = ParseIsa(name);
  const absl::Status status = isa.ok() ? LimitIsa(*isa) : isa.status();
  if (status.ok()) return status;
  return FlagError("isa", name, status.message());
}

}  // namespace

absl::StatusOr<EngineOptions> EngineOptionsFromFlags() {
  EngineOptions options;
  absl::Status status = ReadThreads(&options);
  if (status.ok()) status = ReadWeights(&options);
  if (status.ok()) status = ReadActivations(&options);
  if (status.ok()) status = ReadKvCache(&options);
  if (!status.ok()) return status;
  return options;
}

absl::StatusOr<std::unique_ptr<Engine>> OpenEngineFromFlags() {
  absl::StatusOr<EngineOptions> options = EngineOptionsFromFlags();
  if (!options.ok()) return options.status();
  absl::Status status = ApplyIsaFlag();
  if (!status.ok()) return status;
  absl::StatusOr<std::string> path = ModelPathFromFlag();
  if (!path.ok()) return path.status();
  options->model_path = *std::move(path);
  ProgressBar bar("loading", stderr);
  options->load_progress = [&bar](int64_t done, int64_t total) {
    bar.Update(done, total);
  };
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Open(*options);
  bar.Finish();
  return engine;
}

}  // namespace nibble
