// From tokens back to text: what each token contributes, and the rules for
// putting it together.

#ifndef NIBBLE_TOKENIZER_TOKEN_DECODER_H_
#define NIBBLE_TOKENIZER_TOKEN_DECODER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

class TokenDecoder {
 public:
  struct Piece {
    std::string text;         // bytes, not always UTF-8; empty for a hole
    bool is_byte = false;     // a <0xNN> token; `text` is that byte
    bool is_present = false;  // false for a hole
    bool is_special = false;  // skipped on demand
  };

  // `texts` holds the token of each id as the vocabulary spells it.
  TokenDecoder(const DecoderSpec& spec, const std::vector<std::string>& texts,
               const std::vector<bool>& present,
               const std::vector<bool>& special);

  const DecoderSpec& spec() const { return spec_; }

  // Null for ids outside the vocabulary, holes, and special tokens when
  // `skip_special`.
  const Piece* Find(int32_t id, bool skip_special) const;

  // What `piece` contributes as number `index`, counted from 0.
  std::string TextAt(const Piece& piece, int64_t index) const;

  std::string Decode(absl::Span<const int32_t> ids, bool skip_special) const;

 private:
  DecoderSpec spec_;
  std::vector<Piece> pieces_;  // by id
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_TOKEN_DECODER_H_
