// Parses tokenizer.json: a tree for everything but the vocabulary and the
// merges, which are too long for one and become plain vectors.

#ifndef NIBBLE_TOKENIZER_JSON_DOCUMENT_H_
#define NIBBLE_TOKENIZER_JSON_DOCUMENT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

struct JsonDocument {
  nlohmann::json root;  // without model.vocab (an object) and model.merges
  std::vector<std::pair<std::string, int64_t>> vocabulary;  // in file order
  std::vector<MergeRule> merges;
};

// Errors say where, but not in which file.
absl::StatusOr<JsonDocument> ParseJsonDocument(absl::string_view bytes);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_JSON_DOCUMENT_H_
