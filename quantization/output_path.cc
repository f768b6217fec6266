#include "quantization/output_path.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"

namespace nibble {

absl::Status CheckOutput(const std::string& model, const std::string& out) {
  struct stat model_info, out_info;
  if (stat(model.c_str(), &model_info) != 0 ||
      stat(out.c_str(), &out_info) != 0 ||
      model_info.st_dev != out_info.st_dev ||
      model_info.st_ino != out_info.st_ino) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      out, ": is the model itself; write the quantized model elsewhere"));
}

}  // namespace nibble
