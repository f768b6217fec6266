#include "runtime/load_tokenizer.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/gguf_vocabulary.h"
#include "tensor/io/gguf.h"

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

bool IsGguf(const std::string& path) {
  std::array<char, 4> magic = {};
  std::ifstream file(path, std::ios::binary);
  return file.read(magic.data(), magic.size()) &&
         absl::string_view(magic.data(), magic.size()) == "GGUF";
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
  if (IsGguf(path)) return OpenGguf(path);
  if (absl::EndsWithIgnoreCase(path, ".json")) return LoadTokenizerJson(path);
  return LoadSentencePieceModel(path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(
    const Checkpoint& checkpoint) {
  if (checkpoint.format == "llama2.c") return LoadBesideLlama2c(checkpoint);
  if (checkpoint.format == "gguf") {
    const auto* file = dynamic_cast<const GgufFile*>(checkpoint.tensors.get());
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        file != nullptr ? LoadFromGguf(*file) : OpenGguf(checkpoint.path);
    if (absl::IsNotFound(tokenizer.status())) return nullptr;
    return tokenizer;
  }
  if (!FolderHasTokenizer(checkpoint.path)) return nullptr;
  return LoadTokenizerFolder(checkpoint.path);
}

}  // namespace nibble
