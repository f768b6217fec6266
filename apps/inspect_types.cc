#include "apps/inspect_types.h"

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {

Json TensorTypes(const TensorSource& source) {
  struct Count {
    int64_t tensors = 0;
    int64_t codes = 0;
    bool quantized = false;
  };
  std::map<std::string, Count> counts;
  for (const std::string& name : source.names()) {
    const absl::StatusOr<TensorView> view = source.Find(name);
    Count& count =
        counts[view.ok() ? std::string(DTypeName(view->dtype)) : "?"];
    ++count.tensors;
    count.codes += source.FindCoded(name) != nullptr;
    count.quantized |= view.ok() && IsQuantized(view->dtype);
  }
  Json types = Json::object();
  for (const auto& [type, count] : counts) {
    std::string text = absl::StrCat(
        count.tensors, count.tensors == 1 ? " tensor" : " tensors");
    if (count.codes == count.tensors) {
      absl::StrAppend(&text, ", kept as codes");
    } else if (count.codes > 0) {
      absl::StrAppend(&text, ", ", count.codes, " of them kept as codes");
    } else if (count.quantized) {
      absl::StrAppend(&text, ", dequantized");
    }
    types[type] = text;
  }
  return types;
}

}  // namespace nibble
