// Text to token ids and back.
//
// One Tokenizer serves every supported vocabulary: SentencePiece BPE with byte
// fallback (Llama 1/2, Mistral, OpenLLaMA) and byte-level BPE with the
// families' own pre-tokenizers (GPT-2, GPT-J, GPT-NeoX, Falcon, Llama 3,
// Qwen2, SmolLM2).  Ids equal those of the Hugging Face `tokenizers` library
// (tokenizer.json) or of SentencePiece (tokenizer.model).
//
//   absl::StatusOr<std::unique_ptr<nibble::Tokenizer>> tokenizer =
//       nibble::LoadTokenizerFolder("models/tolstoy-llama");
//   if (!tokenizer.ok()) return tokenizer.status();
//   std::vector<int32_t> ids = (*tokenizer)->Encode("Hello, world", {});
//   std::string text = (*tokenizer)->Decode(ids);  // "Hello, world"
//
// Contracts
// - A Tokenizer never changes after loading; any number of threads may call
//   any method at once.
// - Encode takes any bytes.  Bytes that are not UTF-8 are kept, each as a
//   character of its own, where the vocabulary can spell them.
// - Time and memory of Encode are near linear in the text, whatever it holds.
// - Decode returns valid UTF-8: bytes that form no character become U+FFFD.
// - A loader that meets a component it does not implement (a normalizer, a
//   pre-tokenizer's regular expression, a decoder) names it and fails; nothing
//   is approximated.

#ifndef NIBBLE_TOKENIZER_TOKENIZER_H_
#define NIBBLE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tokenizer/gguf_vocabulary.h"

namespace nibble {

class TokenDecoder;
struct TokenizerSpec;

class Tokenizer {
 public:
  struct EncodeOptions {
    // Adds what the model expects around a text: BOS for Llama.
    bool add_special_tokens = true;
    // Text such as "</s>" becomes the token it names.  When false, no special
    // or control token comes out of the text, only its plain characters.
    // Added tokens that are not special (NeoX's runs of spaces) always match.
    bool parse_special = true;
  };

  // Checks `spec` and builds the tables.  The loaders below call this.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  std::vector<int32_t> Encode(absl::string_view text,
                              const EncodeOptions& options) const;
  std::vector<int32_t> Encode(absl::string_view text) const {
    return Encode(text, EncodeOptions());
  }

  // Ids outside the vocabulary, and holes in it, decode to nothing.
  std::string Decode(absl::Span<const int32_t> ids,
                     bool skip_special_tokens = true) const;

  // One more than the highest id; ids in between may be holes.
  int64_t vocabulary_size() const;

  // The token as its vocabulary spells it ("Ġthe", "▁the", "<0x0A>"); empty
  // for a hole or an id outside.  The view lives as long as the tokenizer.
  absl::string_view TokenText(int32_t id) const;
  std::optional<int32_t> TokenId(absl::string_view token) const;

  // True for BOS, EOS and control tokens, which Decode skips; all but those
  // that the file marks `normalized` and its normalizer changes, such as "<s>"
  // in Llama 2's tokenizer.json: the tokenizers library shows them, so Decode
  // does too.
  bool IsSpecial(int32_t id) const;

  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  // Whether Encode begins with bos_id() when add_special_tokens is set.
  bool adds_bos() const;

  // How tokens turn into text; for TextStream.
  const TokenDecoder& decoder() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);

  std::unique_ptr<const Impl> impl_;
};

// Reads a Hugging Face tokenizer.json.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(
    const std::string& path);

// Reads a SentencePiece tokenizer.model of type BPE.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceModel(
    const std::string& path);

// Reads `directory`/tokenizer.json, or where there is none tokenizer.model.
// bos_token, eos_token, add_bos_token and add_eos_token of
// tokenizer_config.json, where present, override what that file says.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerFolder(
    const std::string& directory);

// Reads the tokenizer format of llama2.c (tokenizer.bin, tok512.bin).
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadLlama2cTokenizer(
    const std::string& path);

// The files of a tokenizer that are in memory, such as those inside a packed
// model file; nullopt for one that is not there. The views are read only during
// the call.
struct TokenizerFiles {
  // What the files are in, for error messages: "model.nib" makes
  // "model.nib/tokenizer.json: ...".
  std::string source;
  std::optional<absl::string_view> tokenizer_json;
  std::optional<absl::string_view> tokenizer_model;
  std::optional<absl::string_view> tokenizer_config_json;
  std::optional<absl::string_view> tokenizer_bin;  // of llama2.c
};

// As LoadTokenizerFolder; tokenizer.bin where there is neither of the others.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(
    const TokenizerFiles& files);

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(
    const GgufVocabulary& vocabulary);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_TOKENIZER_H_
