// Puts bytes that arrive in pieces together into valid UTF-8.
//
//   Utf8Assembler assembler(Utf8Assembler::Damage::kOncePerSequence);
//   assembler.Append("\xE2\x82", &out);  // holds both bytes back
//   assembler.Append("\xAC", &out);      // appends "€"

#ifndef NIBBLE_TOKENIZER_UTF8_ASSEMBLER_H_
#define NIBBLE_TOKENIZER_UTF8_ASSEMBLER_H_

#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

class Utf8Assembler {
 public:
  // How many U+FFFD stand for the bytes of a broken or unfinished character.
  enum class Damage {
    kOncePerSequence,  // one for each maximal start of a character (Unicode)
    kOncePerByte,
  };

  explicit Utf8Assembler(Damage damage) : damage_(damage) {}

  // Appends to `out` what `bytes` finishes, and holds back at most 3 bytes.
  void Append(absl::string_view bytes, std::string* out);

  // Appends U+FFFD for what was held back, if anything.
  void Flush(std::string* out);

 private:
  void AppendDamaged(size_t bytes, std::string* out) const;

  Damage damage_;
  std::string pending_;  // the start of a character
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_UTF8_ASSEMBLER_H_
