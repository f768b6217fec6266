// What every score-driven (SentencePiece) vocabulary has in common, whichever
// file it came from.

#ifndef NIBBLE_TOKENIZER_SCORED_VOCABULARY_H_
#define NIBBLE_TOKENIZER_SCORED_VOCABULARY_H_

#include "tokenizer/tokenizer_spec.h"

namespace nibble {

// Fills in, from spec->vocabulary: the algorithm, the decoder, the fallback to
// bytes where there are byte tokens, and added tokens for user-defined pieces.
void CompleteScoredSpec(bool add_dummy_prefix, TokenizerSpec* spec);

// The normalizer of a vocabulary whose characters stay as they are.
NormalizerSpec MetaSpaceNormalizer(bool add_dummy_prefix);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_SCORED_VOCABULARY_H_
