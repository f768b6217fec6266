// Generated data behind unicode.h.

#ifndef NIBBLE_TOKENIZER_UNICODE_DATA_H_
#define NIBBLE_TOKENIZER_UNICODE_DATA_H_

#include <cstdint>

namespace nibble {

// Runs of code points that share their CharFlags, in order from U+0000 and
// together 0x110000 long: length << 8 | flags.
extern const uint32_t kUnicodeRuns[];
extern const int kUnicodeRunCount;

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_UNICODE_DATA_H_
