#include "quantization/calibrated/work_folder.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>
#include <utility>

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

// What stands in front of the recipe, a line each: a name, and the value.
struct HeaderLine {
  absl::string_view name;
  absl::string_view what;  // in messages
  std::string WorkIdentity::*value;
};

constexpr HeaderLine kLines[] = {
    {"version ", "version of the program", &WorkIdentity::program_version},
    {"model ", "model", &WorkIdentity::model},
    {"calibration ", "calibration text", &WorkIdentity::calibration},
    {"isa ", "instruction set", &WorkIdentity::isa},
    {"precision ", "precision of the products", &WorkIdentity::precision},
};

std::string HeaderText(const WorkIdentity& identity) {
  std::string text;
  for (const HeaderLine& line : kLines) {
    absl::StrAppend(&text, line.name, identity.*line.value, "\n");
  }
  return absl::StrCat(text, identity.recipe);
}

// The first thing in which a stored header differs, in words.
std::string Difference(absl::string_view stored, const WorkIdentity& identity) {
  for (const HeaderLine& line : kLines) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(stored, absl::MaxSplits('\n', 1));
    absl::string_view had = parts.first;
    const std::string& has = identity.*line.value;
    if (!absl::ConsumePrefix(&had, line.name)) had = "one that is not recorded";
    if (had != has) {
      return absl::StrCat(line.what, " (", had.empty() ? "none" : had,
                          "; this run has ", has.empty() ? "none" : has, ")");
    }
    stored = parts.second;
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
  if (stored == HeaderText(identity)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": its finished blocks were made with another ",
      Difference(stored, identity),
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

absl::StatusOr<std::vector<std::shared_ptr<const BlockFile>>>
WorkFolder::FinishedBlocks(int64_t layers,
                           std::vector<std::string>* notes) const {
  std::vector<std::shared_ptr<const BlockFile>> blocks;
  absl::Status end;  // why there are no more
  for (int64_t layer = 0; end.ok() && layer < layers; ++layer) {
    absl::StatusOr<std::shared_ptr<const BlockFile>> block =
        BlockFile::Open(BlockPath(layer));
    end = block.status();
    if (block.ok()) blocks.push_back(*std::move(block));
  }
  if (!end.ok() && !absl::IsNotFound(end) && !absl::IsDataLoss(end)) {
    return absl::Status(
        end.code(), absl::StrCat(end.message(),
                                 "; all finished blocks are left as they are"));
  }
  // What lies behind such a block would be written over anyway.
  int64_t behind = 0;
  for (int64_t layer = static_cast<int64_t>(blocks.size()); layer < layers;
       ++layer) {
    std::error_code ignored;
    const bool removed = fs::remove(BlockPath(layer), ignored);
    if (removed && layer > static_cast<int64_t>(blocks.size())) ++behind;
  }
  if (absl::IsDataLoss(end) || behind > 0) {
    notes->push_back(absl::StrCat(
        "block ", blocks.size(), " is done again",
        behind == 0 ? "" : absl::StrCat(", with ", behind, " behind it"), ": ",
        end.message()));
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
