// tokenize: text to token ids and back, and how fast.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "apps/common/app.h"
#include "apps/common/json.h"
#include "apps/common/model_flag.h"
#include "apps/common/text_file.h"
#include "runtime/load_tokenizer.h"
#include "tokenizer/tokenizer.h"

ABSL_FLAG(std::string, tokenizer, "",
          "a tokenizer.json, a tokenizer.model or a GGUF file, instead of a "
          "model");
ABSL_FLAG(std::string, input, "",
          "file with {\"text\":...} or {\"token_ids\":[...]} a line; - for "
          "standard input");
ABSL_FLAG(std::string, text_file, "",
          "file to encode as a whole, for its size in tokens and the speed");
ABSL_FLAG(bool, add_special_tokens, true,
          "add what the model expects around a text, such as <s>");
ABSL_FLAG(bool, parse_special, true,
          "let special tokens spelled in the text become those tokens");
ABSL_FLAG(bool, skip_special_tokens, true,
          "leave special tokens out of decoded text");
ABSL_FLAG(std::string, output, "json",
          "json: one object a line, which is all there is");

namespace nibble {
namespace {

constexpr int64_t kMaxLineBytes = 256 << 20;
constexpr int64_t kMaxTextBytes = int64_t{4} << 30;

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizerFromFlags() {
  const std::string file = absl::GetFlag(FLAGS_tokenizer);
  if (file.empty()) {
    absl::StatusOr<std::string> path = ModelPathFromFlag();
    if (!path.ok()) return path.status();
    return OpenTokenizer(*path);
  }
  if (!absl::GetFlag(FLAGS_model).empty()) {
    return absl::InvalidArgumentError(
        "--model and --tokenizer contradict each other: give one of them");
  }
  return OpenTokenizer(file);
}

Tokenizer::EncodeOptions EncodeOptionsFromFlags() {
  Tokenizer::EncodeOptions options;
  options.add_special_tokens = absl::GetFlag(FLAGS_add_special_tokens);
  options.parse_special = absl::GetFlag(FLAGS_parse_special);
  return options;
}

absl::Status ConvertLine(const Tokenizer& tokenizer, absl::string_view line,
                         absl::string_view where) {
  absl::StatusOr<Json> object = ParseJsonObject(line, where);
  if (!object.ok()) return object.status();
  if (object->contains("text") == object->contains("token_ids")) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": expected either \"text\" or \"token_ids\""));
  }
  if (object->contains("text")) {
    absl::StatusOr<std::string> text = JsonString(*object, "text", where);
    if (!text.ok()) return text.status();
    PrintJsonLine(
        {{"token_ids", tokenizer.Encode(*text, EncodeOptionsFromFlags())}});
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<int32_t>> ids =
      JsonTokenIds(*object, "token_ids", where);
  if (!ids.ok()) return ids.status();
  PrintJsonLine(
      {{"text",
        tokenizer.Decode(*ids, absl::GetFlag(FLAGS_skip_special_tokens))}});
  return absl::OkStatus();
}

absl::Status MeasureFile(const Tokenizer& tokenizer, const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path, kMaxTextBytes);
  if (!text.ok()) return text.status();
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> ids =
      tokenizer.Encode(*text, EncodeOptionsFromFlags());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  const double megabytes = static_cast<double>(text->size()) / 1e6;
  PrintJsonLine(
      {{"bytes", text->size()},
       {"tokens", ids.size()},
       {"seconds", seconds},
       {"megabytes_per_second", seconds > 0 ? megabytes / seconds : 0.0}});
  return absl::OkStatus();
}

absl::Status TokenizeMain() {
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output != "json") return FlagError("output", output, "must be json");
  const std::string input = absl::GetFlag(FLAGS_input);
  const std::string text_file = absl::GetFlag(FLAGS_text_file);
  if (input.empty() == text_file.empty()) {
    return absl::InvalidArgumentError(
        "give either --input=FILE.jsonl or --text_file=FILE (- for standard "
        "input)");
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      OpenTokenizerFromFlags();
  if (!tokenizer.ok()) return tokenizer.status();
  if (!text_file.empty()) return MeasureFile(**tokenizer, text_file);
  return ForEachLine(input, kMaxLineBytes,
                     [&](absl::string_view line, absl::string_view where) {
                       return ConvertLine(**tokenizer, line, where);
                     });
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  return nibble::RunApp(
      argc, argv, {"tokenize", "text to token ids and back, and how fast."},
      [](absl::Span<const std::string>) { return nibble::TokenizeMain(); });
}
