#include "tensor/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "tensor/buffer.h"
#include "tensor/io/error_text.h"
#include "tensor/io/name_index.h"
#include "tensor/io/safetensors_header.h"
#include "tensor/mapped_file.h"

namespace nibble {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "tensors are used as they stand in the file");

struct TypeInfo {
  absl::string_view name;
  int64_t bytes;
  std::optional<DType> dtype;  // Absent: known to the format, not to nibble.
};

constexpr TypeInfo kTypes[] = {
    {"F32", 4, DType::kF32},      {"F16", 2, DType::kF16},
    {"BF16", 2, DType::kBF16},    {"F64", 8, DType::kF64},
    {"I8", 1, DType::kI8},        {"U8", 1, DType::kU8},
    {"I16", 2, DType::kI16},      {"I32", 4, DType::kI32},
    {"I64", 8, DType::kI64},      {"BOOL", 1, DType::kBool},
    {"U16", 2, std::nullopt},     {"U32", 4, std::nullopt},
    {"U64", 8, std::nullopt},     {"F8_E4M3", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
};

const TypeInfo* FindType(absl::string_view name) {
  for (const TypeInfo& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

// A tensor whose range has been checked.
struct Record {
  std::string type_name;
  std::optional<DType> dtype;
  Shape shape;
  const std::byte* data = nullptr;  // In the file, aligned or not.
  size_t bytes = 0;
};

std::string TensorText(absl::string_view path, absl::string_view name) {
  return absl::StrCat(path, ": tensor ", QuoteForMessage(name));
}

class SafetensorsFile : public TensorSource {
 public:
  // `file` keeps the bytes alive; null when the caller does.
  SafetensorsFile(std::string path, std::shared_ptr<const MappedFile> file,
                  NameIndex<Record> index)
      : path_(std::move(path)),
        file_(std::move(file)),
        index_(std::move(index)) {}

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override {
    return index_.names();
  }
  bool Contains(absl::string_view name) const override {
    return index_.Find(name) != nullptr;
  }

  absl::Status CheckUnchanged() const override {
    return file_ == nullptr ? absl::OkStatus() : file_->CheckUnchanged();
  }
  void Release(absl::Span<const std::byte> range) const override {
    // An aligned copy is no part of the file, and stays.
    if (file_ != nullptr) file_->Release(range);
  }

  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    const Record* record = index_.Find(name);
    if (record == nullptr) {
      return absl::NotFoundError(
          absl::StrCat(path_, ": there is no tensor ", QuoteForMessage(name)));
    }
    if (!record->dtype.has_value()) {
      return absl::UnimplementedError(absl::StrCat(
          TensorText(path_, name), " has dtype ",
          QuoteForMessage(record->type_name), ", which is not supported"));
    }
    TensorView view{*record->dtype, record->shape, record->data, record->bytes};
    const uintptr_t address = reinterpret_cast<uintptr_t>(view.data);
    if (address % DTypeAlignment(view.dtype) != 0) {
      view.data = AlignedCopy(*record);
    }
    return view;
  }

 private:
  // A copy of a misaligned tensor, made once.
  const std::byte* AlignedCopy(const Record& record) const {
    absl::MutexLock lock(&mutex_);
    AlignedBuffer& copy = copies_[&record];
    if (copy.data() == nullptr && record.bytes > 0) {
      copy = AlignedBuffer(record.bytes);
      std::memcpy(copy.data(), record.data, record.bytes);
    }
    return copy.data();
  }

  const std::string path_;
  const std::shared_ptr<const MappedFile> file_;
  const NameIndex<Record> index_;
  mutable absl::Mutex mutex_;
  mutable absl::flat_hash_map<const Record*, AlignedBuffer> copies_
      ABSL_GUARDED_BY(mutex_);
};

// Checks one entry against the `data` that follows the header.
absl::StatusOr<Record> MakeRecord(const std::string& path,
                                  const SafetensorsEntry& entry,
                                  absl::Span<const std::byte> data) {
  const auto error = [&](auto... what) {
    return absl::InvalidArgumentError(
        absl::StrCat(TensorText(path, entry.name), " ", what...));
  };
  if (entry.begin > entry.end) {
    return error("has reversed data_offsets [", entry.begin, ", ", entry.end,
                 "]");
  }
  if (entry.end > static_cast<int64_t>(data.size())) {
    return error("ends at byte ", entry.end, " of ", data.size(),
                 " bytes of data; the file may be truncated");
  }
  absl::StatusOr<Shape> shape = Shape::Create(entry.shape);
  if (!shape.ok()) return error("is bad: ", shape.status().message());

  Record record;
  record.type_name = entry.dtype;
  record.shape = *shape;
  record.data = data.data() + entry.begin;
  record.bytes = static_cast<size_t>(entry.end - entry.begin);
  if (const TypeInfo* type = FindType(entry.dtype); type != nullptr) {
    record.dtype = type->dtype;
    // Compared by division: the product might not fit 64 bits.
    const int64_t bytes = entry.end - entry.begin;
    if (bytes % type->bytes != 0 || bytes / type->bytes != shape->elements()) {
      return error("has ", bytes, " bytes, but ", entry.dtype, " ",
                   shape->ToString(), " needs ", shape->elements(), " times ",
                   type->bytes);
    }
  }
  return record;
}

// The format wants the tensors to cover the data without gaps or overlaps.
absl::Status CheckCoverage(const std::string& path,
                           const std::vector<SafetensorsEntry>& entries,
                           int64_t data_bytes) {
  std::vector<const SafetensorsEntry*> order;
  order.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::make_pair(a->begin, a->end) < std::make_pair(b->begin, b->end);
  });
  int64_t covered = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i]->begin < covered) {
      return absl::InvalidArgumentError(
          absl::StrCat(TensorText(path, order[i]->name), " overlaps tensor ",
                       QuoteForMessage(order[i - 1]->name)));
    }
    if (order[i]->begin > covered) {
      return absl::InvalidArgumentError(
          absl::StrCat(TensorText(path, order[i]->name), " starts at byte ",
                       order[i]->begin, ", but the data before it ends at ",
                       covered, "; gaps are not allowed"));
    }
    covered = order[i]->end;
  }
  if (covered != data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", data_bytes - covered,
                     " bytes at the end belong to no tensor"));
  }
  return absl::OkStatus();
}

// Splits the file into the header's text and the data behind it.
absl::StatusOr<absl::string_view> HeaderText(
    const std::string& path, absl::Span<const std::byte> bytes) {
  uint64_t length = 0;
  if (bytes.size() < sizeof(length)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " has ", bytes.size(), " bytes, too few for a safetensors file"));
  }
  std::memcpy(&length, bytes.data(), sizeof(length));
  const uint64_t rest = bytes.size() - sizeof(length);
  if (length == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": bad safetensors header: its length is 0"));
  }
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": bad safetensors header: a length of ", length,
        " bytes is above the limit of ", kMaxSafetensorsHeaderBytes,
        "; is this a safetensors file?"));
  }
  if (length > rest) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": bad safetensors header: a length of ", length,
        " bytes, but the file ends after ", rest, "; it may be truncated"));
  }
  return absl::string_view(
      reinterpret_cast<const char*>(bytes.data()) + sizeof(length), length);
}

absl::StatusOr<std::unique_ptr<TensorSource>> Read(
    const std::string& path, std::shared_ptr<const MappedFile> file,
    absl::Span<const std::byte> bytes) {
  absl::StatusOr<absl::string_view> text = HeaderText(path, bytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<SafetensorsHeader> header =
      ParseSafetensorsHeader(path, *text);
  if (!header.ok()) return header.status();

  const absl::Span<const std::byte> data =
      bytes.subspan(sizeof(uint64_t) + text->size());
  std::vector<std::pair<std::string, Record>> records;
  records.reserve(header->tensors.size());
  for (const SafetensorsEntry& entry : header->tensors) {
    absl::StatusOr<Record> record = MakeRecord(path, entry, data);
    if (!record.ok()) return record.status();
    records.emplace_back(entry.name, *std::move(record));
  }
  if (absl::Status status = CheckCoverage(path, header->tensors, data.size());
      !status.ok()) {
    return status;
  }
  NameIndex<Record> index;
  // The header parser has refused names that stand twice.
  CHECK(!index.Build(std::move(records)).has_value());
  return std::make_unique<SafetensorsFile>(path, std::move(file),
                                           std::move(index));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(
    const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file =
      MappedFile::Open(path);
  if (!file.ok()) return file.status();
  return Read(path, *file, (*file)->bytes());
}

absl::StatusOr<std::unique_ptr<TensorSource>> ParseSafetensors(
    const std::string& path, absl::Span<const std::byte> bytes) {
  return Read(path, nullptr, bytes);
}

}  // namespace nibble
