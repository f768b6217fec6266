#include "apps/score_request.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/common/json.h"
#include "runtime/score.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

absl::StatusOr<ScoreRequest> FromContext(const Json& object,
                                         absl::string_view where,
                                         const Tokenizer& tokenizer,
                                         Tokenizer::EncodeOptions options) {
  absl::StatusOr<std::string> context = JsonString(object, "context", where);
  if (!context.ok()) return context.status();
  absl::StatusOr<std::string> continuation =
      JsonString(object, "continuation", where);
  if (!continuation.ok()) return continuation.status();

  ScoreRequest request;
  request.first =
      static_cast<int64_t>(tokenizer.Encode(*context, options).size());
  request.token_ids =
      tokenizer.Encode(absl::StrCat(*context, *continuation), options);
  if (request.first < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        where,
        ": \"context\" has no tokens, so nothing predicts the first "
        "token of the continuation"));
  }
  if (request.first >= static_cast<int64_t>(request.token_ids.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, ": \"continuation\" adds no tokens to the context"));
  }
  return request;
}

}  // namespace

absl::StatusOr<ScoreRequest> ParseScoreRequest(absl::string_view line,
                                               absl::string_view where,
                                               const Tokenizer* tokenizer,
                                               bool parse_special) {
  absl::StatusOr<Json> object = ParseJsonObject(line, where);
  if (!object.ok()) return object.status();
  const bool has_ids = object->contains("token_ids");
  const bool has_text = object->contains("text");
  const bool has_context =
      object->contains("context") || object->contains("continuation");
  if (has_ids + has_text + has_context != 1 ||
      object->contains("context") != object->contains("continuation")) {
    return absl::InvalidArgumentError(absl::StrCat(
        where,
        ": expected \"token_ids\", or \"text\", or \"context\" and "
        "\"continuation\""));
  }
  ScoreRequest request;
  if (has_ids) {
    absl::StatusOr<std::vector<int32_t>> ids =
        JsonTokenIds(*object, "token_ids", where);
    if (!ids.ok()) return ids.status();
    request.token_ids = *std::move(ids);
    return request;
  }
  if (tokenizer == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        where, ": the model has no tokenizer beside it; give \"token_ids\""));
  }
  Tokenizer::EncodeOptions options;
  options.parse_special = parse_special;
  if (has_context) return FromContext(*object, where, *tokenizer, options);
  absl::StatusOr<std::string> text = JsonString(*object, "text", where);
  if (!text.ok()) return text.status();
  request.token_ids = tokenizer->Encode(*text, options);
  return request;
}

Json ScoreJson(const ScoreRequest& request, const TokenScores& scores) {
  Json logprobs = Json::array();
  for (int64_t i = 0; i < request.first; ++i) logprobs.push_back(nullptr);
  for (const float logprob : scores.logprobs) logprobs.push_back(logprob);
  Json json;
  json["token_ids"] = request.token_ids;
  json["logprobs"] = std::move(logprobs);
  json["sum_logprob"] = scores.sum_logprob;
  json["is_greedy"] = scores.is_greedy;
  return json;
}

}  // namespace nibble
