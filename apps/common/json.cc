#include "apps/common/json.h"

#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble {

std::string JsonLine(const Json& value) {
  return value.dump(/*indent=*/-1, /*indent_char=*/' ', /*ensure_ascii=*/false,
                    Json::error_handler_t::replace);
}

void PrintJsonLine(const Json& value) {
  const std::string line = absl::StrCat(JsonLine(value), "\n");
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

absl::StatusOr<Json> ParseJsonObject(absl::string_view line,
                                     absl::string_view where) {
  Json value = Json::parse(line.begin(), line.end(), /*cb=*/nullptr,
                           /*allow_exceptions=*/false);
  if (value.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": not valid JSON"));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": expected a JSON object, {...}"));
  }
  return value;
}

absl::StatusOr<std::string> JsonString(const Json& object,
                                       absl::string_view key,
                                       absl::string_view where) {
  const Json& value = object[std::string(key)];
  if (!value.is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": \"", key, "\" must be a string"));
  }
  return value.get<std::string>();
}

absl::StatusOr<std::vector<int32_t>> JsonTokenIds(const Json& object,
                                                  absl::string_view key,
                                                  absl::string_view where) {
  const absl::Status error = absl::InvalidArgumentError(absl::StrCat(
      where, ": \"", key, "\" must be a list of token ids (integers from 0 to ",
      std::numeric_limits<int32_t>::max(), ")"));
  const Json& value = object[std::string(key)];
  if (!value.is_array()) return error;
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& id : value) {
    // A negative number is not "unsigned" to the parser.
    if (!id.is_number_unsigned()) return error;
    const uint64_t number = id.get<uint64_t>();
    if (number > std::numeric_limits<int32_t>::max()) return error;
    ids.push_back(static_cast<int32_t>(number));
  }
  return ids;
}

}  // namespace nibble
