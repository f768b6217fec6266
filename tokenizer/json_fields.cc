#include "tokenizer/json_fields.h"

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

}  // namespace

JsonFields::JsonFields(const Json& json, absl::string_view where)
    : json_(json), where_(where) {
  if (!json.is_object()) {
    status_ =
        absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
  }
}

const Json& JsonFields::Find(const std::string& key) const {
  static const Json* const null = new Json;
  if (!json_.is_object()) return *null;
  const auto it = json_.find(key);
  return it == json_.end() ? *null : *it;
}

void JsonFields::Fail(const std::string& key, absl::string_view expected) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(where_, ".", key, " must be ", expected));
}

bool JsonFields::Bool(const std::string& key, bool fallback) {
  const Json& field = Find(key);
  if (field.is_null()) return fallback;
  if (!field.is_boolean()) {
    Fail(key, "true or false");
    return fallback;
  }
  return field.get<bool>();
}

std::string JsonFields::String(const std::string& key,
                               absl::string_view fallback) {
  const Json& field = Find(key);
  if (field.is_null()) return std::string(fallback);
  return RequiredString(key);
}

std::string JsonFields::RequiredString(const std::string& key) {
  const Json& field = Find(key);
  if (!field.is_string()) {
    Fail(key, "a string");
    return "";
  }
  return field.get<std::string>();
}

int32_t JsonFields::RequiredInt(const std::string& key) {
  const Json& field = Find(key);
  const bool fits =
      field.is_number_integer() &&
      (!field.is_number_unsigned() || field.get<uint64_t>() <= INT32_MAX) &&
      field.get<int64_t>() >= INT32_MIN && field.get<int64_t>() <= INT32_MAX;
  if (!fits) {
    Fail(key, "an integer of 32 bits");
    return 0;
  }
  return field.get<int32_t>();
}

absl::Status FlattenSequence(const Json& json, absl::string_view where,
                             const std::string& key,
                             std::vector<const Json*>* components) {
  if (json.is_null()) return absl::OkStatus();
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
  }
  if (ComponentType(json) != "Sequence") {
    components->push_back(&json);
    return absl::OkStatus();
  }
  const auto elements = json.find(key);
  if (elements == json.end() || !elements->is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ".", key, " is not an array"));
  }
  for (const Json& element : *elements) {
    const absl::Status status =
        FlattenSequence(element, where, key, components);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string ComponentType(const Json& component) {
  const auto type = component.find("type");
  if (type == component.end() || !type->is_string()) return "(no type)";
  return type->get<std::string>();
}

}  // namespace nibble
