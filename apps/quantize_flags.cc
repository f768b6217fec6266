#include "apps/quantize_flags.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/common/app.h"
#include "apps/common/version.h"
#include "apps/method_flags.h"
#include "apps/quantize_recipe.h"
#include "kernels/cpu.h"
#include "quantization/flow.h"
#include "quantization/round_to_nearest.h"
#include "tensor/packed_layout.h"

namespace nibble {

// Text that may be given empty, which std::optional<std::string> takes for not
// given.
struct GivenText {
  std::optional<std::string> text;
};

bool AbslParseFlag(absl::string_view text, GivenText* given, std::string*) {
  given->text = std::string(text);
  return true;
}

std::string AbslUnparseFlag(const GivenText& given) {
  return given.text.value_or("");
}

}  // namespace nibble

ABSL_FLAG(std::string, out, "",
          "what to write: a .nib file, a .gguf file, or a folder that is not "
          "there yet (--format=gptq)");
ABSL_FLAG(std::optional<std::string>, method, std::nullopt,
          "how weights are rounded: rtn (to nearest, the default), gptq, awq, "
          "teq, signround; or keep: not at all, the codes of a quantized "
          "checkpoint stay as they are");
ABSL_FLAG(std::optional<int>, bits, std::nullopt,
          "bits per weight: 4 (the default) or 8; with --format=gguf and "
          "--method=rtn also 16 (F16), with other methods also 2 and 3");
ABSL_FLAG(std::string, group_size, "",
          "weights of a row that share a scale: a multiple of 32, or row (or "
          "-1) for one scale per row; default 128, and 32 with --format=gguf");
ABSL_FLAG(std::optional<bool>, symmetric, std::nullopt,
          "no zero points; default false with 4 bits, and always true with 8");
ABSL_FLAG(nibble::GivenText, keep_float, {},
          "matrices whose name this regular expression matches stay bf16; "
          "default ^head, empty: none. Names: layers.N.qkv.weight, "
          "layers.N.attention.weight, "
          "layers.N.up.weight, layers.N.down.weight, head.weight");
ABSL_FLAG(std::string, format, "nib",
          "what is written: nib; gguf, a file for llama.cpp (Q4_0 with "
          "--symmetric, else Q4_1; Q8_0; F16); gptq, a Hugging Face folder");
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

ABSL_FLAG(bool, resume, false,
          "go on behind the finished blocks that an earlier run left in the "
          "folder OUT.work");

namespace nibble {
namespace {

// As for the other programs.
constexpr int64_t kMaxThreads = 4096;

absl::Status CheckMethod(const std::string& method) {
  for (const char* known : {"rtn", "gptq", "awq", "teq", "signround", "keep"}) {
    if (method == known) return absl::OkStatus();
  }
  return FlagError("method", method,
                   "must be rtn, gptq, awq, teq, signround or keep");
}

absl::StatusOr<OutputFormat> ReadFormat() {
  const std::string name = absl::GetFlag(FLAGS_format);
  if (name == "nib") return OutputFormat::kNib;
  if (name == "gguf") return OutputFormat::kGguf;
  if (name == "gptq") return OutputFormat::kGptq;
  return FlagError("format", name, "must be nib, gguf or gptq");
}

absl::StatusOr<int64_t> ReadGroupSize(OutputFormat format) {
  const std::string text = absl::GetFlag(FLAGS_group_size);
  if (text.empty()) return format == OutputFormat::kGguf ? 32 : 128;
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

// The flags of every method as they were given.
absl::StatusOr<GivenGrid> ReadGiven(OutputFormat format) {
  GivenGrid given;
  const std::optional<std::string> method = absl::GetFlag(FLAGS_method);
  given.has_method = method.has_value();
  given.method = method.value_or("rtn");
  const absl::Status known = CheckMethod(given.method);
  if (!known.ok()) return known;
  given.bits = absl::GetFlag(FLAGS_bits);
  given.symmetric = absl::GetFlag(FLAGS_symmetric);
  given.offset = absl::GetFlag(FLAGS_offset);
  given.keep_float = absl::GetFlag(FLAGS_keep_float).text;
  given.head_bits = absl::GetFlag(FLAGS_head_bits);
  given.gguf = format == OutputFormat::kGguf;
  if (absl::GetFlag(FLAGS_group_size).empty()) return given;
  const absl::StatusOr<int64_t> size = ReadGroupSize(format);
  if (!size.ok()) return size.status();
  given.group_size = *size == kWholeRow ? -1 : *size;
  return given;
}

absl::StatusOr<RoundingOptions> ReadRounding(OutputFormat format) {
  RoundingOptions rounding;
  rounding.bits = absl::GetFlag(FLAGS_bits).value_or(4);
  const bool f16 = rounding.bits == 16 && format == OutputFormat::kGguf;
  if (rounding.bits != 4 && rounding.bits != 8 && !f16) {
    return FlagError("bits", absl::StrCat(rounding.bits),
                     "must be 4 or 8, or with --format=gguf 16");
  }
  const absl::StatusOr<int64_t> group_size = ReadGroupSize(format);
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

// What is kept is not rounded: no flag has a say in it.
absl::Status CheckNothingIsRounded() {
  const std::optional<int> bits = absl::GetFlag(FLAGS_bits);
  const std::optional<bool> symmetric = absl::GetFlag(FLAGS_symmetric);
  const std::string group_size = absl::GetFlag(FLAGS_group_size);
  const std::optional<std::string> keep_float =
      absl::GetFlag(FLAGS_keep_float).text;
  constexpr absl::string_view kProblem =
      "contradicts --method=keep, which takes the weights as they are stored";
  if (bits) return FlagError("bits", absl::StrCat(*bits), kProblem);
  if (!group_size.empty()) return FlagError("group_size", group_size, kProblem);
  if (symmetric) {
    return FlagError("symmetric", *symmetric ? "true" : "false", kProblem);
  }
  if (keep_float) return FlagError("keep_float", *keep_float, kProblem);
  return absl::OkStatus();
}

// How weights are rounded: by a recipe, or as quantization/flow.h does it.
absl::Status ReadMethod(const AutoFlags& automatic, QuantizeRequest* request) {
  absl::StatusOr<GivenGrid> given = ReadGiven(request->format);
  if (!given.ok()) return given.status();
  request->given = *std::move(given);
  request->resume = absl::GetFlag(FLAGS_resume);
  if (automatic.given) {
    absl::StatusOr<RecipeRequest> base = SearchBaseFromFlags(request->given);
    if (!base.ok()) return base.status();
    if (!automatic.search_space.empty()) {
      const absl::Status alone = CheckSearchSpaceAlone(request->given);
      if (!alone.ok()) return alone;
    }
    request->recipe = *std::move(base);
    request->options.keep_codes = true;  // those of the recipe found
    return absl::OkStatus();
  }
  absl::StatusOr<std::optional<RecipeRequest>> recipe =
      RecipeFromFlags(request->given);
  if (!recipe.ok()) return recipe.status();
  request->recipe = *std::move(recipe);
  if (request->recipe.has_value()) {
    request->options.keep_codes = true;  // those of the method
    return absl::OkStatus();
  }
  if (request->resume) {
    return FlagError("resume", "true",
                     "has no effect: nothing of this method is left to go on "
                     "from");
  }
  request->options.keep_codes = request->given.method == "keep";
  if (request->options.keep_codes) return CheckNothingIsRounded();
  const absl::StatusOr<RoundingOptions> rounding =
      ReadRounding(request->format);
  if (!rounding.ok()) return rounding.status();
  request->options.rounding = *rounding;
  request->options.keep_float =
      request->given.keep_float.value_or(kDefaultKeepFloat);
  return absl::OkStatus();
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
  const bool folder = request->format == OutputFormat::kGptq;
  // What is put beside the output has names that begin with it.
  while (folder && request->out.size() > 1 && request->out.back() == '/') {
    request->out.pop_back();
  }
  const absl::string_view ending =
      request->format == OutputFormat::kGguf ? ".gguf" : ".nib";
  if (!folder && !absl::EndsWith(request->out, ending)) {
    return FlagError("out", request->out, absl::StrCat("must end in ", ending));
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

absl::StatusOr<QuantizeRequest> QuantizeRequestFromFlags(
    const AutoFlags& automatic) {
  const absl::StatusOr<OutputFormat> format = ReadFormat();
  if (!format.ok()) return format.status();
  QuantizeRequest request;
  request.format = *format;
  absl::Status status = ReadMethod(automatic, &request);
  if (!status.ok()) return status;
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
