// A folder that appears under its name when everything in it is there.
//
//   absl::StatusOr<OutputFolder> folder = OutputFolder::Create("out");
//   if (!folder.ok()) return folder.status();
//   ... write files into folder->path() ...
//   return folder->Commit();
//
// Until then it is called `<name>.tmp-<pid>`. Without Commit the destructor
// removes it; only a kill leaves it, under that name.
#ifndef NIBBLE_QUANTIZATION_EXPORT_OUTPUT_FOLDER_H_
#define NIBBLE_QUANTIZATION_EXPORT_OUTPUT_FOLDER_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nibble {

class OutputFolder {
 public:
  // InvalidArgument: `name` exists and is no empty folder.
  static absl::StatusOr<OutputFolder> Create(const std::string& name);

  OutputFolder(OutputFolder&& other) noexcept
      : name_(std::move(other.name_)),
        path_(std::exchange(other.path_, std::string())) {}
  OutputFolder& operator=(OutputFolder&&) = delete;
  ~OutputFolder();

  // Where files go.
  const std::string& path() const { return path_; }

  absl::Status Commit();

 private:
  OutputFolder(std::string name, std::string path)
      : name_(std::move(name)), path_(std::move(path)) {}

  std::string name_;
  std::string path_;  // empty once committed or moved from
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_OUTPUT_FOLDER_H_
