#include "apps/quantize_flags.h"

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/common/app.h"
#include "apps/common/version.h"
#include "kernels/cpu.h"
#include "quantization/flow.h"
#include "quantization/round_to_nearest.h"
#include "tensor/packed_layout.h"

ABSL_FLAG(std::string, out, "", "the .nib file to write");
ABSL_FLAG(std::string, method, "rtn",
          "how weights are rounded: rtn (to nearest); gptq, awq, teq and "
          "signround are not in this version yet");
ABSL_FLAG(int, bits, 4, "bits per weight: 4 or 8");
ABSL_FLAG(std::string, group_size, "128",
          "weights of a row that share a scale: a multiple of 32, or row (or "
          "-1) for one scale per row");
ABSL_FLAG(std::optional<bool>, symmetric, std::nullopt,
          "no zero points; default false with 4 bits, and always true with 8");
ABSL_FLAG(std::string, keep_float, nibble::kDefaultKeepFloat,
          "matrices whose name this regular expression matches stay bf16; "
          "empty: none. Names: layers.N.qkv.weight, layers.N.attention.weight, "
          "layers.N.up.weight, layers.N.down.weight, head.weight");
ABSL_FLAG(std::string, format, "nib",
          "what is written: nib; gptq and gguf are not in this version yet");
ABSL_FLAG(std::string, report, "",
          "file for a JSON report: what each tensor lost, bytes, time");
ABSL_FLAG(std::string, output, "text",
          "what goes to standard output: text, or json: one object");
ABSL_FLAG(std::optional<int64_t>, threads, std::nullopt,
          "threads to compute with; without it, as many as the machine grants "
          "(affinity mask and cgroup quota)");
ABSL_FLAG(std::string, isa, "best",
          "instruction set to stay within: best, scalar, avx2, avx_vnni, "
          "avx512, avx512_vnni, amx or emulated_amx");

// What the methods of later versions take. Named here so that the answer is not
// "unknown flag".
#define NIBBLE_LATER(name, help)                            \
  ABSL_FLAG(std::optional<std::string>, name, std::nullopt, \
            help ": not in this version yet")
NIBBLE_LATER(calibration, "text to measure activations on");
NIBBLE_LATER(samples, "pieces of calibration text");
NIBBLE_LATER(length, "tokens in a piece of calibration text");
NIBBLE_LATER(seed, "which pieces of calibration text");
NIBBLE_LATER(recipe, "file with settings for each layer");
NIBBLE_LATER(task, "what the search for a recipe is judged by");
NIBBLE_LATER(tolerance, "loss that the search for a recipe accepts");
NIBBLE_LATER(trials, "recipes that the search tries");
NIBBLE_LATER(hours, "time that the search takes");
#undef NIBBLE_LATER
ABSL_FLAG(bool, auto, false, "search for a recipe: not in this version yet");
ABSL_FLAG(bool, resume, false,
          "go on where a run was killed: not in this version yet");

namespace nibble {
namespace {

// As for the other programs.
constexpr int64_t kMaxThreads = 4096;

absl::Status NotYet(absl::string_view flag, absl::string_view value) {
  return absl::UnimplementedError(
      absl::StrCat("--", flag, "=", value,
                   ": not supported by this version yet; it rounds to nearest "
                   "(--method=rtn) into a .nib file (--format=nib)"));
}

absl::Status CheckChoice(absl::string_view flag, absl::string_view value,
                         absl::string_view supported,
                         std::initializer_list<absl::string_view> later) {
  if (value == supported) return absl::OkStatus();
  if (absl::c_linear_search(later, value)) return NotYet(flag, value);
  return FlagError(flag, value, absl::StrCat("must be ", supported));
}

absl::Status RefuseFlagsOfLaterVersions() {
  absl::Status status = CheckChoice("method", absl::GetFlag(FLAGS_method),
                                    "rtn", {"gptq", "awq", "teq", "signround"});
  if (status.ok()) {
    status = CheckChoice("format", absl::GetFlag(FLAGS_format), "nib",
                         {"gptq", "gguf"});
  }
  const auto refuse = [&status](absl::string_view flag,
                                const std::optional<std::string>& value) {
    if (status.ok() && value.has_value()) status = NotYet(flag, *value);
  };
  refuse("calibration", absl::GetFlag(FLAGS_calibration));
  refuse("samples", absl::GetFlag(FLAGS_samples));
  refuse("length", absl::GetFlag(FLAGS_length));
  refuse("seed", absl::GetFlag(FLAGS_seed));
  refuse("recipe", absl::GetFlag(FLAGS_recipe));
  refuse("task", absl::GetFlag(FLAGS_task));
  refuse("tolerance", absl::GetFlag(FLAGS_tolerance));
  refuse("trials", absl::GetFlag(FLAGS_trials));
  refuse("hours", absl::GetFlag(FLAGS_hours));
  if (status.ok() && absl::GetFlag(FLAGS_auto)) status = NotYet("auto", "true");
  if (status.ok() && absl::GetFlag(FLAGS_resume)) {
    status = NotYet("resume", "true");
  }
  return status;
}

absl::StatusOr<int64_t> ReadGroupSize() {
  const std::string text = absl::GetFlag(FLAGS_group_size);
  if (text == "row" || text == "-1") return kWholeRow;
  int64_t size = 0;
  if (!absl::SimpleAtoi(text, &size) || size < 1 ||
      size % kGroupSizeUnit != 0) {
    return FlagError("group_size", text,
                     absl::StrCat("must be a positive multiple of ",
                                  kGroupSizeUnit, ", or row"));
  }
  return size;
}

absl::StatusOr<RoundingOptions> ReadRounding() {
  RoundingOptions rounding;
  rounding.bits = absl::GetFlag(FLAGS_bits);
  if (rounding.bits != 4 && rounding.bits != 8) {
    return FlagError("bits", absl::StrCat(rounding.bits), "must be 4 or 8");
  }
  const absl::StatusOr<int64_t> group_size = ReadGroupSize();
  if (!group_size.ok()) return group_size.status();
  rounding.group_size = *group_size;
  const std::optional<bool> symmetric = absl::GetFlag(FLAGS_symmetric);
  if (rounding.bits == 8 && symmetric.has_value() && !*symmetric) {
    return FlagError("symmetric", "false",
                     "contradicts --bits=8, which is always symmetric");
  }
  rounding.symmetric = symmetric.value_or(rounding.bits == 8);
  return rounding;
}

absl::StatusOr<int> ReadThreads() {
  const std::optional<int64_t> threads = absl::GetFlag(FLAGS_threads);
  if (!threads.has_value()) return AvailableCores();
  if (*threads < 1 || *threads > kMaxThreads) {
    return FlagError("threads", absl::StrCat(*threads),
                     absl::StrCat("must be between 1 and ", kMaxThreads));
  }
  return static_cast<int>(*threads);
}

absl::Status ApplyIsa() {
  const std::string name = absl::GetFlag(FLAGS_isa);
  const absl::StatusOr<Isa> isa = ParseIsa(name);
  const absl::Status status = isa.ok() ? LimitIsa(*isa) : isa.status();
  return status.ok() ? status : FlagError("isa", name, status.message());
}

absl::Status ReadFiles(QuantizeRequest* request) {
  request->out = absl::GetFlag(FLAGS_out);
  if (request->out.empty()) {
    return absl::InvalidArgumentError("--out=FILE.nib is needed");
  }
  if (!absl::EndsWith(request->out, ".nib")) {
    return FlagError("out", request->out, "must end in .nib");
  }
  request->report = absl::GetFlag(FLAGS_report);
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output != "text" && output != "json") {
    return FlagError("output", output, "must be text or json");
  }
  request->json = output == "json";
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QuantizeRequest> QuantizeRequestFromFlags() {
  absl::Status status = RefuseFlagsOfLaterVersions();
  if (!status.ok()) return status;
  QuantizeRequest request;
  const absl::StatusOr<RoundingOptions> rounding = ReadRounding();
  if (!rounding.ok()) return rounding.status();
  request.options.rounding = *rounding;
  request.options.keep_float = absl::GetFlag(FLAGS_keep_float);
  request.options.program_version = kProgramVersion;
  const absl::StatusOr<int> threads = ReadThreads();
  if (!threads.ok()) return threads.status();
  request.threads = *threads;
  status = ReadFiles(&request);
  if (status.ok()) status = ApplyIsa();
  if (!status.ok()) return status;
  return request;
}

}  // namespace nibble
