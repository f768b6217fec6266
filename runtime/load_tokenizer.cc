#include "runtime/load_tokenizer.h"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/gguf_vocabulary.h"
#include "tensor/io/gguf.h"
#include "tensor/io/packed_file.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// The error_code overloads below do not throw; an error reads as "no".
bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool IsFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// The first four bytes; zeros where the file has fewer.
std::string MagicOf(const std::string& path) {
  std::string magic(4, '\0');
  std::ifstream(path, std::ios::binary).read(magic.data(), 4);
  return magic;
}

bool FolderHasTokenizer(const fs::path& folder) {
  return IsFile(folder / "tokenizer.json") ||
         IsFile(folder / "tokenizer.model");
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadFromGguf(const GgufFile& file) {
  absl::StatusOr<GgufVocabulary> vocabulary = ReadGgufVocabulary(file);
  if (!vocabulary.ok()) return vocabulary.status();
  return MakeTokenizer(*vocabulary);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenGguf(const std::string& path) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  return LoadFromGguf(**file);
}

// The tokenizer among a packed file's embedded files; NotFound without one.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadFromPacked(
    const PackedFile& file) {
  const auto find =
      [&file](absl::string_view name) -> std::optional<absl::string_view> {
    const absl::StatusOr<absl::string_view> bytes = file.FindFile(name);
    if (!bytes.ok()) return std::nullopt;
    return *bytes;
  };
  if (const auto metadata = find("metadata.gguf")) {
    const std::string name = file.path() + "/metadata.gguf";
    absl::StatusOr<std::unique_ptr<GgufFile>> gguf = GgufFile::Parse(
        name, absl::MakeConstSpan(
                  reinterpret_cast<const std::byte*>(metadata->data()),
                  metadata->size()));
    if (!gguf.ok()) return gguf.status();
    return LoadFromGguf(**gguf);
  }
  TokenizerFiles files;
  files.source = file.path();
  files.tokenizer_json = find("tokenizer.json");
  files.tokenizer_model = find("tokenizer.model");
  files.tokenizer_config_json = find("tokenizer_config.json");
  files.tokenizer_bin = find("tokenizer.bin");
  if (!files.tokenizer_json && !files.tokenizer_model && !files.tokenizer_bin) {
    return absl::NotFoundError(
        absl::StrCat(file.path(), ": there is no tokenizer in it"));
  }
  return MakeTokenizer(files);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenPacked(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const PackedFile>> file =
      PackedFile::Open(path);
  if (!file.ok()) return file.status();
  return LoadFromPacked(**file);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadBesideLlama2c(
    const Checkpoint& checkpoint) {
  const fs::path folder = fs::path(checkpoint.path).parent_path();
  const std::string sized =
      absl::StrCat("tok", checkpoint.config.vocabulary, ".bin");
  for (const std::string& name : {sized, std::string("tokenizer.bin")}) {
    const fs::path path = folder / name;
    if (IsFile(path)) return LoadLlama2cTokenizer(path.string());
  }
  if (!FolderHasTokenizer(folder)) return nullptr;
  return LoadTokenizerFolder(folder.string());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(
    const std::string& path) {
  if (IsFolder(path)) {
    if (!FolderHasTokenizer(path)) {
      return absl::NotFoundError(absl::StrCat(
          path, ": neither tokenizer.json nor tokenizer.model is there"));
    }
    return LoadTokenizerFolder(path);
  }
  const std::string magic = MagicOf(path);
  if (magic == "GGUF") return OpenGguf(path);
  if (magic == "NIBB") return OpenPacked(path);
  if (absl::EndsWithIgnoreCase(path, ".json")) return LoadTokenizerJson(path);
  return LoadSentencePieceModel(path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(
    const Checkpoint& checkpoint) {
  if (checkpoint.format == "llama2.c") return LoadBesideLlama2c(checkpoint);
  if (checkpoint.packed != nullptr || checkpoint.gguf != nullptr) {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        checkpoint.packed != nullptr ? LoadFromPacked(*checkpoint.packed)
                                     : LoadFromGguf(*checkpoint.gguf);
    if (absl::IsNotFound(tokenizer.status())) return nullptr;
    return tokenizer;
  }
  if (!FolderHasTokenizer(checkpoint.path)) return nullptr;
  return LoadTokenizerFolder(checkpoint.path);
}

}  // namespace nibble
