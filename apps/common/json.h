// JSON as the programs read and write it: one object, one line, no exceptions.
//
//   Json report = {{"tokens", 12}, {"text", text}};
//   PrintJsonLine(report);
#ifndef NIBBLE_APPS_COMMON_JSON_H_
#define NIBBLE_APPS_COMMON_JSON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble {

// Keys keep the order in which they were added.
using Json = nlohmann::ordered_json;

// One line without a newline. Bytes that are not UTF-8 become U+FFFD, since
// JSON cannot hold them.
std::string JsonLine(const Json& value);

// JsonLine and a newline to standard output, flushed.
void PrintJsonLine(const Json& value);

// The object that `line` holds; anything else is an error that begins with
// `where` ("requests.jsonl:3").
absl::StatusOr<Json> ParseJsonObject(absl::string_view line,
                                     absl::string_view where);

// object[key] as a string, or as a list of token ids (integers >= 0 that fit
// in 32 bits). REQUIRES: object.contains(key).
absl::StatusOr<std::string> JsonString(const Json& object,
                                       absl::string_view key,
                                       absl::string_view where);
absl::StatusOr<std::vector<int32_t>> JsonTokenIds(const Json& object,
                                                  absl::string_view key,
                                                  absl::string_view where);

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_JSON_H_
