// generate: prompt in, text out, streamed.

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "apps/common/app.h"
#include "apps/common/engine_flags.h"
#include "apps/common/interrupt.h"
#include "apps/common/json.h"
#include "apps/common/model_flag.h"
#include "apps/common/progress_bar.h"
#include "apps/generate_flags.h"
#include "apps/generate_report.h"
#include "kernels/cpu.h"
#include "runtime/chat_template.h"
#include "runtime/engine.h"
#include "runtime/text_generator.h"

namespace nibble {
namespace {

bool OnTerminal() { return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO); }

void Print(absl::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// One prompt: streams the text, or prints the JSON object.
absl::StatusOr<Generation> Run(Engine& engine, const GenerateRequest& request,
                               absl::Span<const int32_t> prompt) {
  InterruptScope interrupt;
  ProgressBar bar("reading the prompt", stderr);
  GenerateOptions options = request.options;
  options.cancel = interrupt.flag();
  options.prefill_progress = [&bar](int64_t done, int64_t total) {
    // The text begins where the bar was.
    done < total ? bar.Update(done, total) : bar.Finish();
  };
  const auto on_text = [&](absl::string_view text) {
    if (!request.json) Print(text);
    return true;
  };
  absl::StatusOr<Generation> made = Generate(engine, prompt, options, on_text);
  bar.Finish();
  if (!made.ok()) return made;
  const GenerateRun run = {
      ModelNameFromFlag(),    prompt,         &*made,
      engine.load_time(),     PeakRssBytes(), std::string(IsaName(ActiveIsa())),
      engine.pool().threads()};
  if (request.json) {
    PrintJsonLine(GenerateJson(run));
  } else {
    Print("\n");
    std::fprintf(stderr, "%s\n", GenerateSummary(run).c_str());
  }
  return made;
}

absl::StatusOr<std::vector<int32_t>> PlainPrompt(
    const Engine& engine, const GenerateRequest& request) {
  if (request.token_ids.has_value()) return *request.token_ids;
  if (engine.tokenizer() == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(engine.path(),
                     ": the model has no tokenizer beside it; give "
                     "--token_ids=1,2,3 instead of a text"));
  }
  Tokenizer::EncodeOptions options;
  options.parse_special = request.parse_special;
  return engine.tokenizer()->Encode(*request.prompt, options);
}

// The next line that the user types; false at the end of input.
bool ReadTurn(std::string* text) {
  std::fputs("> ", stderr);
  if (std::getline(std::cin, *text)) return true;
  std::fputs("\n", stderr);
  return false;
}

absl::Status Chat(Engine& engine, GenerateRequest request) {
  if (engine.tokenizer() == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        engine.path(), ": the model has no tokenizer, so it cannot chat"));
  }
  if (!request.prompt.has_value() && !OnTerminal()) {
    return absl::InvalidArgumentError(
        "--chat needs --prompt or --prompt_file where there is no terminal");
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat =
      LoadChatTemplate(engine.path(), *engine.tokenizer());
  if (!chat.ok()) return chat.status();
  request.options.stop_token_ids = EndOfTurnIds(*engine.tokenizer());

  std::vector<ChatMessage> messages;
  if (!request.system.empty()) messages.push_back({"system", request.system});
  std::string turn;
  if (request.prompt.has_value()) {
    turn = *request.prompt;
  } else if (!ReadTurn(&turn)) {
    return absl::OkStatus();
  }
  do {
    messages.push_back({"user", turn});
    absl::StatusOr<std::vector<int32_t>> prompt =
        (*chat)->Encode(messages, *engine.tokenizer());
    if (!prompt.ok()) return prompt.status();
    absl::StatusOr<Generation> answer = Run(engine, request, *prompt);
    if (!answer.ok()) return answer.status();
    messages.push_back({"assistant", answer->text});
  } while (OnTerminal() && ReadTurn(&turn));
  return absl::OkStatus();
}

absl::Status GenerateMain() {
  absl::StatusOr<GenerateRequest> request = GenerateRequestFromFlags();
  if (!request.ok()) return request.status();
  absl::StatusOr<std::unique_ptr<Engine>> engine = OpenEngineFromFlags();
  if (!engine.ok()) return engine.status();
  const absl::Status valid =
      ValidateAsFlags(request->options, (*engine)->vocabulary());
  if (!valid.ok()) return valid;
  if (request->chat) return Chat(**engine, *std::move(request));
  absl::StatusOr<std::vector<int32_t>> prompt = PlainPrompt(**engine, *request);
  if (!prompt.ok()) return prompt.status();
  return Run(**engine, *request, *prompt).status();
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  return nibble::RunApp(
      argc, argv, {"generate", "prompt in, text out, streamed."},
      [](absl::Span<const std::string>) { return nibble::GenerateMain(); });
}
