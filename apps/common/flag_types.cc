#include "apps/common/flag_types.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

bool ParseTokenId(absl::string_view text, int32_t* id, std::string* error) {
  if (absl::SimpleAtoi(text, id) && *id >= 0) return true;
  *error = absl::StrCat("'", text, "' is not a token id (an integer from 0 to ",
                        std::numeric_limits<int32_t>::max(), ")");
  return false;
}

}  // namespace

bool AbslParseFlag(absl::string_view text, TokenIds* value,
                   std::string* error) {
  TokenIds parsed;
  parsed.given = true;
  if (!text.empty()) {
    for (absl::string_view part : absl::StrSplit(text, ',')) {
      int32_t id = 0;
      if (!ParseTokenId(part, &id, error)) return false;
      parsed.ids.push_back(id);
    }
  }
  *value = std::move(parsed);
  return true;
}

std::string AbslUnparseFlag(const TokenIds& value) {
  return absl::StrJoin(value.ids, ",");
}

bool AbslParseFlag(absl::string_view text, LogitBias* value,
                   std::string* error) {
  LogitBias parsed;
  if (!text.empty()) {
    for (absl::string_view part : absl::StrSplit(text, ',')) {
      const std::pair<absl::string_view, absl::string_view> sides =
          absl::StrSplit(part, absl::MaxSplits(':', 1));
      int32_t id = 0;
      if (!ParseTokenId(sides.first, &id, error)) return false;
      float bias = 0;
      if (!absl::SimpleAtof(sides.second, &bias) || std::isnan(bias) ||
          bias == std::numeric_limits<float>::infinity()) {
        *error = absl::StrCat("'", part,
                              "' is not id:value with a finite value (or -inf, "
                              "which bans the token)");
        return false;
      }
      if (!parsed.biases.emplace(id, bias).second) {
        *error = absl::StrCat("token ", id, " stands there twice");
        return false;
      }
    }
  }
  *value = std::move(parsed);
  return true;
}

std::string AbslUnparseFlag(const LogitBias& value) {
  return absl::StrJoin(value.biases, ",", absl::PairFormatter(":"));
}

bool AbslParseFlag(absl::string_view text, GivenString* value, std::string*) {
  value->given = true;
  value->text = std::string(text);
  return true;
}

std::string AbslUnparseFlag(const GivenString& value) { return value.text; }

}  // namespace nibble
