#include "tokenizer/scored_vocabulary.h"

#include <string>
#include <utility>

#include "tokenizer/unicode.h"

namespace nibble {

void CompleteScoredSpec(bool add_dummy_prefix, TokenizerSpec* spec) {
  spec->algorithm = BpeAlgorithm::kCharacterScores;
  spec->fuse_unknown = true;
  spec->pre_tokenizer.kind = PreTokenizerKind::kWhole;
  for (size_t id = 0; id < spec->vocabulary.size(); ++id) {
    const VocabularyEntry& entry = spec->vocabulary[id];
    if (entry.kind == TokenKind::kByte) spec->byte_fallback = true;
    if (entry.kind != TokenKind::kUserDefined) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = entry.text;
    token.normalized = true;
    token.verbatim = true;
    spec->added_tokens.push_back(std::move(token));
  }
  spec->decoder.replace_meta_space = true;
  spec->decoder.byte_fallback = spec->byte_fallback;
  spec->decoder.strip_left = add_dummy_prefix ? 1 : 0;
}

NormalizerSpec MetaSpaceNormalizer(bool add_dummy_prefix) {
  using Kind = NormalizerStep::Kind;
  NormalizerSpec spec;
  if (add_dummy_prefix) {
    spec.steps.push_back({Kind::kPrepend, "", std::string(kMetaSpace)});
  }
  spec.steps.push_back({Kind::kReplace, " ", std::string(kMetaSpace)});
  return spec;
}

}  // namespace nibble
