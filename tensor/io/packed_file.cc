// Opens packed files: every number of the manifest is checked here.
#include "tensor/io/packed_file.h"

#include <optional>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "tensor/buffer.h"
#include "tensor/io/checksum.h"
#include "tensor/io/error_text.h"
#include "tensor/io/packed_header.h"

namespace nibble {
namespace {

// `status` with what it is about in front.
absl::Status About(absl::string_view what, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, status.message()));
}

absl::Status StandsTwice(absl::string_view what, absl::string_view name) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " ", QuoteForMessage(name), " stands twice"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const PackedFile>> PackedFile::Open(
    const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> mapped =
      MappedFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  std::shared_ptr<PackedFile> file(new PackedFile(path));
  if (absl::Status status = file->Read((*mapped)->bytes()); !status.ok()) {
    return About(absl::StrCat(path, ": "), status);
  }
  file->file_ = *std::move(mapped);
  return file;
}

absl::StatusOr<std::shared_ptr<const PackedFile>> PackedFile::Parse(
    const std::string& path, absl::Span<const std::byte> bytes) {
  CHECK_EQ(
      reinterpret_cast<uintptr_t>(bytes.data()) % AlignedBuffer::kAlignment,
      0u);
  std::shared_ptr<PackedFile> file(new PackedFile(path));
  if (absl::Status status = file->Read(bytes); !status.ok()) {
    return About(absl::StrCat(path, ": "), status);
  }
  return file;
}

absl::Status PackedFile::Read(absl::Span<const std::byte> bytes) {
  const absl::StatusOr<PackedHeader> header = ReadPackedHeader(bytes);
  if (!header.ok()) return header.status();
  const absl::Span<const std::byte> manifest =
      bytes.subspan(header->manifest_offset, header->manifest_bytes);
  if (Crc32c(manifest) != header->manifest_checksum) {
    return absl::DataLossError(
        "the manifest is damaged: its checksum does not match");
  }
  if (!manifest_.ParseFromArray(manifest.data(),
                                static_cast<int>(manifest.size()))) {
    return absl::InvalidArgumentError("the manifest cannot be parsed");
  }
  end_ = header->manifest_offset + header->manifest_bytes;
  parts_.reserve(static_cast<size_t>(manifest_.files_size()) +
                 static_cast<size_t>(manifest_.tensors_size()));
  if (absl::Status status = ReadFiles(bytes); !status.ok()) return status;
  if (absl::Status status = ReadTensors(bytes); !status.ok()) return status;
  if (end_ != bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the last part ends at byte ", end_, " of ", bytes.size(),
                     "; what follows belongs to nothing"));
  }
  return absl::OkStatus();
}

absl::Status PackedFile::ReadFiles(absl::Span<const std::byte> bytes) {
  std::vector<std::pair<std::string, size_t>> files;
  files.reserve(static_cast<size_t>(manifest_.files_size()));
  for (const PackedManifest::FileEntry& entry : manifest_.files()) {
    Part part;
    part.name = &entry.name();
    const std::string text = PartText(part);
    absl::Status status = CheckPackedFileName(entry.name());
    if (status.ok() && entry.range().bytes() == 0) {
      status = absl::InvalidArgumentError("has no bytes");
    }
    part.bytes = entry.range().bytes();
    if (status.ok()) status = AddPart(part, entry.range(), bytes);
    if (!status.ok()) return About(absl::StrCat(text, " "), status);
    files.emplace_back(entry.name(), parts_.size() - 1);
  }
  const std::optional<std::string> twice = files_.Build(std::move(files));
  return twice.has_value() ? StandsTwice("file", *twice) : absl::OkStatus();
}

absl::Status PackedFile::ReadTensors(absl::Span<const std::byte> bytes) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  tensors.reserve(static_cast<size_t>(manifest_.tensors_size()));
  for (const PackedManifest::TensorEntry& entry : manifest_.tensors()) {
    Part part;
    part.name = &entry.name();
    part.is_tensor = true;
    const auto error = [&](const absl::Status& status) {
      return About(absl::StrCat(PartText(part), " "), status);
    };
    absl::Status status = CheckPackedName(entry.name());
    if (!status.ok()) return error(status);
    absl::StatusOr<PackedKind> kind = ReadPackedEntry(entry);
    if (!kind.ok()) return error(kind.status());
    const absl::StatusOr<int64_t> needed = PackedKindBytes(*kind);
    if (!needed.ok()) return error(needed.status());
    part.bytes = static_cast<size_t>(*needed);
    status = AddPart(part, entry.range(), bytes);
    if (!status.ok()) return error(status);
    tensors.emplace_back(entry.name(),
                         Tensor{*std::move(kind), parts_.size() - 1});
  }
  const std::optional<std::string> twice = tensors_.Build(std::move(tensors));
  return twice.has_value() ? StandsTwice("tensor", *twice) : absl::OkStatus();
}

// `part.bytes` is what its kind needs; the rest comes from `range`.
absl::Status PackedFile::AddPart(Part part, const PackedManifest::Range& range,
                                 absl::Span<const std::byte> bytes) {
  const auto error = [](auto... texts) {
    return absl::InvalidArgumentError(absl::StrCat(texts...));
  };
  if (!range.has_offset() || !range.has_bytes() || !range.has_checksum()) {
    return error("has no place in the file, or no checksum");
  }
  if (range.bytes() != part.bytes) {
    return error("has ", range.bytes(), " bytes, but its format needs ",
                 part.bytes);
  }
  if (range.offset() % kPackedAlignment != 0) {
    return error("starts at byte ", range.offset(),
                 ", which is no multiple of ", kPackedAlignment);
  }
  if (range.offset() > bytes.size() ||
      range.bytes() > bytes.size() - range.offset()) {
    return error("needs ", range.bytes(), " bytes from byte ", range.offset(),
                 " of a file of ", bytes.size());
  }
  if (range.offset() < end_) {
    return error("starts at byte ", range.offset(), ", but ",
                 parts_.empty() ? "the manifest" : PartText(parts_.back()),
                 " ends at ", end_);
  }
  if (range.offset() != AlignPackedOffset(end_)) {
    return error("starts at byte ", range.offset(), " instead of ",
                 AlignPackedOffset(end_), ", which leaves a gap");
  }
  part.data = bytes.data() + range.offset();
  part.gap = range.offset() - end_;
  part.checksum = range.checksum();
  parts_.push_back(part);
  end_ = range.offset() + range.bytes();
  return absl::OkStatus();
}

std::string PackedFile::PartText(const Part& part) {
  return absl::StrCat(part.is_tensor ? "tensor " : "file ",
                      QuoteForMessage(*part.name));
}

absl::StatusOr<const PackedFile::Tensor*> PackedFile::FindTensor(
    absl::string_view name) const {
  const Tensor* tensor = tensors_.Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(path_, ": there is no tensor ", QuoteForMessage(name)));
  }
  return tensor;
}

absl::StatusOr<TensorView> PackedFile::Find(absl::string_view name) const {
  const absl::StatusOr<const Tensor*> tensor = FindTensor(name);
  if (!tensor.ok()) return tensor.status();
  if (const auto* layout = std::get_if<PackedLayout>(&(*tensor)->kind)) {
    return absl::UnimplementedError(absl::StrCat(
        path_, ": tensor ", QuoteForMessage(name), " is packed as ",
        WeightFormatName(layout->format), ", not a plain tensor"));
  }
  const auto& plain = std::get<PlainTensor>((*tensor)->kind);
  const Part& part = parts_[(*tensor)->part];
  return TensorView{plain.dtype, plain.shape, part.data, part.bytes};
}

bool PackedFile::IsPacked(absl::string_view name) const {
  const Tensor* tensor = tensors_.Find(name);
  return tensor != nullptr &&
         std::holds_alternative<PackedLayout>(tensor->kind);
}

absl::StatusOr<PackedTensor> PackedFile::FindPacked(
    absl::string_view name) const {
  const absl::StatusOr<const Tensor*> tensor = FindTensor(name);
  if (!tensor.ok()) return tensor.status();
  const auto* layout = std::get_if<PackedLayout>(&(*tensor)->kind);
  if (layout == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": tensor ", QuoteForMessage(name),
                     " is a plain tensor; a packed matrix is needed"));
  }
  return PackedTensor{*layout, parts_[(*tensor)->part].data};
}

absl::StatusOr<absl::string_view> PackedFile::FindFile(
    absl::string_view name) const {
  const size_t* part = files_.Find(name);
  if (part == nullptr) {
    return absl::NotFoundError(absl::StrCat(path_, ": there is no file ",
                                            QuoteForMessage(name), " in it"));
  }
  return absl::string_view(reinterpret_cast<const char*>(parts_[*part].data),
                           parts_[*part].bytes);
}

}  // namespace nibble
