#include "tensor/io/safetensors_writer.h"

#include <cstring>
#include <set>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "tensor/io/error_text.h"
#include "tensor/io/safetensors_header.h"
#include "tensor/io/utf8.h"
#include "tensor/view.h"

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

absl::Status CheckTensors(absl::Span<const SafetensorsPlan> tensors) {
  std::set<absl::string_view> names;
  for (const SafetensorsPlan& tensor : tensors) {
    const auto error = [&](auto... what) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", QuoteForMessage(tensor.name), " ", what...));
    };
    if (tensor.name == "__metadata__") {
      return error("bears the name of the format's metadata");
    }
    if (!names.insert(tensor.name).second) return error("is given twice");
    if (FormatName(tensor.dtype) == nullptr) {
      return error("has dtype ", DTypeName(tensor.dtype),
                   ", which safetensors lacks");
    }
    const absl::StatusOr<int64_t> bytes =
        TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes.ok()) return bytes.status();
  }
  return absl::OkStatus();
}

// Sets `bytes` to those of all tensors.
absl::StatusOr<std::string> HeaderJson(
    absl::Span<const SafetensorsPlan> tensors,
    const std::map<std::string, std::string>& metadata, int64_t* bytes) {
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
  *bytes = 0;
  for (const SafetensorsPlan& tensor : tensors) {
    absl::StatusOr<std::string> name = JsonString("tensor name", tensor.name);
    if (!name.ok()) return name.status();
    const int64_t begin = *bytes;
    *bytes += *TensorBytes(tensor.dtype, tensor.shape);
    absl::StrAppend(&json, comma, *name, ":{\"dtype\":\"",
                    FormatName(tensor.dtype),
                    "\",\"shape\":", tensor.shape.ToString(),
                    ",\"data_offsets\":[", begin, ",", *bytes, "]}");
    comma = ",";
  }
  json += "}";
  const size_t end = sizeof(uint64_t) + json.size();
  json.append((kDataAlignment - end % kDataAlignment) % kDataAlignment, ' ');
  return json;
}

}  // namespace

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, absl::Span<const SafetensorsPlan> tensors,
    const std::map<std::string, std::string>& metadata) {
  const auto in_file = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat("cannot write ", path, ": ",
                                                    status.message()));
  };
  if (absl::Status s = CheckTensors(tensors); !s.ok()) return in_file(s);
  int64_t bytes = 0;
  absl::StatusOr<std::string> json = HeaderJson(tensors, metadata, &bytes);
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
      file->Reserve(sizeof(length) + length + static_cast<uint64_t>(bytes));
  if (status.ok()) {
    status =
        file->Append(absl::string_view(length_bytes, sizeof(length_bytes)));
  }
  if (status.ok()) status = file->Append(*json);
  if (!status.ok()) return status;
  return SafetensorsWriter(*std::move(file), bytes);
}

absl::Status SafetensorsWriter::Append(absl::Span<const std::byte> bytes) {
  missing_ -= static_cast<int64_t>(bytes.size());
  CHECK_GE(missing_, 0) << "more bytes than planned";
  return file_.Append(bytes);
}

absl::Status SafetensorsWriter::Commit() {
  CHECK_EQ(missing_, 0) << "fewer bytes than planned";
  return file_.Commit();
}

}  // namespace nibble
