// Rewrites text before it is cut into pieces: the normalizers of
// tokenizer.json and of SentencePiece.
//
//   absl::StatusOr<Normalizer> normalizer = Normalizer::Create(spec);
//   std::string buffer;
//   absl::string_view text = normalizer->Apply(raw, &buffer);
//
// Bytes that are not UTF-8 pass through.

#ifndef NIBBLE_TOKENIZER_NORMALIZER_H_
#define NIBBLE_TOKENIZER_NORMALIZER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/charsmap.h"

namespace nibble {

struct NormalizerStep {
  enum class Kind {
    // Canonical composition, as of Unicode 9.0: characters assigned later pass
    // through, as in the tokenizers library.
    kNfc,
    kPrepend,  // `to` in front of text that is not empty
    kReplace,  // every `from`, which is not empty, becomes `to`
    // SentencePiece's normalizer, for what the steps above cannot express.
    kSentencePiece,
  };
  Kind kind;
  std::string from;
  std::string to;
};

// The fields of SentencePiece's NormalizerSpec; escape_whitespaces is set.
struct SentencePieceRules {
  std::string charsmap;  // precompiled_charsmap; "": identity
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  // User-defined pieces, which the character map leaves alone.
  std::vector<AddedToken> protected_tokens;
};

struct NormalizerSpec {
  std::vector<NormalizerStep> steps;
  SentencePieceRules rules;  // of kSentencePiece
};

class Normalizer {
 public:
  static absl::StatusOr<Normalizer> Create(NormalizerSpec spec);

  // Returns `text` itself where nothing changes, else `buffer`'s new content.
  absl::string_view Apply(absl::string_view text, std::string* buffer) const;

 private:
  Normalizer() = default;
  std::string SentencePiece(absl::string_view text) const;
  // The normalized form of the longest rule at the start of `text`, or of one
  // character, and the bytes it stands for.
  struct Prefix {
    absl::string_view normalized;
    size_t size;
  };
  Prefix NormalizePrefix(absl::string_view text) const;

  std::vector<NormalizerStep> steps_;
  bool add_dummy_prefix_ = true;
  bool remove_extra_whitespaces_ = true;
  Charsmap charsmap_;
  AddedTokenMatcher protected_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_NORMALIZER_H_
