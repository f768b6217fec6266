// A folder that appears under its name when everything in it is there.
//
//   absl::StatusOr<OutputFolder> folder = OutputFolder::Create("out");
//   if (!folder.ok()) return folder.status();
//   ... write files into folder->path() ...
//   return folder->Commit();
//
// Until then it is called `<name>.nibble-tmp-<pid>` and locked (flock). Without
// Commit the destructor removes it. A kill leaves it under that name, never
// under its own; the next Create of `name` removes it, if no process of that
// number lives and nobody holds the lock (which a process in another container
// may). Where the file system has no locks, it stays.
#ifndef NIBBLE_QUANTIZATION_EXPORT_OUTPUT_FOLDER_H_
#define NIBBLE_QUANTIZATION_EXPORT_OUTPUT_FOLDER_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nibble {

class OutputFolder {
 public:
  // InvalidArgument: `name` exists and is no empty folder. Fails too while
  // another OutputFolder of that name is open in this process.
  static absl::StatusOr<OutputFolder> Create(const std::string& name);

  OutputFolder(OutputFolder&& other) noexcept
      : name_(std::move(other.name_)),
        path_(std::exchange(other.path_, std::string())),
        lock_(std::exchange(other.lock_, -1)) {}
  OutputFolder& operator=(OutputFolder&&) = delete;
  ~OutputFolder();

  // Where files go.
  const std::string& path() const { return path_; }

  absl::Status Commit();

 private:
  OutputFolder(std::string name, std::string path, int lock)
      : name_(std::move(name)), path_(std::move(path)), lock_(lock) {}

  std::string name_;
  std::string path_;  // empty once committed or moved from
  int lock_;          // the open folder; -1: not locked, or moved from
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_OUTPUT_FOLDER_H_
