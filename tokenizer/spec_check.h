// The checks that every tokenizer file must pass, whatever its format.

#ifndef NIBBLE_TOKENIZER_SPEC_CHECK_H_
#define NIBBLE_TOKENIZER_SPEC_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

// Ids stay below this: sixteen times the largest vocabularies published so far
// (256 Ki), so that a stray id cannot make the tables huge.
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 22;

// Checks ids: in range, not used twice, and where something refers to a token,
// such as BOS, that it exists.
absl::Status CheckSpec(const TokenizerSpec& spec);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_SPEC_CHECK_H_
