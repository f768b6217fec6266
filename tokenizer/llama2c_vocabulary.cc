#include "tokenizer/llama2c_vocabulary.h"

#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tokenizer/scored_vocabulary.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr int kSpecialTokens = 3;
constexpr int kByteTokens = 256;

uint32_t TakeWord(absl::string_view* bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) {
    value = value << 8 | static_cast<uint8_t>((*bytes)[i]);
  }
  bytes->remove_prefix(4);
  return value;
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseLlama2cVocabulary(
    absl::string_view bytes, const std::string& source) {
  TokenizerSpec spec;
  spec.source = source;
  const auto fail = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": token ", spec.vocabulary.size(), " ", what));
  };
  if (bytes.size() < 4) return fail("is missing: the file has no header");
  TakeWord(&bytes);
  while (!bytes.empty()) {
    if (bytes.size() < 8) return fail("ends within its header");
    const uint32_t score_bits = TakeWord(&bytes);
    const uint32_t length = TakeWord(&bytes);
    if (length > bytes.size()) {
      return fail(absl::StrCat("claims ", length, " bytes, but ", bytes.size(),
                               " are left"));
    }
    VocabularyEntry entry;
    std::memcpy(&entry.score, &score_bits, sizeof(entry.score));
    const size_t id = spec.vocabulary.size();
    constexpr TokenKind kSpecial[] = {TokenKind::kUnknown, TokenKind::kControl,
                                      TokenKind::kControl};
    constexpr absl::string_view kSpecialText[] = {"<unk>", "<s>", "</s>"};
    if (id < kSpecialTokens) {
      entry.kind = kSpecial[id];
      entry.text = std::string(kSpecialText[id]);
    } else {
      entry.kind = id < kSpecialTokens + kByteTokens ? TokenKind::kByte
                                                     : TokenKind::kNormal;
      entry.text =
          absl::StrReplaceAll(bytes.substr(0, length), {{" ", kMetaSpace}});
    }
    bytes.remove_prefix(length);
    spec.vocabulary.push_back(std::move(entry));
  }
  if (spec.vocabulary.size() < kSpecialTokens + kByteTokens) {
    return fail("is missing: the first 259 are special tokens and bytes");
  }
  spec.unknown_id = 0;
  spec.bos_id = 1;
  spec.eos_id = 2;
  spec.prefix_ids = {1};
  CompleteScoredSpec(/*add_dummy_prefix=*/true, &spec);
  spec.normalizer = MetaSpaceNormalizer(/*add_dummy_prefix=*/true);
  return spec;
}

}  // namespace nibble
