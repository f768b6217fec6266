// Flag values that Abseil does not know: lists of token ids, logit biases, and
// flags that may be given more than once.
//
//   ABSL_FLAG(nibble::TokenIds, token_ids, {}, "ids, separated by commas");
//   --token_ids=1,2,3
#ifndef NIBBLE_APPS_COMMON_FLAG_TYPES_H_
#define NIBBLE_APPS_COMMON_FLAG_TYPES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

// "1,2,3"; a negative or non-integer id is refused. `given` tells an empty
// list from an absent flag.
struct TokenIds {
  bool given = false;
  std::vector<int32_t> ids;
};
bool AbslParseFlag(absl::string_view text, TokenIds* value, std::string* error);
std::string AbslUnparseFlag(const TokenIds& value);

// "id:value,id:value"; values are finite, or -inf for a ban. A repeated id is
// refused.
struct LogitBias {
  std::map<int32_t, float> biases;
};
bool AbslParseFlag(absl::string_view text, LogitBias* value,
                   std::string* error);
std::string AbslUnparseFlag(const LogitBias& value);

// A string that knows whether it was given, so that --stop="" is not the
// same as no --stop.
struct GivenString {
  bool given = false;
  std::string text;
};
bool AbslParseFlag(absl::string_view text, GivenString* value,
                   std::string* error);
std::string AbslUnparseFlag(const GivenString& value);

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_FLAG_TYPES_H_
