#include "tokenizer/utf8_stream.h"

#include "tokenizer/token_decoder.h"

namespace nibble {

TextStream::TextStream(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer),
      skip_special_tokens_(skip_special_tokens),
      assembler_(tokenizer.decoder().spec().byte_level
                     ? Utf8Assembler::Damage::kOncePerSequence
                     : Utf8Assembler::Damage::kOncePerByte),
      strip_left_(tokenizer.decoder().spec().strip_left) {}

std::string TextStream::Push(int32_t id) {
  const TokenDecoder& decoder = tokenizer_->decoder();
  std::string out;
  const TokenDecoder::Piece* const piece =
      decoder.Find(id, skip_special_tokens_);
  if (piece == nullptr) return out;
  if (piece->is_byte || decoder.spec().byte_level) {
    assembler_.Append(piece->text, &out);
  } else {
    // Only bytes continue a character, so one that waits is lost.
    assembler_.Flush(&out);
    out += decoder.TextAt(*piece, tokens_);
  }
  ++tokens_;
  size_t spaces = 0;
  while (strip_left_ > 0 && spaces < out.size() && out[spaces] == ' ') {
    ++spaces;
    --strip_left_;
  }
  // Other text before a space ends the start of the sequence.
  if (spaces < out.size()) strip_left_ = 0;
  return out.erase(0, spaces);
}

std::string TextStream::Flush() {
  std::string out;
  assembler_.Flush(&out);
  tokens_ = 0;
  strip_left_ = tokenizer_->decoder().spec().strip_left;
  return out;
}

}  // namespace nibble
