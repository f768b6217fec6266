// Codes packed one after the other, lowest bits first, into 32-bit words: how
// GPTQ (2, 3, 4 and 8 bits) and compressed-tensors (any width) store a run of
// them. A code may lie across two words.
//
//   std::vector<uint8_t> codes(inputs);
//   UnpackCodes(words, 3, absl::MakeSpan(codes));
//
// Code i is bits [i * bits, (i + 1) * bits) of the stream, bit 0 being the
// lowest of word 0.
#ifndef NIBBLE_MODELS_QUANTIZED_CODE_STREAM_H_
#define NIBBLE_MODELS_QUANTIZED_CODE_STREAM_H_

#include <cstdint>

#include "absl/types/span.h"

namespace nibble {

// Words that `count` codes take.
inline int64_t CodeWords(int64_t count, int bits) {
  return (count * bits + 31) / 32;
}

// The first codes.size() codes. REQUIRES: 2 <= bits <= 8, and words.size() >=
// CodeWords(codes.size(), bits).
void UnpackCodes(absl::Span<const uint32_t> words, int bits,
                 absl::Span<uint8_t> codes);

// Code `index` of a stream whose words are those that `word(i)` returns.
template <class Words>
uint32_t CodeAt(const Words& word, int bits, int64_t index) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  uint32_t code = word(bit / 32) >> shift;
  if (shift + bits > 32) code |= word(bit / 32 + 1) << (32 - shift);
  return code & ((1u << bits) - 1);
}

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_CODE_STREAM_H_
