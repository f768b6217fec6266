// What a tokenizer file says, in one plain form.  Each reader (tokenizer.json,
// tokenizer.model, GGUF, llama2.c) fills in a TokenizerSpec; Tokenizer::Create
// checks it and builds the tables.

#ifndef NIBBLE_TOKENIZER_TOKENIZER_SPEC_H_
#define NIBBLE_TOKENIZER_TOKENIZER_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"

namespace nibble {

enum class BpeAlgorithm {
  // Symbols are bytes, spelled with GPT-2's printable alphabet; the merge of
  // lowest rank goes first.
  kByteLevelMerges,
  // Symbols are characters; the merge of lowest rank goes first.
  kCharacterMerges,
  // Symbols are characters; the pair whose concatenation has the highest score
  // goes first (SentencePiece).
  kCharacterScores,
};

enum class TokenKind : uint8_t {
  kHole,         // no token has this id
  kNormal,       //
  kUnknown,      // stands for what the vocabulary cannot spell
  kControl,      // never matches text
  kUserDefined,  // matches text before any merge (scores only)
  kUnused,       // may be an intermediate result, never a final one (scores)
  kByte,         // <0xNN>
};

struct VocabularyEntry {
  std::string text;
  TokenKind kind = TokenKind::kHole;
  float score = 0;  // kCharacterScores only
};

struct MergeRule {
  std::string left;
  std::string right;
};

struct DecoderSpec {
  // Tokens are spelled with GPT-2's byte alphabet.
  bool byte_level = false;
  // U+2581 becomes a space.
  bool replace_meta_space = false;
  // <0xNN> becomes a byte.
  bool byte_fallback = false;
  // Spaces dropped at the start of a sequence.
  int strip_left = 0;
  // U+2581 of the first token vanishes instead (Metaspace).
  bool drop_meta_space_of_first_token = false;
  // Tokens are joined by a space (a tokenizer.json without decoder).
  bool join_with_space = false;
};

struct TokenizerSpec {
  std::string source;  // path, for error messages
  BpeAlgorithm algorithm = BpeAlgorithm::kByteLevelMerges;
  std::vector<VocabularyEntry> vocabulary;  // by id
  std::vector<MergeRule> merges;            // by rank; not for scores
  std::vector<AddedToken> added_tokens;     // may repeat vocabulary entries
  NormalizerSpec normalizer;
  PreTokenizerSpec pre_tokenizer;
  DecoderSpec decoder;
  bool byte_fallback = false;
  bool fuse_unknown = false;   // one unknown token for a run of characters
  bool ignore_merges = false;  // a whole word that is a token stays whole
  std::optional<int32_t> unknown_id;
  std::vector<int32_t> prefix_ids;  // before a text, with special tokens
  std::vector<int32_t> suffix_ids;  // after it
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_TOKENIZER_SPEC_H_
