// What `score` is asked for: tokens, and from which on they are rated.
#ifndef NIBBLE_APPS_SCORE_REQUEST_H_
#define NIBBLE_APPS_SCORE_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "apps/common/json.h"
#include "runtime/score.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

struct ScoreRequest {
  std::vector<int32_t> token_ids;
  int64_t first = 1;  // the first token that is rated
};

// One line of --input: {"token_ids": [...]}, {"text": "..."} or {"context":
// "...", "continuation": "..."}. A continuation is what stands in the ids of
// both texts together after as many ids as the context alone has; it must
// have some. `tokenizer` may be null; then only token_ids can be read. Errors
// begin with `where`.
absl::StatusOr<ScoreRequest> ParseScoreRequest(absl::string_view line,
                                               absl::string_view where,
                                               const Tokenizer* tokenizer,
                                               bool parse_special);

// {"token_ids", "logprobs": [null, ...], "sum_logprob", "is_greedy"}: all
// tokens of the request, null where they are not rated.
Json ScoreJson(const ScoreRequest& request, const TokenScores& scores);

}  // namespace nibble

#endif  // NIBBLE_APPS_SCORE_REQUEST_H_
