// score: log-probabilities and logits of given tokens.

#include "runtime/score.h"

#include <cstdint>
#include <cstring>
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
#include "apps/common/engine_flags.h"
#include "apps/common/flag_types.h"
#include "apps/common/json.h"
#include "apps/common/text_file.h"
#include "apps/score_request.h"
#include "runtime/engine.h"
#include "runtime/memory.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/shape.h"
#include "tensor/view.h"

ABSL_FLAG(nibble::TokenIds, token_ids, {}, "ids to rate: one request");
ABSL_FLAG(std::string, input, "",
          "file with a request a line: {\"token_ids\":[...]}, {\"text\":...} "
          "or {\"context\":...,\"continuation\":...}; - for standard input");
ABSL_FLAG(std::string, logits, "",
          "safetensors file to write request0.logits [tokens, vocabulary] and "
          "so on into");
ABSL_FLAG(bool, parse_special, false,
          "let special tokens spelled in a text become those tokens");
ABSL_FLAG(std::string, output, "json",
          "json: one object a line, which is all there is");

namespace nibble {
namespace {

constexpr int64_t kMaxLineBytes = 256 << 20;

// The logits of every request, until they are written.
class LogitsFile {
 public:
  explicit LogitsFile(std::string path) : path_(std::move(path)) {}

  // Room for the next request's logits, [tokens, vocabulary].
  absl::StatusOr<absl::Span<float>> Add(int64_t tokens, int64_t vocabulary) {
    const int64_t bytes =
        tokens * vocabulary * static_cast<int64_t>(sizeof(float));
    if (bytes > AvailableMemoryBytes()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "--logits: request ", logits_.size(), " needs ", FormatBytes(bytes),
          " for its logits, more than is free: ask in smaller pieces"));
    }
    logits_.push_back({vocabulary, std::vector<float>(tokens * vocabulary)});
    return absl::MakeSpan(logits_.back().values);
  }

  absl::Status Write() const {
    std::vector<NamedTensor> tensors;
    for (size_t i = 0; i < logits_.size(); ++i) {
      const std::vector<float>& values = logits_[i].values;
      const int64_t vocabulary = logits_[i].vocabulary;
      const absl::StatusOr<Shape> shape = Shape::Create(
          {static_cast<int64_t>(values.size()) / vocabulary, vocabulary});
      if (!shape.ok()) return shape.status();
      tensors.push_back(
          {absl::StrCat("request", i, ".logits"),
           TensorView{DType::kF32, *shape,
                      reinterpret_cast<const std::byte*>(values.data()),
                      values.size() * sizeof(float)}});
    }
    return WriteSafetensors(path_, tensors);
  }

 private:
  struct Logits {
    int64_t vocabulary;
    std::vector<float> values;  // [tokens, vocabulary]
  };

  std::string path_;
  std::vector<Logits> logits_;
};

// `file` may be null.
absl::Status Score(Engine& engine, const ScoreRequest& request,
                   absl::string_view where, LogitsFile* file) {
  ScoreOptions options;
  options.first = request.first;
  // A single token has logits, though nothing predicts it.
  absl::Span<float> kept;
  if (file != nullptr) {
    absl::StatusOr<absl::Span<float>> room = file->Add(
        static_cast<int64_t>(request.token_ids.size()), engine.vocabulary());
    if (!room.ok()) return room.status();
    kept = *room;
    options.logits = [&](int64_t first_position,
                         MatrixView<const float> logits) {
      for (int64_t row = 0; row < logits.rows; ++row) {
        std::memcpy(&kept[(first_position + row) * logits.cols],
                    logits.row(row), logits.cols * sizeof(float));
      }
      return absl::OkStatus();
    };
  }
  absl::StatusOr<TokenScores> scores =
      ScoreTokens(engine, request.token_ids, options);
  if (!scores.ok()) {
    return absl::Status(scores.status().code(),
                        absl::StrCat(where, ": ", scores.status().message()));
  }
  PrintJsonLine(ScoreJson(request, *scores));
  return absl::OkStatus();
}

absl::Status ScoreMain() {
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output != "json") return FlagError("output", output, "must be json");
  const TokenIds ids = absl::GetFlag(FLAGS_token_ids);
  const std::string input = absl::GetFlag(FLAGS_input);
  if (ids.given == !input.empty()) {
    return absl::InvalidArgumentError(
        "give either --token_ids=1,2,3 or --input=FILE.jsonl (- for standard "
        "input)");
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine = OpenEngineFromFlags();
  if (!engine.ok()) return engine.status();

  const std::string logits = absl::GetFlag(FLAGS_logits);
  LogitsFile logits_file(logits);
  LogitsFile* const file = logits.empty() ? nullptr : &logits_file;
  absl::Status status;
  if (ids.given) {
    status = Score(**engine, {ids.ids, /*first=*/1}, "--token_ids", file);
  } else {
    const bool parse_special = absl::GetFlag(FLAGS_parse_special);
    status = ForEachLine(
        input, kMaxLineBytes,
        [&](absl::string_view line, absl::string_view where) -> absl::Status {
          absl::StatusOr<ScoreRequest> request = ParseScoreRequest(
              line, where, (*engine)->tokenizer(), parse_special);
          if (!request.ok()) return request.status();
          return Score(**engine, *request, where, file);
        });
  }
  if (!status.ok() || file == nullptr) return status;
  return logits_file.Write();
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  return nibble::RunApp(
      argc, argv, {"score", "log-probabilities and logits of given tokens."},
      [](absl::Span<const std::string>) { return nibble::ScoreMain(); });
}
