#include "tensor/io/gguf_writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "tensor/io/byte_reader.h"
#include "tensor/io/error_text.h"
#include "tensor/io/gguf_tensor_type.h"
#include "tensor/io/gguf_value.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr int64_t kAlignment = 32;
constexpr uint64_t kHeadBytes = 24;  // magic, version, two counts
constexpr uint32_t kVersion = 3;
// Beyond the numbers that ggml has given out.
constexpr uint32_t kTypeNumbers = 64;

template <class T>
void AppendNumber(T value, std::string* bytes) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
  char raw[sizeof(value)];
  std::memcpy(raw, &value, sizeof(value));
  bytes->append(raw, sizeof(value));
}

void AppendString(absl::string_view text, std::string* bytes) {
  AppendNumber<uint64_t>(text.size(), bytes);
  bytes->append(text.data(), text.size());
}

void AppendArrayHead(GgufType type, size_t count, std::string* bytes) {
  AppendNumber(static_cast<uint32_t>(type), bytes);
  AppendNumber<uint64_t>(count, bytes);
}

int64_t PaddingAfter(int64_t bytes) {
  return (kAlignment - bytes % kAlignment) % kAlignment;
}

std::optional<uint32_t> TypeNumber(DType dtype) {
  for (uint32_t number = 0; number < kTypeNumbers; ++number) {
    if (GgufTensorDType(number) == dtype) return number;
  }
  return std::nullopt;
}

absl::Status CheckKeys(const std::vector<std::string>& keys) {
  absl::flat_hash_set<absl::string_view> seen;
  for (const std::string& key : keys) {
    if (!seen.insert(key).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata ", QuoteForMessage(key), " is given twice"));
    }
  }
  return absl::OkStatus();
}

// The tensors' records, and their sizes.
absl::StatusOr<std::string> Directory(absl::Span<const GgufTensorPlan> tensors,
                                      std::vector<int64_t>* sizes) {
  std::string bytes;
  absl::flat_hash_set<absl::string_view> seen;
  int64_t offset = 0;
  for (const GgufTensorPlan& tensor : tensors) {
    const auto error = [&tensor](absl::string_view what) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", QuoteForMessage(tensor.name), " ", what));
    };
    if (!seen.insert(tensor.name).second) return error("is given twice");
    const std::optional<uint32_t> type = TypeNumber(tensor.dtype);
    if (!type.has_value()) {
      return error(absl::StrCat("has dtype ", DTypeName(tensor.dtype),
                                ", which GGUF lacks"));
    }
    const absl::StatusOr<int64_t> size =
        TensorBytes(tensor.dtype, tensor.shape);
    if (!size.ok()) return error(size.status().message());
    if (*size == 0) return error("is empty");
    AppendString(tensor.name, &bytes);
    AppendNumber(static_cast<uint32_t>(tensor.shape.rank()), &bytes);
    for (int i = tensor.shape.rank() - 1; i >= 0; --i) {
      AppendNumber(static_cast<uint64_t>(tensor.shape.dim(i)), &bytes);
    }
    AppendNumber(*type, &bytes);
    AppendNumber(static_cast<uint64_t>(offset), &bytes);
    sizes->push_back(*size);
    offset += *size + PaddingAfter(*size);
  }
  return bytes;
}

}  // namespace

void GgufMetadata::Key(absl::string_view key, uint32_t type) {
  keys_.emplace_back(key);
  AppendString(key, &bytes_);
  AppendNumber(type, &bytes_);
}

GgufMetadata& GgufMetadata::String(absl::string_view key,
                                   absl::string_view value) {
  Key(key, static_cast<uint32_t>(GgufType::kString));
  AppendString(value, &bytes_);
  return *this;
}

GgufMetadata& GgufMetadata::U32(absl::string_view key, uint32_t value) {
  Key(key, static_cast<uint32_t>(GgufType::kU32));
  AppendNumber(value, &bytes_);
  return *this;
}

GgufMetadata& GgufMetadata::F32(absl::string_view key, float value) {
  Key(key, static_cast<uint32_t>(GgufType::kF32));
  AppendNumber(value, &bytes_);
  return *this;
}

GgufMetadata& GgufMetadata::Bool(absl::string_view key, bool value) {
  Key(key, static_cast<uint32_t>(GgufType::kBool));
  AppendNumber<uint8_t>(value ? 1 : 0, &bytes_);
  return *this;
}

GgufMetadata& GgufMetadata::Strings(absl::string_view key,
                                    absl::Span<const std::string> values) {
  Key(key, static_cast<uint32_t>(GgufType::kArray));
  AppendArrayHead(GgufType::kString, values.size(), &bytes_);
  for (const std::string& value : values) AppendString(value, &bytes_);
  return *this;
}

GgufMetadata& GgufMetadata::I32s(absl::string_view key,
                                 absl::Span<const int32_t> values) {
  Key(key, static_cast<uint32_t>(GgufType::kArray));
  AppendArrayHead(GgufType::kI32, values.size(), &bytes_);
  for (const int32_t value : values) AppendNumber(value, &bytes_);
  return *this;
}

GgufMetadata& GgufMetadata::F32s(absl::string_view key,
                                 absl::Span<const float> values) {
  Key(key, static_cast<uint32_t>(GgufType::kArray));
  AppendArrayHead(GgufType::kF32, values.size(), &bytes_);
  for (const float value : values) AppendNumber(value, &bytes_);
  return *this;
}

GgufMetadata& GgufMetadata::CopyOf(const GgufFile& file,
                                   absl::Span<const absl::string_view> except) {
  const std::string bytes = file.MetadataBytes();
  ByteReader reader(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
  absl::Span<const std::byte> head;
  CHECK(reader.ReadBytes(kHeadBytes, &head));
  while (reader.remaining() > 0) {
    const size_t begin = reader.position();
    absl::string_view key;
    CHECK(reader.ReadString(reader.remaining(), &key));
    // It was read once before, when the file was opened.
    CHECK(GgufValue::Read(reader).ok());
    if (absl::c_linear_search(except, key)) continue;
    keys_.emplace_back(key);
    bytes_.append(bytes, begin, reader.position() - begin);
  }
  return *this;
}

absl::StatusOr<GgufWriter> GgufWriter::Create(
    const std::string& path, const GgufMetadata& metadata,
    absl::Span<const GgufTensorPlan> tensors) {
  std::vector<int64_t> sizes;
  absl::Status status = CheckKeys(metadata.keys());
  absl::StatusOr<std::string> directory = Directory(tensors, &sizes);
  status.Update(directory.status());
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("cannot write ", path, ": ",
                                                    status.message()));
  }
  std::string head = "GGUF";
  AppendNumber(kVersion, &head);
  AppendNumber<uint64_t>(tensors.size(), &head);
  AppendNumber<uint64_t>(metadata.keys().size(), &head);
  absl::StrAppend(&head, metadata.bytes(), *directory);
  head.append(
      static_cast<size_t>(PaddingAfter(static_cast<int64_t>(head.size()))),
      '\0');
  uint64_t total = head.size();
  for (const int64_t size : sizes) {
    total += static_cast<uint64_t>(size + PaddingAfter(size));
  }
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  status = file->Reserve(total);
  if (status.ok()) status = file->Append(head);
  if (!status.ok()) return status;
  return GgufWriter(*std::move(file), std::move(sizes));
}

absl::Status GgufWriter::Pad() {
  static constexpr std::array<std::byte, kAlignment> kZeros = {};
  const size_t zeros = static_cast<size_t>(PaddingAfter(sizes_[tensor_]));
  ++tensor_;
  written_ = 0;
  return file_.Append(absl::MakeConstSpan(kZeros.data(), zeros));
}

absl::Status GgufWriter::Append(absl::Span<const std::byte> bytes) {
  absl::Status status;
  while (status.ok() && !bytes.empty()) {
    CHECK_LT(tensor_, sizes_.size()) << "more bytes than planned";
    const size_t count =
        std::min(bytes.size(), static_cast<size_t>(sizes_[tensor_] - written_));
    status = file_.Append(bytes.first(count));
    bytes.remove_prefix(count);
    written_ += static_cast<int64_t>(count);
    if (status.ok() && written_ == sizes_[tensor_]) status = Pad();
  }
  return status;
}

absl::Status GgufWriter::Commit() {
  CHECK_EQ(tensor_, sizes_.size()) << "fewer bytes than planned";
  return file_.Commit();
}

}  // namespace nibble
