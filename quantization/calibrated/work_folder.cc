#include "quantization/calibrated/work_folder.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "tensor/io/atomic_file.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr char kHeader[] = "begun";
constexpr absl::string_view kPrefix = "block-";
constexpr absl::string_view kEnding = ".nib";

std::string HeaderText(const WorkIdentity& identity) {
  return absl::StrCat("version ", identity.program_version, "\nmodel ",
                      identity.model, "\ncalibration ", identity.calibration,
                      "\n", identity.recipe);
}

// The first thing in which two headers differ, in words.
std::string Difference(absl::string_view stored, absl::string_view wanted) {
  constexpr absl::string_view kWhat[] = {"version of the program", "model",
                                         "calibration text"};
  const std::vector<std::string> a =
      absl::StrSplit(stored, absl::MaxSplits('\n', 3));
  const std::vector<std::string> b =
      absl::StrSplit(wanted, absl::MaxSplits('\n', 3));
  for (size_t i = 0; i < 3; ++i) {
    if (i >= a.size() || i >= b.size() || a[i] != b[i]) {
      return std::string(kWhat[i]);
    }
  }
  return "recipe";
}

// The block that a file is of, also of a temporary name (tensor/io/
// atomic_file.h).
std::optional<int64_t> BlockOf(const std::string& name) {
  absl::string_view rest = name;
  int64_t layer = 0;
  if (!absl::ConsumePrefix(&rest, kPrefix)) return std::nullopt;
  const size_t end = rest.find(kEnding);
  if (end == absl::string_view::npos ||
      !absl::SimpleAtoi(rest.substr(0, end), &layer)) {
    return std::nullopt;
  }
  return layer;
}

bool IsOurs(const std::string& name) {
  return absl::StartsWith(name, kHeader) || BlockOf(name).has_value();
}

struct Contents {
  std::vector<std::string> ours;  // names
  bool header = false;
  bool blocks = false;
  std::string other;  // the name of a file of somebody else
};

absl::StatusOr<Contents> Look(const std::string& path) {
  Contents contents;
  std::error_code error;
  for (fs::directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!IsOurs(name)) {
      contents.other = name;
      continue;
    }
    contents.ours.push_back(name);
    contents.header |= name == kHeader;
    contents.blocks |= absl::EndsWith(name, kEnding);
  }
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": cannot be read: ", error.message()));
  }
  return contents;
}

absl::Status RemoveFiles(const std::string& path,
                         const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    std::error_code error;
    fs::remove(fs::path(path) / name, error);
    if (error) {
      return absl::InternalError(absl::StrCat(
          path, "/", name, ": cannot be removed: ", error.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status WriteHeader(const std::string& path,
                         const WorkIdentity& identity) {
  absl::StatusOr<AtomicFile> file =
      AtomicFile::Create(absl::StrCat(path, "/", kHeader));
  if (!file.ok()) return file.status();
  const absl::Status written = file->Append(HeaderText(identity));
  return written.ok() ? file->Commit() : written;
}

// Whether the blocks of a folder may be taken over.
absl::Status CheckSame(const std::string& path, const WorkIdentity& identity) {
  std::ifstream file(fs::path(path) / kHeader, std::ios::binary);
  const std::string stored((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
  const std::string wanted = HeaderText(identity);
  if (stored == wanted) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": its finished blocks were made with another ",
      Difference(stored, wanted),
      "; go on with the same one, or remove the folder to begin anew"));
}

}  // namespace

absl::StatusOr<WorkFolder> WorkFolder::Open(const std::string& path,
                                            const WorkIdentity& identity,
                                            bool resume) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_directory(status)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": is no folder; finished blocks are kept under this name while "
        "the work lasts: remove it"));
  }
  if (!fs::exists(status)) {
    fs::create_directories(path, error);
    if (error) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": cannot be made: ", error.message()));
    }
  }
  const absl::StatusOr<Contents> contents = Look(path);
  if (!contents.ok()) return contents.status();
  if (!contents->other.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": holds ", contents->other,
                     ", which is not of this program; finished blocks are kept "
                     "in this folder while the work lasts: remove it"));
  }
  WorkFolder folder(path);
  if (contents->blocks && contents->header) {
    if (!resume) {
      return absl::FailedPreconditionError(absl::StrCat(
          path,
          ": holds finished blocks of a run that was ended; --resume "
          "goes on behind them, or remove the folder to begin anew"));
    }
    const absl::Status same = CheckSame(path, identity);
    if (!same.ok()) return same;
    return folder;
  }
  absl::Status begun = RemoveFiles(path, contents->ours);
  if (begun.ok()) begun = WriteHeader(path, identity);
  if (!begun.ok()) return begun;
  return folder;
}

std::vector<std::shared_ptr<const BlockFile>> WorkFolder::FinishedBlocks(
    int64_t layers, std::vector<std::string>* notes) const {
  std::vector<std::shared_ptr<const BlockFile>> blocks;
  for (int64_t layer = 0; layer < layers; ++layer) {
    absl::StatusOr<std::shared_ptr<const BlockFile>> block =
        BlockFile::Open(BlockPath(layer));
    if (!block.ok()) {
      if (!absl::IsNotFound(block.status())) {
        notes->push_back(absl::StrCat(
            "block ", layer, " is done again: ", block.status().message()));
      }
      break;
    }
    blocks.push_back(*std::move(block));
  }
  // What lies behind a damaged block would be written over anyway.
  for (int64_t layer = static_cast<int64_t>(blocks.size()); layer < layers;
       ++layer) {
    std::error_code ignored;
    fs::remove(BlockPath(layer), ignored);
  }
  return blocks;
}

std::string WorkFolder::BlockPath(int64_t layer) const {
  return absl::StrCat(path_, "/", kPrefix, layer, kEnding);
}

absl::Status WorkFolder::Remove() const {
  const absl::StatusOr<Contents> contents = Look(path_);
  if (!contents.ok()) return contents.status();
  const absl::Status removed = RemoveFiles(path_, contents->ours);
  if (!removed.ok()) return removed;
  std::error_code error;
  fs::remove(path_, error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(path_, ": cannot be removed: ", error.message()));
}

}  // namespace nibble
