#include "tensor/io/safetensors_header.h"

#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tensor/io/error_text.h"

namespace nibble {
namespace {

// More than any shape could sensibly have; what is too much for nibble is said
// later, with the number of dimensions.
constexpr size_t kLongestArray = 64;

// Receives the parser's events. The parser keeps its own stack on the heap, and
// the handler stops it at the first value of an unexpected kind, so depth is
// bounded by the format's own: file object, tensor object, array.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::string& error() const { return error_; }
  SafetensorsHeader TakeHeader() { return std::move(header_); }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("true or false"); }
  bool number_float(double, const std::string& text) override {
    return Unexpected(absl::StrCat("the number ", text));
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool number_integer(int64_t value) override {
    return Unexpected(absl::StrCat("the number ", value));
  }
  bool number_unsigned(uint64_t value) override;
  bool string(std::string& value) override;
  bool start_object(size_t) override;
  bool key(std::string& name) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;
  // The parser's own text may hold megabytes of the input.
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("not valid JSON at byte ", position));
  }

 private:
  enum class State {
    kStart,     // Before the file object.
    kFile,      // Inside it: names of tensors.
    kName,      // After a tensor's name: its object.
    kTensor,    // Inside a tensor's object: names of fields.
    kDtype,     // After "dtype".
    kShape,     // After "shape".
    kOffsets,   // After "data_offsets".
    kMetadata,  // Inside "__metadata__".
    kDone,
  };

  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }
  bool Unexpected(absl::string_view what);
  // "tensor 'x'", "__metadata__" or "the header", for messages.
  std::string Where() const;
  bool StartField(const std::string& name);
  bool CheckEntryIsComplete();

  State state_ = State::kStart;
  std::string error_;
  SafetensorsHeader header_;
  absl::flat_hash_set<std::string> names_;
  bool in_metadata_ = false;
  bool saw_metadata_ = false;
  std::string metadata_key_;
  SafetensorsEntry entry_;
  bool saw_dtype_ = false, saw_shape_ = false, saw_offsets_ = false;
  bool in_array_ = false;
  std::vector<int64_t> array_;
};

std::string HeaderHandler::Where() const {
  if (state_ == State::kStart || state_ == State::kFile) return "the header";
  if (in_metadata_) return "__metadata__";
  return absl::StrCat("tensor ", QuoteForMessage(entry_.name));
}

bool HeaderHandler::Unexpected(absl::string_view what) {
  absl::string_view wanted = "nothing more";
  switch (state_) {
    case State::kStart:
    case State::kName:
      wanted = "an object";
      break;
    case State::kDtype:
      wanted = "dtype as a string";
      break;
    case State::kShape:
      wanted = "shape as an array of whole numbers >= 0";
      break;
    case State::kOffsets:
      wanted = "data_offsets as an array of two whole numbers >= 0";
      break;
    case State::kMetadata:
      wanted = "only strings";
      break;
    case State::kFile:
    case State::kTensor:
    case State::kDone:
      break;
  }
  return Fail(absl::StrCat(Where(), " holds ", what, " where ", wanted,
                           " should stand"));
}

bool HeaderHandler::number_unsigned(uint64_t value) {
  if (!in_array_) return Unexpected(absl::StrCat("the number ", value));
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Fail(absl::StrCat(Where(), " holds the number ", value,
                             ", which is too large"));
  }
  if (array_.size() == kLongestArray) {
    return Unexpected(absl::StrCat("more than ", kLongestArray, " numbers"));
  }
  array_.push_back(static_cast<int64_t>(value));
  return true;
}

bool HeaderHandler::string(std::string& value) {
  if (state_ == State::kMetadata) {
    if (!header_.metadata.emplace(metadata_key_, std::move(value)).second) {
      return Fail(absl::StrCat("__metadata__ holds ",
                               QuoteForMessage(metadata_key_), " twice"));
    }
    return true;
  }
  if (state_ != State::kDtype) {
    return Unexpected(absl::StrCat("the string ", QuoteForMessage(value)));
  }
  entry_.dtype = std::move(value);
  state_ = State::kTensor;
  return true;
}

bool HeaderHandler::start_object(size_t) {
  if (state_ == State::kStart) {
    state_ = State::kFile;
    return true;
  }
  if (state_ != State::kName) return Unexpected("an object");
  state_ = in_metadata_ ? State::kMetadata : State::kTensor;
  return true;
}

bool HeaderHandler::key(std::string& name) {
  if (state_ == State::kTensor) return StartField(name);
  if (state_ == State::kMetadata) {
    metadata_key_ = std::move(name);
    return true;
  }
  state_ = State::kName;
  in_metadata_ = name == "__metadata__";
  if (in_metadata_) {
    if (saw_metadata_) return Fail("the header holds __metadata__ twice");
    saw_metadata_ = true;
    return true;
  }
  if (!names_.insert(name).second) {
    return Fail(absl::StrCat("the header names tensor ", QuoteForMessage(name),
                             " twice"));
  }
  entry_ = SafetensorsEntry{};
  entry_.name = std::move(name);
  saw_dtype_ = saw_shape_ = saw_offsets_ = false;
  return true;
}

bool HeaderHandler::StartField(const std::string& name) {
  bool* saw = nullptr;
  if (name == "dtype") {
    saw = &saw_dtype_;
    state_ = State::kDtype;
  } else if (name == "shape") {
    saw = &saw_shape_;
    state_ = State::kShape;
  } else if (name == "data_offsets") {
    saw = &saw_offsets_;
    state_ = State::kOffsets;
  } else {
    return Fail(
        absl::StrCat(Where(), " has an unknown field ", QuoteForMessage(name)));
  }
  if (*saw) return Fail(absl::StrCat(Where(), " has ", name, " twice"));
  *saw = true;
  return true;
}

bool HeaderHandler::end_object() {
  if (state_ == State::kFile) {
    state_ = State::kDone;
    return true;
  }
  if (state_ == State::kTensor) {
    if (!CheckEntryIsComplete()) return false;
    header_.tensors.push_back(std::move(entry_));
  }
  state_ = State::kFile;
  return true;
}

bool HeaderHandler::CheckEntryIsComplete() {
  const char* missing = !saw_dtype_     ? "dtype"
                        : !saw_shape_   ? "shape"
                        : !saw_offsets_ ? "data_offsets"
                                        : nullptr;
  if (missing == nullptr) return true;
  return Fail(absl::StrCat(Where(), " has no ", missing));
}

bool HeaderHandler::start_array(size_t) {
  const bool expected = state_ == State::kShape || state_ == State::kOffsets;
  if (!expected || in_array_) return Unexpected("an array");
  in_array_ = true;
  array_.clear();
  return true;
}

bool HeaderHandler::end_array() {
  in_array_ = false;
  if (state_ == State::kShape) {
    entry_.shape = array_;
  } else {
    if (array_.size() != 2) {
      return Unexpected(absl::StrCat("an array of ", array_.size()));
    }
    entry_.begin = array_[0];
    entry_.end = array_[1];
  }
  state_ = State::kTensor;
  return true;
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(
    absl::string_view path, absl::string_view json) {
  // The parser takes a NUL for the end, and would not see what follows it.
  if (const size_t nul = json.find('\0'); nul != json.npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": bad safetensors header: not valid JSON at byte ",
                     nul + 1, ": NUL"));
  }
  HeaderHandler handler;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &handler)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": bad safetensors header: ", handler.error()));
  }
  return handler.TakeHeader();
}

}  // namespace nibble
