#include "tokenizer/json_document.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// A tokenizer.json is 7 levels deep.
constexpr size_t kMaxDepth = 64;

// Receives the parser's events.  Every handler returns false to stop, with
// status_ set.
class Handler : public nlohmann::json_sax<Json> {
 public:
  explicit Handler(JsonDocument* document) : document_(document) {}

  const absl::Status& status() const { return status_; }

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_integer(number_integer_t value) override {
    return Number(value, value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return Number(value,
                  value > INT64_MAX ? INT64_MAX : static_cast<int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t&) override {
    return Value(value);
  }
  bool binary(binary_t&) override { return Fail("holds binary data"); }

  bool string(string_t& value) override {
    if (mode_ == Mode::kMerges) return WrittenMerge(value);
    if (mode_ == Mode::kMergePair) {
      pair_.push_back(std::move(value));
      return true;
    }
    return Value(std::move(value));
  }

  bool key(string_t& value) override {
    key_ = std::move(value);
    if (mode_ == Mode::kTree && stack_.back()->contains(key_)) {
      return Fail(absl::StrCat("has the key \"", key_, "\" twice"));
    }
    return true;
  }

  bool start_object(size_t) override {
    if (mode_ != Mode::kTree) return Value(nullptr);
    if (stack_.size() == 2 && InModel("vocab")) {
      Place(Json::object());
      mode_ = Mode::kVocabulary;
      return true;
    }
    return Open(Json::object());
  }
  bool start_array(size_t) override {
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kMergePair;
      pair_.clear();
      return true;
    }
    if (mode_ != Mode::kTree) return Value(nullptr);
    if (stack_.size() == 2 && InModel("merges")) {
      Place(Json::array());
      mode_ = Mode::kMerges;
      return true;
    }
    return Open(Json::array());
  }
  bool end_object() override {
    if (mode_ == Mode::kVocabulary) {
      mode_ = Mode::kTree;
    } else {
      stack_.pop_back();
    }
    return true;
  }
  bool end_array() override {
    if (mode_ == Mode::kMergePair) {
      mode_ = Mode::kMerges;
      if (pair_.size() != 2) return BadMerge();
      document_->merges.push_back({std::move(pair_[0]), std::move(pair_[1])});
    } else if (mode_ == Mode::kMerges) {
      mode_ = Mode::kTree;
    } else {
      stack_.pop_back();
    }
    return true;
  }

  bool parse_error(size_t, const std::string&,
                   const Json::exception& error) override {
    return Fail(absl::StrCat("is not JSON: ", error.what()));
  }

 private:
  enum class Mode { kTree, kVocabulary, kMerges, kMergePair };

  bool Fail(std::string message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(std::move(message));
    return false;
  }
  bool BadMerge() {
    return Fail(absl::StrCat("model.merges[", document_->merges.size(),
                             "] is not two tokens"));
  }

  bool InModel(absl::string_view key) const { return key_ == key && in_model_; }

  // Puts `value` where the parser stands.
  Json* Place(Json value) {
    if (stack_.empty()) {
      document_->root = std::move(value);
      return &document_->root;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& place = parent[key_];
    place = std::move(value);
    return &place;
  }

  bool Open(Json value) {
    if (stack_.size() == kMaxDepth) {
      return Fail(absl::StrCat("nests deeper than ", kMaxDepth, " levels"));
    }
    if (stack_.size() == 1) in_model_ = key_ == "model";
    stack_.push_back(Place(std::move(value)));
    return true;
  }

  bool Value(Json value) {
    if (mode_ == Mode::kVocabulary) {
      return Fail(absl::StrCat("model.vocab[\"", key_.substr(0, 64),
                               "\"] is not an integer"));
    }
    if (mode_ != Mode::kTree) return BadMerge();
    Place(std::move(value));
    return true;
  }

  template <class T>
  bool Number(T value, int64_t id) {
    if (mode_ != Mode::kVocabulary) return Value(value);
    document_->vocabulary.emplace_back(std::move(key_), id);
    return true;
  }

  // The older way to write a merge: the two tokens with a space between.
  bool WrittenMerge(const std::string& text) {
    const size_t space = text.find(' ');
    if (space == std::string::npos ||
        text.find(' ', space + 1) != std::string::npos) {
      return BadMerge();
    }
    document_->merges.push_back(
        {text.substr(0, space), text.substr(space + 1)});
    return true;
  }

  JsonDocument* document_;
  absl::Status status_;
  Mode mode_ = Mode::kTree;
  std::vector<Json*> stack_;  // the objects and arrays that are open
  bool in_model_ = false;
  std::string key_;
  std::vector<std::string> pair_;
};

}  // namespace

absl::StatusOr<JsonDocument> ParseJsonDocument(absl::string_view bytes) {
  JsonDocument document;
  Handler handler(&document);
  const bool parsed = Json::sax_parse(bytes.begin(), bytes.end(), &handler);
  if (!handler.status().ok()) return handler.status();
  if (!parsed || !document.root.is_object()) {
    return absl::InvalidArgumentError("is not a JSON object");
  }
  return document;
}

}  // namespace nibble
