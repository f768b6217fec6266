#include "runtime/gguf_vocabulary.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

constexpr absl::string_view kModel = "tokenizer.ggml.model";
constexpr absl::string_view kPre = "tokenizer.ggml.pre";
constexpr absl::string_view kTokens = "tokenizer.ggml.tokens";
constexpr absl::string_view kScores = "tokenizer.ggml.scores";
constexpr absl::string_view kTypes = "tokenizer.ggml.token_type";
constexpr absl::string_view kMerges = "tokenizer.ggml.merges";

// How converters write "there is no such token".
constexpr uint64_t kUnset = 0xFFFFFFFF;

absl::Status KeyError(const GgufFile& file, absl::string_view key,
                      absl::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat(file.path(), ": ", key, ": ", problem));
}

absl::Status CheckLength(const GgufFile& file, absl::string_view key,
                         size_t length, size_t tokens) {
  if (length == tokens) return absl::OkStatus();
  return KeyError(file, key,
                  absl::StrCat(length, " entries for the ", tokens,
                               " tokens of ", kTokens));
}

absl::Status ReadTokens(const GgufFile& file, GgufVocabulary& vocabulary) {
  absl::StatusOr<std::vector<std::string>> tokens =
      file.GetStringArray(kTokens);
  if (!tokens.ok()) return tokens.status();
  if (tokens->empty()) return KeyError(file, kTokens, "it is empty");
  if (tokens->size() > std::numeric_limits<int32_t>::max()) {
    return KeyError(file, kTokens, "too many tokens");
  }
  vocabulary.tokens = *std::move(tokens);
  return absl::OkStatus();
}

absl::Status ReadScores(const GgufFile& file, GgufVocabulary& vocabulary) {
  if (!file.HasKey(kScores)) return absl::OkStatus();
  absl::StatusOr<std::vector<float>> scores = file.GetFloatArray(kScores);
  if (!scores.ok()) return scores.status();
  absl::Status status =
      CheckLength(file, kScores, scores->size(), vocabulary.tokens.size());
  if (!status.ok()) return status;
  for (size_t i = 0; i < scores->size(); ++i) {
    if (!std::isfinite((*scores)[i])) {
      return KeyError(
          file, kScores,
          absl::StrCat("the score of token ", i, " is not a finite number"));
    }
  }
  vocabulary.scores = *std::move(scores);
  return absl::OkStatus();
}

absl::Status ReadTypes(const GgufFile& file, GgufVocabulary& vocabulary) {
  if (!file.HasKey(kTypes)) return absl::OkStatus();
  absl::StatusOr<std::vector<int64_t>> types = file.GetIntArray(kTypes);
  if (!types.ok()) return types.status();
  absl::Status status =
      CheckLength(file, kTypes, types->size(), vocabulary.tokens.size());
  if (!status.ok()) return status;
  vocabulary.token_types.reserve(types->size());
  for (size_t i = 0; i < types->size(); ++i) {
    const int64_t type = (*types)[i];
    // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    if (type < 1 || type > 6) {
      return KeyError(
          file, kTypes,
          absl::StrCat("token ", i, " has type ", type, "; types are 1 to 6"));
    }
    vocabulary.token_types.push_back(static_cast<int32_t>(type));
  }
  return absl::OkStatus();
}

absl::Status ReadSpecialId(const GgufFile& file, absl::string_view name,
                           size_t tokens, std::optional<int64_t>& id) {
  const std::string key = absl::StrCat("tokenizer.ggml.", name, "_token_id");
  if (!file.HasKey(key)) return absl::OkStatus();
  absl::StatusOr<uint64_t> value = file.GetUint(key);
  if (!value.ok()) return value.status();
  if (*value == kUnset) return absl::OkStatus();
  if (*value >= tokens) {
    return KeyError(file, key,
                    absl::StrCat(*value, " is outside the vocabulary of ",
                                 tokens, " tokens"));
  }
  id = static_cast<int64_t>(*value);
  return absl::OkStatus();
}

absl::Status ReadFlag(const GgufFile& file, absl::string_view name,
                      std::optional<bool>& flag) {
  const std::string key = absl::StrCat("tokenizer.ggml.", name);
  if (!file.HasKey(key)) return absl::OkStatus();
  absl::StatusOr<bool> value = file.GetBool(key);
  if (!value.ok()) return value.status();
  flag = *value;
  return absl::OkStatus();
}

absl::Status ReadModelAndMerges(const GgufFile& file,
                                GgufVocabulary& vocabulary) {
  absl::StatusOr<std::string> model = file.GetString(kModel);
  if (!model.ok()) return model.status();
  vocabulary.model = *std::move(model);
  if (file.HasKey(kPre)) {
    absl::StatusOr<std::string> pre = file.GetString(kPre);
    if (!pre.ok()) return pre.status();
    vocabulary.pre = *std::move(pre);
  }
  if (file.HasKey(kMerges)) {
    absl::StatusOr<std::vector<std::string>> merges =
        file.GetStringArray(kMerges);
    if (!merges.ok()) return merges.status();
    vocabulary.merges = *std::move(merges);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const GgufFile& file) {
  if (!file.HasKey(kModel) && !file.HasKey(kTokens)) {
    return absl::NotFoundError(absl::StrCat(
        file.path(), ": no vocabulary (there is no key ", kTokens, ")"));
  }
  GgufVocabulary vocabulary;
  vocabulary.source = file.path();
  absl::Status status = ReadModelAndMerges(file, vocabulary);
  if (status.ok()) status = ReadTokens(file, vocabulary);
  if (status.ok()) status = ReadScores(file, vocabulary);
  if (status.ok()) status = ReadTypes(file, vocabulary);
  const size_t tokens = vocabulary.tokens.size();
  if (status.ok()) {
    status = ReadSpecialId(file, "bos", tokens, vocabulary.bos_id);
  }
  if (status.ok()) {
    status = ReadSpecialId(file, "eos", tokens, vocabulary.eos_id);
  }
  if (status.ok()) {
    status = ReadSpecialId(file, "unknown", tokens, vocabulary.unknown_id);
  }
  if (status.ok()) {
    status = ReadFlag(file, "add_bos_token", vocabulary.add_bos);
  }
  if (status.ok()) {
    status = ReadFlag(file, "add_eos_token", vocabulary.add_eos);
  }
  if (status.ok()) {
    status = ReadFlag(file, "add_space_prefix", vocabulary.add_space_prefix);
  }
  if (!status.ok()) return status;
  return vocabulary;
}

}  // namespace nibble
