// The tokenizer in a GGUF file, as plain data.  This package reads no GGUF: who
// does fills in a GgufVocabulary and hands it to MakeTokenizer (tokenizer.h).

#ifndef NIBBLE_TOKENIZER_GGUF_VOCABULARY_H_
#define NIBBLE_TOKENIZER_GGUF_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nibble {

// The tokenizer.ggml.* metadata of a GGUF file, which its reader fills in.
struct GgufVocabulary {
  std::string source;  // the file's path, for error messages
  std::string model;   // tokenizer.ggml.model: "llama" or "gpt2"
  std::string pre;     // tokenizer.ggml.pre; "" where the key is absent
  std::vector<std::string> tokens;
  std::vector<float> scores;         // [tokens]; required for "llama"
  std::vector<int32_t> token_types;  // [tokens], or empty: all normal
  std::vector<std::string> merges;   // required for "gpt2"
  // The value 0xFFFFFFFF means unset, like an absent key.
  std::optional<int64_t> bos_id, eos_id, unknown_id;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_GGUF_VOCABULARY_H_
