#include "quantization/embedded_files.h"

#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "models/checkpoint.h"
#include "tensor/io/gguf.h"
#include "tensor/io/packed_file.h"
#include "tensor/mapped_file.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// The largest published tokenizer.json has 34 MB.
constexpr size_t kMaxFileBytes = 256 << 20;

constexpr const char* kFolderFiles[] = {
    "tokenizer.json",          "tokenizer.model",     "tokenizer_config.json",
    "special_tokens_map.json", "chat_template.jinja", "generation_config.json",
};

bool Exists(const fs::path& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

absl::Status Add(const fs::path& path, const std::string& name,
                 std::vector<EmbeddedFile>& files) {
  const absl::StatusOr<std::shared_ptr<const MappedFile>> file =
      MappedFile::Open(path.string());
  if (!file.ok()) return file.status();
  const absl::Span<const std::byte> bytes = (*file)->bytes();
  if (bytes.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", bytes.size(), " bytes; at most ",
                     kMaxFileBytes, " are carried along"));
  }
  files.push_back(
      {name,
       std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<EmbeddedFile>> FromFolder(const fs::path& folder) {
  std::vector<EmbeddedFile> files;
  for (const char* name : kFolderFiles) {
    if (!Exists(folder / name)) continue;
    const absl::Status added = Add(folder / name, name, files);
    if (!added.ok()) return added;
  }
  return files;
}

absl::StatusOr<std::vector<EmbeddedFile>> FromBesideLlama2c(
    const Checkpoint& checkpoint) {
  const fs::path folder = fs::path(checkpoint.path).parent_path();
  for (const std::string& name :
       {absl::StrCat("tok", checkpoint.config.vocabulary, ".bin"),
        std::string("tokenizer.bin")}) {
    if (!Exists(folder / name)) continue;
    std::vector<EmbeddedFile> files;
    const absl::Status added = Add(folder / name, "tokenizer.bin", files);
    if (!added.ok()) return added;
    return files;
  }
  return FromFolder(folder.empty() ? fs::path(".") : folder);
}

}  // namespace

absl::StatusOr<std::vector<EmbeddedFile>> FilesToEmbed(
    const Checkpoint& checkpoint) {
  if (checkpoint.format == "llama2.c") return FromBesideLlama2c(checkpoint);
  if (checkpoint.format != "gguf") return FromFolder(checkpoint.path);
  CHECK(checkpoint.gguf != nullptr);
  return std::vector<EmbeddedFile>{
      {"metadata.gguf", checkpoint.gguf->MetadataBytes()}};
}

}  // namespace nibble
