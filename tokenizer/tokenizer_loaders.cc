// The loaders of tokenizer.h.

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tokenizer/gguf_reader.h"
#include "tokenizer/llama2c_vocabulary.h"
#include "tokenizer/read_file.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {
namespace {

using Parser = absl::StatusOr<TokenizerSpec> (*)(absl::string_view bytes,
                                                 const std::string& source);

absl::StatusOr<TokenizerSpec> ReadSpec(const std::string& path, Parser parse) {
  absl::StatusOr<std::string> bytes = ReadTokenizerFile(path);
  if (!bytes.ok()) return bytes.status();
  return parse(*bytes, path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& path,
                                                Parser parse) {
  absl::StatusOr<TokenizerSpec> spec = ReadSpec(path, parse);
  if (!spec.ok()) return spec.status();
  return Tokenizer::Create(*std::move(spec));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(
    const std::string& path) {
  return Load(path, ParseTokenizerJson);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceModel(
    const std::string& path) {
  return Load(path, ParseSentencePieceModel);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadLlama2cTokenizer(
    const std::string& path) {
  return Load(path, ParseLlama2cVocabulary);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerFolder(
    const std::string& directory) {
  absl::StatusOr<TokenizerSpec> spec =
      ReadSpec(absl::StrCat(directory, "/tokenizer.json"), ParseTokenizerJson);
  if (absl::IsNotFound(spec.status())) {
    spec = ReadSpec(absl::StrCat(directory, "/tokenizer.model"),
                    ParseSentencePieceModel);
    if (absl::IsNotFound(spec.status())) {
      return absl::NotFoundError(absl::StrCat(
          directory, " has neither tokenizer.json nor tokenizer.model"));
    }
  }
  if (!spec.ok()) return spec.status();
  const std::string config_path =
      absl::StrCat(directory, "/tokenizer_config.json");
  const absl::StatusOr<std::string> config = ReadTokenizerFile(config_path);
  if (config.ok()) {
    const absl::Status status =
        ApplyTokenizerConfig(*config, config_path, &*spec);
    if (!status.ok()) return status;
  } else if (!absl::IsNotFound(config.status())) {
    return config.status();
  }
  return Tokenizer::Create(*std::move(spec));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(
    const GgufVocabulary& vocabulary) {
  absl::StatusOr<TokenizerSpec> spec = SpecFromGguf(vocabulary);
  if (!spec.ok()) return spec.status();
  return Tokenizer::Create(*std::move(spec));
}

}  // namespace nibble
