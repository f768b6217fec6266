#include "tensor/io/safetensors_index.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tensor/io/error_text.h"

namespace nibble {
namespace {

// Real indexes are three deep; the parser's stack is on the heap, so this only
// keeps nonsense short.
constexpr int kMaxDepth = 32;

bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(absl::string_view("/\\\0", 3)) == name.npos;
}

class IndexHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::string& error() const { return error_; }
  bool saw_weight_map() const { return saw_weight_map_; }
  std::map<std::string, std::string> TakeShards() { return std::move(shards_); }

  bool null() override { return Ignore(); }
  bool boolean(bool) override { return Ignore(); }
  bool number_integer(int64_t) override { return Ignore(); }
  bool number_unsigned(uint64_t) override { return Ignore(); }
  bool number_float(double, const std::string&) override { return Ignore(); }
  bool binary(binary_t&) override { return Ignore(); }
  bool start_array(size_t) override { return Ignore() && Descend(); }
  bool end_array() override { return Ascend(); }
  bool end_object() override { return Ascend(); }
  bool start_object(size_t) override;
  bool key(std::string& name) override;
  bool string(std::string& value) override;
  // The parser's own text may hold megabytes of the input.
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("not valid JSON at byte ", position));
  }

 private:
  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }
  // Any value that is not wanted where it stands.
  bool Ignore();
  bool Descend() {
    if (++depth_ > kMaxDepth) return Fail("nested too deep");
    return true;
  }
  bool Ascend() {
    if (--depth_ == 1) in_weight_map_ = false;
    return true;
  }

  std::string error_;
  std::map<std::string, std::string> shards_;
  int depth_ = 0;
  bool saw_weight_map_ = false;
  bool in_weight_map_ = false;  // Also between its key and its brace.
  std::string tensor_;
};

bool IndexHandler::Ignore() {
  if (depth_ == 0) return Fail("not a JSON object");
  if (in_weight_map_ && depth_ == 1) return Fail("weight_map is no object");
  if (in_weight_map_) {
    return Fail(absl::StrCat("weight_map of tensor ", QuoteForMessage(tensor_),
                             " is not a file name"));
  }
  return true;
}

bool IndexHandler::start_object(size_t) {
  if (in_weight_map_ && depth_ > 1) return Ignore();
  return Descend();
}

bool IndexHandler::key(std::string& name) {
  if (depth_ == 1 && name == "weight_map") {
    if (saw_weight_map_) return Fail("weight_map stands there twice");
    saw_weight_map_ = in_weight_map_ = true;
  } else if (in_weight_map_) {
    tensor_ = std::move(name);
  }
  return true;
}

bool IndexHandler::string(std::string& value) {
  if (!in_weight_map_ || depth_ != 2) return Ignore();
  if (!IsPlainFileName(value)) {
    return Fail(absl::StrCat(
        "tensor ", QuoteForMessage(tensor_), " is said to be in ",
        QuoteForMessage(value),
        ", but a shard must be a plain file name in the same folder"));
  }
  if (!shards_.emplace(tensor_, std::move(value)).second) {
    return Fail(absl::StrCat("weight_map names tensor ",
                             QuoteForMessage(tensor_), " twice"));
  }
  return true;
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsIndex(
    absl::string_view path, absl::string_view json) {
  // The parser takes a NUL for the end, and would not see what follows it.
  if (const size_t nul = json.find('\0'); nul != json.npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": bad index of shards: not valid JSON at byte ",
                     nul + 1, ": NUL"));
  }
  IndexHandler handler;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &handler)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": bad index of shards: ", handler.error()));
  }
  if (!handler.saw_weight_map()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": bad index of shards: it has no weight_map"));
  }
  return handler.TakeShards();
}

}  // namespace nibble
