#include "apps/common/quantized_cache.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "apps/common/content_hash.h"
#include "apps/common/file_fingerprint.h"
#include "apps/common/model_path.h"
#include "apps/common/version.h"
#include "kernels/thread_pool.h"
#include "quantization/flow.h"
#include "quantization/round_to_nearest.h"
#include "tensor/io/packed_file.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// Goes up whenever other bytes would come of the same model and options.
constexpr int kRecipe = 1;

// The files that a model at `path` may consist of, sorted. More than it reads
// does no harm.
std::vector<std::string> FilesOf(const std::string& path) {
  std::error_code error;
  const bool folder = fs::is_directory(path, error);
  std::vector<std::string> files;
  if (!folder) files.push_back(path);
  // A llama2.c file has its vocabulary beside it.
  if (!folder && !absl::EndsWith(path, ".bin")) return files;
  const fs::path where = folder ? fs::path(path) : fs::path(path).parent_path();
  for (fs::directory_iterator it(where.empty() ? "." : where, error), end;
       !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (!it->is_regular_file(ignored)) continue;
    const bool vocabulary =
        absl::StartsWith(name, "tok") && absl::EndsWith(name, ".bin");
    const bool of_folder =
        absl::EndsWith(name, ".json") || absl::EndsWith(name, ".model") ||
        absl::EndsWith(name, ".jinja") || absl::EndsWith(name, ".safetensors");
    if (of_folder || (!folder && vocabulary)) {
      files.push_back(it->path().string());
    }
  }
  std::sort(files.begin() + (folder ? 0 : 1), files.end());
  return files;
}

absl::StatusOr<uint64_t> HashModel(const std::string& path,
                                   const FileFingerprints& fingerprints,
                                   const QuantizationProgress& progress) {
  ContentHash hash;
  for (const std::string& file : FilesOf(path)) {
    const absl::StatusOr<uint64_t> contents = fingerprints.Hash(file, progress);
    if (!contents.ok()) return contents.status();
    // A file alone may be called anything; in a folder, names matter.
    const std::string name =
        file == path ? "" : fs::path(file).filename().string();
    hash.Add(absl::StrCat(name, "\n", *contents, "\n"));
  }
  return hash.Result();
}

std::string FileName(uint64_t model, const RoundingOptions& options) {
  const bool symmetric = options.bits == 8 || options.symmetric;
  return absl::StrCat(
      absl::Hex(model, absl::kZeroPad16), "-int", options.bits, "-",
      options.group_size == kWholeRow ? std::string("row")
                                      : absl::StrCat("g", options.group_size),
      symmetric ? "-symmetric" : "-asymmetric", "-", kProgramVersion, ".",
      kRecipe, ".nib");
}

// An error of writing below `folder`, with what to do about it.
absl::Status CannotWrite(const std::string& folder,
                         const absl::Status& status) {
  return absl::Status(
      status.code(),
      absl::StrCat("cannot keep the quantized model in ", folder, ": ",
                   status.message(),
                   "; let XDG_CACHE_HOME name a folder with room, or write the "
                   "model where you like with `quantize --out=FILE.nib` and "
                   "run that"));
}

}  // namespace

absl::StatusOr<std::string> QuantizedCacheFolder() {
  absl::StatusOr<std::string> folder = UserCacheFolder();
  if (!folder.ok()) return folder.status();
  return absl::StrCat(*folder, "/quantized");
}

absl::StatusOr<std::string> QuantizeIntoCache(
    const std::string& model_path, const RoundingOptions& options,
    ThreadPool& pool, const QuantizationProgress& progress) {
  const absl::StatusOr<std::string> folder = QuantizedCacheFolder();
  if (!folder.ok()) return folder.status();
  // A typing error is not worth the reading of gigabytes.
  const absl::StatusOr<PackedLayout> layout =
      RoundedLayout(options, /*outputs=*/1, /*inputs=*/4096);
  if (!layout.ok()) return layout.status();
  const FileFingerprints fingerprints(absl::StrCat(*folder, "/hashes"));
  const absl::StatusOr<uint64_t> model =
      HashModel(model_path, fingerprints, progress);
  if (!model.ok()) return model.status();
  const std::string path =
      absl::StrCat(*folder, "/", FileName(*model, options));
  // A file that does not open is made again.
  if (PackedFile::Open(path).ok()) return path;

  std::error_code error;
  fs::create_directories(*folder, error);
  if (error) {
    return CannotWrite(*folder, absl::UnavailableError(error.message()));
  }
  QuantizationOptions quantization;
  quantization.rounding = options;
  quantization.program_version = kProgramVersion;
  const absl::StatusOr<QuantizationReport> report =
      QuantizeCheckpoint(model_path, path, quantization, pool, progress);
  if (report.ok()) return path;
  const bool of_cache = absl::StrContains(report.status().message(), *folder);
  return of_cache ? CannotWrite(*folder, report.status()) : report.status();
}

}  // namespace nibble
