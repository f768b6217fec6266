// What tokenizer.ggml.pre of a GGUF file stands for.

#ifndef NIBBLE_TOKENIZER_GGUF_PRE_H_
#define NIBBLE_TOKENIZER_GGUF_PRE_H_

#include "absl/strings/string_view.h"
#include "tokenizer/pretokenizer.h"

namespace nibble {

struct GgufPre {
  absl::string_view name;
  PreTokenizerKind kind;
  bool nfc = false;            // the model's tokenizer.json normalizes
  bool ignore_merges = false;  // and keeps whole words
  bool adds_bos = false;       // unless add_bos_token says otherwise
};

// Where two mean the same, the second is the one that is written.
inline constexpr GgufPre kGgufPres[] = {
    {"default", PreTokenizerKind::kGpt2},
    {"gpt-2", PreTokenizerKind::kGpt2},
    {"mpt", PreTokenizerKind::kGpt2, /*nfc=*/true},
    {"falcon", PreTokenizerKind::kFalcon},
    {"llama-bpe", PreTokenizerKind::kLlama3, /*nfc=*/false,
     /*ignore_merges=*/true, /*adds_bos=*/true},
    {"qwen2", PreTokenizerKind::kQwen2, /*nfc=*/true},
    {"smollm", PreTokenizerKind::kDigitsGpt2},
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_GGUF_PRE_H_
