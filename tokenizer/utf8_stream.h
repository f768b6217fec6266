// Incremental decoding: token ids in, finished UTF-8 text out.
//
//   TextStream stream(*tokenizer);
//   for (int32_t id : generated) std::cout << stream.Push(id) << std::flush;
//   std::cout << stream.Flush();
//
// Every string returned is valid UTF-8, and no character is ever split: bytes
// of an unfinished character wait until it is complete.  Bytes that cannot
// become a character turn into U+FFFD.  All strings in a row equal
// Tokenizer::Decode of the same ids, except that Decode, like Hugging Face,
// gives up a whole run of <0xNN> tokens when one byte of it is wrong, and a
// stream, which has already shown the characters before it, cannot.

#ifndef NIBBLE_TOKENIZER_UTF8_STREAM_H_
#define NIBBLE_TOKENIZER_UTF8_STREAM_H_

#include <cstdint>
#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8_assembler.h"

namespace nibble {

class TextStream {
 public:
  // `tokenizer` must outlive the stream.
  explicit TextStream(const Tokenizer& tokenizer,
                      bool skip_special_tokens = true);

  // Returns the text that `id` finishes; often one word, sometimes nothing.
  std::string Push(int32_t id);

  // Returns what was held back (U+FFFD for unfinished characters) and starts
  // over, so that the next Push begins a new sequence.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  Utf8Assembler assembler_;
  int64_t tokens_ = 0;  // tokens pushed since the start that gave a piece
  int strip_left_;      // leading spaces still to drop
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_UTF8_STREAM_H_
