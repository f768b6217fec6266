#include "runtime/evaluation/request.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/evaluation/scored_sequence.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

// The token that stands before a text, if any does.
std::optional<int32_t> FirstToken(const Tokenizer& tokenizer,
                                  bool empty_context) {
  if (tokenizer.adds_bos()) return tokenizer.bos_id();
  if (!empty_context) return std::nullopt;
  return tokenizer.bos_id().has_value() ? tokenizer.bos_id()
                                        : tokenizer.eos_id();
}

}  // namespace

std::vector<int32_t> EncodePlain(absl::string_view text,
                                 const Tokenizer& tokenizer) {
  Tokenizer::EncodeOptions options;
  options.add_special_tokens = false;
  options.parse_special = false;
  return tokenizer.Encode(text, options);
}

absl::StatusOr<ScoredSequence> MakeSequence(absl::string_view context,
                                            absl::string_view continuation,
                                            const Tokenizer& tokenizer,
                                            int64_t max_tokens) {
  const std::string text = absl::StrCat(context, continuation);
  context = absl::StripTrailingAsciiWhitespace(context);
  const std::vector<int32_t> context_tokens = EncodePlain(context, tokenizer);
  ScoredSequence sequence;
  sequence.tokens = EncodePlain(text, tokenizer);
  sequence.first = static_cast<int64_t>(context_tokens.size());
  const std::optional<int32_t> first =
      FirstToken(tokenizer, context_tokens.empty());
  if (first.has_value()) {
    sequence.tokens.insert(sequence.tokens.begin(), *first);
    ++sequence.first;
  } else if (context_tokens.empty()) {
    return absl::InvalidArgumentError(
        "the context is empty, and the tokenizer has no BOS or EOS to stand "
        "for it");
  }
  if (sequence.scored() < 1) {
    return absl::InvalidArgumentError(
        "the continuation adds no tokens to the context");
  }
  const int64_t excess =
      static_cast<int64_t>(sequence.tokens.size()) - (max_tokens + 1);
  if (excess > 0) {
    if (sequence.first <= excess) {
      return absl::InvalidArgumentError(
          absl::StrCat("the continuation has ", sequence.scored(),
                       " tokens, and the model's context holds ", max_tokens));
    }
    sequence.tokens.erase(sequence.tokens.begin(),
                          sequence.tokens.begin() + excess);
    sequence.first -= excess;
  }
  return sequence;
}

}  // namespace nibble
