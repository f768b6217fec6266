// WriteSafetensors.
#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tensor/io/atomic_file.h"
#include "tensor/io/error_text.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/utf8.h"

namespace nibble {
namespace {

// The data starts at a multiple of this in the file: a cache line, so that a
// mapped file's first tensors suit SIMD. The format itself asks for nothing.
constexpr size_t kDataAlignment = 64;

// Null for dtypes that the format lacks.
const char* FormatName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kF64:
      return "F64";
    case DType::kI8:
      return "I8";
    case DType::kU8:
      return "U8";
    case DType::kI16:
      return "I16";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kBool:
      return "BOOL";
    default:
      return nullptr;
  }
}

// `text` as JSON, or InvalidArgument when it is not UTF-8.
absl::StatusOr<std::string> JsonString(absl::string_view what,
                                       const std::string& text) {
  if (!IsUtf8(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " ", QuoteForMessage(text), " is not UTF-8"));
  }
  return nlohmann::json(text).dump();
}

absl::Status CheckTensors(absl::Span<const NamedTensor> tensors) {
  std::set<absl::string_view> names;
  for (const NamedTensor& tensor : tensors) {
    const auto error = [&](auto... what) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", QuoteForMessage(tensor.name), " ", what...));
    };
    if (tensor.name == "__metadata__") {
      return error("bears the name of the format's metadata");
    }
    if (!names.insert(tensor.name).second) return error("is given twice");
    if (FormatName(tensor.view.dtype) == nullptr) {
      return error("has dtype ", DTypeName(tensor.view.dtype),
                   ", which safetensors lacks");
    }
    const absl::StatusOr<int64_t> bytes =
        TensorBytes(tensor.view.dtype, tensor.view.shape);
    if (!bytes.ok()) return bytes.status();
    if (static_cast<size_t>(*bytes) != tensor.view.bytes) {
      return error("has ", tensor.view.bytes, " bytes where its shape needs ",
                   *bytes);
    }
  }
  return absl::OkStatus();
}

// Largest alignment first, so that no tensor needs a gap before it.
std::vector<const NamedTensor*> OrderForFile(
    absl::Span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  order.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(),
                   [](const NamedTensor* a, const NamedTensor* b) {
                     return DTypeAlignment(a->view.dtype) >
                            DTypeAlignment(b->view.dtype);
                   });
  return order;
}

absl::StatusOr<std::string> HeaderJson(
    const std::vector<const NamedTensor*>& order,
    const std::map<std::string, std::string>& metadata) {
  // Written by hand: the order of the tensors is the order of the data.
  std::string json = "{";
  const char* comma = "";
  if (!metadata.empty()) {
    absl::StrAppend(&json, "\"__metadata__\":{");
    for (const auto& [key, value] : metadata) {
      absl::StatusOr<std::string> k = JsonString("metadata key", key);
      if (!k.ok()) return k.status();
      absl::StatusOr<std::string> v = JsonString("metadata", value);
      if (!v.ok()) return v.status();
      absl::StrAppend(&json, comma, *k, ":", *v);
      comma = ",";
    }
    absl::StrAppend(&json, "}");
    comma = ",";
  }
  size_t offset = 0;
  for (const NamedTensor* tensor : order) {
    absl::StatusOr<std::string> name = JsonString("tensor name", tensor->name);
    if (!name.ok()) return name.status();
    absl::StrAppend(
        &json, comma, *name, ":{\"dtype\":\"", FormatName(tensor->view.dtype),
        "\",\"shape\":", tensor->view.shape.ToString(), ",\"data_offsets\":[",
        offset, ",", offset + tensor->view.bytes, "]}");
    offset += tensor->view.bytes;
    comma = ",";
  }
  json += "}";
  const size_t end = sizeof(uint64_t) + json.size();
  json.append((kDataAlignment - end % kDataAlignment) % kDataAlignment, ' ');
  return json;
}

}  // namespace

absl::Status WriteSafetensors(
    const std::string& path, absl::Span<const NamedTensor> tensors,
    const std::map<std::string, std::string>& metadata) {
  const auto in_file = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat("cannot write ", path, ": ",
                                                    status.message()));
  };
  if (absl::Status s = CheckTensors(tensors); !s.ok()) return in_file(s);
  const std::vector<const NamedTensor*> order = OrderForFile(tensors);
  absl::StatusOr<std::string> json = HeaderJson(order, metadata);
  if (!json.ok()) return in_file(json.status());
  if (json->size() > static_cast<size_t>(kMaxSafetensorsHeaderBytes)) {
    return in_file(absl::InvalidArgumentError(
        absl::StrCat("a header of ", json->size(), " bytes is too long")));
  }

  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  const uint64_t length = json->size();
  char length_bytes[sizeof(length)];
  std::memcpy(length_bytes, &length, sizeof(length));
  absl::Status status =
      file->Append(absl::string_view(length_bytes, sizeof(length_bytes)));
  if (status.ok()) status = file->Append(*json);
  for (const NamedTensor* tensor : order) {
    if (!status.ok()) break;
    status = file->Append(
        absl::MakeConstSpan(tensor->view.data, tensor->view.bytes));
  }
  return status.ok() ? file->Commit() : status;
}

}  // namespace nibble
