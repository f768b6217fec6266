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
  const auto read = [&](absl::string_view name) {
    return ReadTokenizerFile(absl::StrCat(directory, "/", name));
  };
  TokenizerFiles files;
  files.source = directory;
  absl::StatusOr<std::string> vocabulary = read("tokenizer.json");
  if (vocabulary.ok()) {
    files.tokenizer_json = *vocabulary;
  } else if (absl::IsNotFound(vocabulary.status())) {
    vocabulary = read("tokenizer.model");
    if (vocabulary.ok()) files.tokenizer_model = *vocabulary;
  }
  if (!vocabulary.ok() && !absl::IsNotFound(vocabulary.status())) {
    return vocabulary.status();
  }
  const absl::StatusOr<std::string> config = read("tokenizer_config.json");
  if (config.ok()) {
    files.tokenizer_config_json = *config;
  } else if (!absl::IsNotFound(config.status())) {
    return config.status();
  }
  return MakeTokenizer(files);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(
    const TokenizerFiles& files) {
  const auto name = [&](absl::string_view file) {
    return absl::StrCat(files.source, "/", file);
  };
  absl::StatusOr<TokenizerSpec> spec = absl::NotFoundError(absl::StrCat(
      files.source, " has neither tokenizer.json nor tokenizer.model"));
  if (files.tokenizer_json.has_value()) {
    spec = ParseTokenizerJson(*files.tokenizer_json, name("tokenizer.json"));
  } else if (files.tokenizer_model.has_value()) {
    spec = ParseSentencePieceModel(*files.tokenizer_model,
                                   name("tokenizer.model"));
  } else if (files.tokenizer_bin.has_value()) {
    spec = ParseLlama2cVocabulary(*files.tokenizer_bin, name("tokenizer.bin"));
  }
  if (!spec.ok()) return spec.status();
  if (files.tokenizer_config_json.has_value()) {
    const absl::Status status = ApplyTokenizerConfig(
        *files.tokenizer_config_json, name("tokenizer_config.json"), &*spec);
    if (!status.ok()) return status;
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
