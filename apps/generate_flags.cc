#include "apps/generate_flags.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/common/app.h"
#include "apps/common/flag_types.h"
#include "apps/common/text_file.h"
#include "models/decoder_config.h"
#include "runtime/text_generator.h"

namespace {

// Each --stop on the command line adds to this list. It grows while flags are
// parsed, before anything else runs.
std::vector<std::string>& StopStrings() {
  static auto* const list = new std::vector<std::string>;
  return *list;
}

}  // namespace

ABSL_FLAG(nibble::GivenString, prompt, {}, "text to go on from");
ABSL_FLAG(std::string, prompt_file, "",
          "file whose whole text is the prompt; - for standard input");
ABSL_FLAG(nibble::TokenIds, token_ids, {},
          "ids to go on from, 1,2,3, instead of a text");
ABSL_FLAG(bool, chat, false,
          "wrap the prompt in the model's chat template; on a terminal, go on "
          "interactively");
ABSL_FLAG(std::string, system, "", "system message of a chat");
ABSL_FLAG(bool, parse_special, false,
          "let special tokens spelled in the prompt, such as </s>, become "
          "those tokens");
ABSL_FLAG(int64_t, max_tokens, 128, "most tokens to generate");
ABSL_FLAG(nibble::GivenString, stop, {},
          "text that ends the generation; may be given more than once")
    .OnUpdate([] {
      const nibble::GivenString stop = absl::GetFlag(FLAGS_stop);
      if (stop.given) StopStrings().push_back(stop.text);
    });
ABSL_FLAG(uint64_t, seed, 0,
          "seed of the random choices: the same command writes the same text");
ABSL_FLAG(std::optional<double>, temperature, std::nullopt,
          "how far to stray from the likeliest token: 0 is greedy; without it "
          "0.8, and 0 under --num_beams");
ABSL_FLAG(int64_t, top_k, 0, "choose among the k likeliest tokens; 0: all");
ABSL_FLAG(double, top_p, 0.95,
          "choose among the likeliest tokens that make up this probability; "
          "1: all");
ABSL_FLAG(double, min_p, 0,
          "drop tokens below this share of the likeliest one's probability");
ABSL_FLAG(double, repetition_penalty, 1,
          "above 1, tokens of the prompt and the text become less likely");
ABSL_FLAG(double, frequency_penalty, 0,
          "subtracted from a logit once per occurrence in the text");
ABSL_FLAG(double, presence_penalty, 0,
          "subtracted from a logit that occurs in the text");
ABSL_FLAG(nibble::LogitBias, logit_bias, {},
          "id:value,... added to logits; id:-inf bans a token");
ABSL_FLAG(int64_t, num_beams, 1, "above 1: beam search, without sampling");
ABSL_FLAG(bool, ignore_eos, false, "go on past the end-of-text token");
ABSL_FLAG(std::string, output, "text", "text, streamed, or json: one object");

namespace nibble {
namespace {

constexpr double kDefaultTemperature = 0.8;
constexpr int64_t kMaxPromptBytes = 64 << 20;

absl::Status ReadPrompt(GenerateRequest* request) {
  const GivenString prompt = absl::GetFlag(FLAGS_prompt);
  const std::string file = absl::GetFlag(FLAGS_prompt_file);
  const TokenIds token_ids = absl::GetFlag(FLAGS_token_ids);
  if (prompt.given + !file.empty() + token_ids.given > 1) {
    return absl::InvalidArgumentError(
        "--prompt, --prompt_file and --token_ids contradict each other: give "
        "one of them");
  }
  if (prompt.given) request->prompt = prompt.text;
  if (token_ids.given) request->token_ids = token_ids.ids;
  if (!file.empty()) {
    absl::StatusOr<std::string> text = ReadTextFile(file, kMaxPromptBytes);
    if (!text.ok()) {
      return absl::Status(
          text.status().code(),
          absl::StrCat("--prompt_file: ", text.status().message()));
    }
    request->prompt = *std::move(text);
  }
  if (prompt.given || token_ids.given || !file.empty() || request->chat) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "nothing to go on from: give --prompt=TEXT, --prompt_file=FILE, "
      "--token_ids=1,2,3 or --chat");
}

absl::Status ReadChat(GenerateRequest* request) {
  request->chat = absl::GetFlag(FLAGS_chat);
  request->system = absl::GetFlag(FLAGS_system);
  request->parse_special = absl::GetFlag(FLAGS_parse_special);
  if (!request->chat && !request->system.empty()) {
    return absl::InvalidArgumentError("--system needs --chat");
  }
  if (request->chat && absl::GetFlag(FLAGS_token_ids).given) {
    return absl::InvalidArgumentError(
        "--token_ids and --chat contradict each other: a chat template needs "
        "text");
  }
  if (request->chat && request->parse_special) {
    return absl::InvalidArgumentError(
        "--parse_special and --chat contradict each other: messages never "
        "become special tokens");
  }
  return absl::OkStatus();
}

void ReadSampling(SamplingOptions* sampling, int64_t num_beams) {
  sampling->temperature =
      absl::GetFlag(FLAGS_temperature)
          .value_or(num_beams > 1 ? 0 : kDefaultTemperature);
  sampling->top_k = absl::GetFlag(FLAGS_top_k);
  sampling->top_p = absl::GetFlag(FLAGS_top_p);
  sampling->min_p = absl::GetFlag(FLAGS_min_p);
  sampling->repetition_penalty = absl::GetFlag(FLAGS_repetition_penalty);
  sampling->frequency_penalty = absl::GetFlag(FLAGS_frequency_penalty);
  sampling->presence_penalty = absl::GetFlag(FLAGS_presence_penalty);
  sampling->logit_bias = absl::GetFlag(FLAGS_logit_bias).biases;
  sampling->seed = absl::GetFlag(FLAGS_seed);
}

absl::Status ReadOptions(GenerateOptions* options) {
  options->max_tokens = absl::GetFlag(FLAGS_max_tokens);
  options->stop = StopStrings();
  options->ignore_eos = absl::GetFlag(FLAGS_ignore_eos);
  options->num_beams = absl::GetFlag(FLAGS_num_beams);
  ReadSampling(&options->sampling, options->num_beams);
  for (const std::string& stop : options->stop) {
    if (stop.empty()) return FlagError("stop", stop, "must not be empty");
  }
  // Ids in --logit_bias are checked again when the model is known.
  return ValidateAsFlags(*options, kMaxVocabulary);
}

}  // namespace

absl::Status ValidateAsFlags(const GenerateOptions& options,
                             int64_t vocabulary) {
  const absl::Status status = options.Validate(vocabulary);
  if (status.ok()) return status;
  // The message begins with the field, which is called as the flag is.
  return absl::InvalidArgumentError(absl::StrCat("--", status.message()));
}

absl::StatusOr<GenerateRequest> GenerateRequestFromFlags() {
  GenerateRequest request;
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output != "text" && output != "json") {
    return FlagError("output", output, "must be text or json");
  }
  request.json = output == "json";
  absl::Status status = ReadChat(&request);
  if (status.ok()) status = ReadOptions(&request.options);
  if (status.ok()) status = ReadPrompt(&request);
  if (!status.ok()) return status;
  return request;
}

}  // namespace nibble
