// The parts of tokenizer.json around its model.  Whatever is not implemented
// exactly is refused by name.

#ifndef NIBBLE_TOKENIZER_JSON_COMPONENTS_H_
#define NIBBLE_TOKENIZER_JSON_COMPONENTS_H_

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

// Each reads one member of the root into `spec`; null means absent.
absl::Status ReadNormalizer(const nlohmann::json& json, TokenizerSpec* spec);
// Also decides between byte-level and character symbols.
absl::Status ReadPreTokenizer(const nlohmann::json& json, TokenizerSpec* spec);
absl::Status ReadDecoder(const nlohmann::json& json, TokenizerSpec* spec);
// Sets prefix_ids, suffix_ids, and with them bos_id and eos_id.
absl::Status ReadPostProcessor(const nlohmann::json& json, TokenizerSpec* spec);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_JSON_COMPONENTS_H_
