// Typed access to JSON objects that come from outside.

#ifndef NIBBLE_TOKENIZER_JSON_FIELDS_H_
#define NIBBLE_TOKENIZER_JSON_FIELDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble {

// Reads fields of one object; the first error stays in status().
//
//   JsonFields fields(json, "model");
//   const bool fuse = fields.Bool("fuse_unk", false);
//   if (!fields.status().ok()) return fields.status();
class JsonFields {
 public:
  // `where` names the object in errors.
  JsonFields(const nlohmann::json& json, absl::string_view where);

  const absl::Status& status() const { return status_; }

  // The field, or null where it is absent.
  const nlohmann::json& Find(const std::string& key) const;

  // The fallback stands in for a field that is absent or null.
  bool Bool(const std::string& key, bool fallback);
  std::string String(const std::string& key, absl::string_view fallback);
  // A field that must be there.
  std::string RequiredString(const std::string& key);
  // An integer that fits 32 bits and must be there.
  int32_t RequiredInt(const std::string& key);

 private:
  void Fail(const std::string& key, absl::string_view expected);

  const nlohmann::json& json_;
  std::string where_;
  absl::Status status_;
};

// The components of a normalizer, pre-tokenizer, decoder or post-processor:
// the elements of a Sequence (whose `key` holds the array), those of Sequences
// within, or the one component.  None for null.
absl::Status FlattenSequence(const nlohmann::json& json,
                             absl::string_view where, const std::string& key,
                             std::vector<const nlohmann::json*>* components);

// The "type" of a component, for comparison and for error messages.
std::string ComponentType(const nlohmann::json& component);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_JSON_FIELDS_H_
