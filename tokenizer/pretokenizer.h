// Cuts text into the pieces that byte pairs merge within, one pass, no regular
// expressions at run time.
//
//   PieceCursor cursor(PreTokenizerKind::kGpt2, "Hello world");
//   absl::string_view piece;
//   while (cursor.Next(&piece)) ...  // "Hello", " world"
//
// The pieces cover the text without gaps and hold its bytes unchanged.

#ifndef NIBBLE_TOKENIZER_PRETOKENIZER_H_
#define NIBBLE_TOKENIZER_PRETOKENIZER_H_

#include "absl/strings/string_view.h"

namespace nibble {

enum class PreTokenizerKind {
  // The whole text is one piece.
  kWhole,
  // GPT-2, GPT-J, GPT-NeoX:
  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|
  // \s+(?!\S)|\s+
  kGpt2,
  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
  //  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kLlama3,
  // The same with \p{N} in place of \p{N}{1,3}.
  kQwen2,
  // Runs of punctuation and of the rest; kGpt2 within each; then runs of
  // digits and of the rest; then digits in threes.  The digit steps see bytes
  // in GPT-2's spelling, so the bytes of ² ³ ¹ ¼ ½ ¾ in Latin-1 count as digits
  // wherever they occur.
  kFalcon,
  // Every digit (category N) alone; kGpt2 on what lies between (SmolLM2).
  kDigitsGpt2,
  // Before every U+2581.
  kMetaSpace,
  // Before every U+2581 that does not follow another.
  kMetaSpaceRun,
};

enum class PrependMetaSpace { kNever, kFirst, kAlways };

struct PreTokenizerSpec {
  PreTokenizerKind kind = PreTokenizerKind::kWhole;
  // Text that does not begin with a space gets one (byte-level vocabularies).
  bool add_prefix_space = false;
  // The step called Metaspace: spaces become U+2581, and one goes in front of
  // text that does not begin with it: always, or where the text begins.
  bool replace_spaces = false;
  PrependMetaSpace prepend = PrependMetaSpace::kNever;
};

class PieceCursor {
 public:
  // `text` must outlive the cursor.
  PieceCursor(PreTokenizerKind kind, absl::string_view text)
      : kind_(kind), p_(text.data()), end_(text.data() + text.size()) {
    segment_end_ = word_end_ = digits_end_ = p_;
  }

  // Sets `piece`, which is never empty, or returns false at the end.
  bool Next(absl::string_view* piece);

 private:
  const char* PieceEnd();
  const char* FalconPieceEnd();
  const char* DigitsPieceEnd();

  const PreTokenizerKind kind_;
  const char* p_;
  const char* const end_;
  // Ends of the enclosing pieces of earlier steps; each >= p_.
  const char* segment_end_;
  const char* word_end_;
  const char* digits_end_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_PRETOKENIZER_H_
