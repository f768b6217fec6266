#include "tensor/io/gguf.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "tensor/buffer.h"
#include "tensor/io/block_matrix.h"
#include "tensor/io/error_text.h"
#include "tensor/io/gguf_tensor_type.h"

namespace nibble {
namespace {

constexpr absl::string_view kMagic = "GGUF";
constexpr uint64_t kDefaultAlignment = 32;
// The largest page size in use: a larger alignment could help nobody.
constexpr uint64_t kMaxAlignment = 65536;
// The format's limit for keys. Tensor names, in practice at most 64 bytes, are
// held to the same.
constexpr uint64_t kMaxNameBytes = 65535;
// The shortest pair: a key of no bytes, a type, a value of one byte.
constexpr uint64_t kLeastPairBytes = 8 + 4 + 1;
// The shortest tensor: a name of no bytes, rank, one dimension, type, offset.
constexpr uint64_t kLeastTensorBytes = 8 + 4 + 8 + 4 + 8;
// Far above what models have (some dozens of keys, some thousands of tensors),
// and small enough that the records of a hostile file fit any memory.
constexpr uint64_t kMaxPairs = 100'000;
constexpr uint64_t kMaxTensors = 1'000'000;

// What a tensor's record in the file says.
struct TensorInfo {
  std::string name;
  std::vector<int64_t> dims;  // Outermost first.
  uint32_t type = 0;
  uint64_t offset = 0;  // From the start of the tensors' bytes.
};

absl::StatusOr<TensorInfo> ReadTensorInfo(ByteReader& reader) {
  TensorInfo info;
  absl::string_view name;
  const auto error = [](auto... what) {
    return absl::InvalidArgumentError(absl::StrCat(what...));
  };
  if (!reader.ReadString(kMaxNameBytes, &name)) {
    return error("has a name past the end of the file or above ", kMaxNameBytes,
                 " bytes");
  }
  info.name = std::string(name);
  const std::string quoted = QuoteForMessage(name);
  uint32_t rank = 0;
  if (!reader.Read(&rank)) return error(quoted, " is cut off");
  if (rank < 1 || rank > Shape::kMaxRank) {
    return error(quoted, " has ", rank, " dimensions; 1 to ", Shape::kMaxRank,
                 " are supported");
  }
  info.dims.resize(rank);
  for (uint32_t i = rank; i > 0; --i) {  // Innermost first in the file.
    uint64_t dim = 0;
    if (!reader.Read(&dim)) return error(quoted, " is cut off");
    if (dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return error(quoted, " has a dimension of ", dim);
    }
    info.dims[i - 1] = static_cast<int64_t>(dim);
  }
  if (!reader.Read(&info.type) || !reader.Read(&info.offset)) {
    return error(quoted, " is cut off");
  }
  return info;
}

// Checks a tensor against the `data` that follows the records. The view has no
// data when the type is not supported, since its size is then not known.
absl::StatusOr<TensorView> PlaceTensor(const TensorInfo& info,
                                       uint64_t alignment,
                                       absl::Span<const std::byte> data) {
  const auto error = [&](auto... what) {
    return absl::InvalidArgumentError(
        absl::StrCat(QuoteForMessage(info.name), " ", what...));
  };
  if (info.offset % alignment != 0) {
    return error("starts at ", info.offset,
                 ", which is no multiple of the alignment ", alignment);
  }
  if (info.offset > data.size()) {
    return error("starts at byte ", info.offset, " of ", data.size(),
                 " bytes of data; the file may be truncated");
  }
  absl::StatusOr<Shape> shape = Shape::Create(info.dims);
  if (!shape.ok()) return error("is bad: ", shape.status().message());
  TensorView view;
  view.shape = *shape;
  const std::optional<DType> dtype = GgufTensorDType(info.type);
  if (!dtype.has_value()) return view;

  absl::StatusOr<int64_t> bytes = TensorBytes(*dtype, *shape);
  if (!bytes.ok()) return error("is bad: ", bytes.status().message());
  if (static_cast<uint64_t>(*bytes) > data.size() - info.offset) {
    return error("needs ", *bytes, " bytes from byte ", info.offset, " of ",
                 data.size(), " bytes of data; the file may be truncated");
  }
  view.dtype = *dtype;
  view.data = data.data() + info.offset;
  view.bytes = static_cast<size_t>(*bytes);
  return view;
}

// Checks a count before anything is allocated for it.
absl::Status CheckCount(uint64_t count, absl::string_view what, uint64_t most,
                        uint64_t least_bytes, const ByteReader& reader) {
  if (count > reader.remaining() / least_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("says it has ", count, " ", what, ", but only ",
                     reader.remaining(), " bytes follow"));
  }
  if (count > most) {
    return absl::InvalidArgumentError(absl::StrCat(
        "says it has ", count, " ", what, ", above the limit of ", most));
  }
  return absl::OkStatus();
}

absl::Status CheckMagic(absl::string_view magic) {
  if (magic == kMagic) return absl::OkStatus();
  // Stored as little-endian words, so that they read backwards.
  if (magic == "tjgg" || magic == "lmgg" || magic == "algg" ||
      magic == "fmgg") {
    return absl::UnimplementedError(
        "is a GGML file from before GGUF; convert it to GGUF");
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "is not a GGUF file: it starts with ", QuoteForMessage(magic)));
}

absl::Status CheckVersion(uint32_t version) {
  if (version == 2 || version == 3) return absl::OkStatus();
  if (version != 0 && (version & 0xFFFF) == 0) {
    return absl::UnimplementedError(
        "is a big-endian GGUF file; convert it to little-endian");
  }
  return absl::UnimplementedError(
      absl::StrCat("is GGUF version ", version, "; 2 and 3 are supported"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(
    const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> mapped =
      MappedFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  absl::StatusOr<std::unique_ptr<GgufFile>> file =
      Parse(path, (*mapped)->bytes());
  if (file.ok()) (*file)->file_ = *std::move(mapped);
  return file;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Parse(
    const std::string& path, absl::Span<const std::byte> bytes) {
  CHECK_EQ(
      reinterpret_cast<uintptr_t>(bytes.data()) % AlignedBuffer::kAlignment,
      0u);
  std::unique_ptr<GgufFile> file(new GgufFile(path));
  if (absl::Status status = file->Read(bytes); !status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(path, ": ", status.message()));
  }
  return file;
}

absl::Status GgufFile::Read(absl::Span<const std::byte> bytes) {
  ByteReader reader(bytes);
  absl::Span<const std::byte> magic;
  uint64_t tensors = 0, pairs = 0;
  if (!reader.ReadBytes(kMagic.size(), &magic)) {
    return absl::InvalidArgumentError(
        "is not a GGUF file: it has fewer than 4 bytes");
  }
  absl::Status status = CheckMagic(absl::string_view(
      reinterpret_cast<const char*>(magic.data()), magic.size()));
  if (!status.ok()) return status;
  if (!reader.Read(&version_)) {
    return absl::InvalidArgumentError("the GGUF header is cut off");
  }
  if (status = CheckVersion(version_); !status.ok()) return status;
  if (!reader.Read(&tensors) || !reader.Read(&pairs)) {
    return absl::InvalidArgumentError("the GGUF header is cut off");
  }
  if (status = ReadMetadata(reader, pairs); !status.ok()) return status;
  head_ = bytes.first(reader.position());
  return ReadTensors(reader, tensors, bytes);
}

absl::Status GgufFile::ReadMetadata(ByteReader& reader, uint64_t count) {
  absl::Status status =
      CheckCount(count, "metadata keys", kMaxPairs, kLeastPairBytes, reader);
  if (!status.ok()) return status;
  for (uint64_t i = 0; i < count; ++i) {
    absl::string_view key;
    if (!reader.ReadString(kMaxNameBytes, &key)) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key ", i, " of ", count,
                       " goes past the end of the file or is above ",
                       kMaxNameBytes, " bytes"));
    }
    absl::StatusOr<GgufValue> value = GgufValue::Read(reader);
    if (!value.ok()) {
      return absl::Status(value.status().code(),
                          absl::StrCat("metadata ", QuoteForMessage(key), " ",
                                       value.status().message()));
    }
    if (!values_.emplace(std::string(key), *value).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata ", QuoteForMessage(key), " stands twice"));
    }
    keys_.emplace_back(key);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> GgufFile::Alignment() const {
  constexpr absl::string_view kKey = "general.alignment";
  const auto at = values_.find(kKey);
  if (at == values_.end()) return kDefaultAlignment;
  const std::optional<uint64_t> value = at->second.AsUint();
  if (!value.has_value() || *value < 8 || *value > kMaxAlignment ||
      (*value & (*value - 1)) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("metadata '", kKey, "' is ", at->second.Summary(),
                     "; it must be a power of two from 8 to ", kMaxAlignment));
  }
  return *value;
}

absl::Status GgufFile::ReadTensors(ByteReader& reader, uint64_t count,
                                   absl::Span<const std::byte> bytes) {
  const absl::StatusOr<uint64_t> alignment = Alignment();
  if (!alignment.ok()) return alignment.status();
  absl::Status status =
      CheckCount(count, "tensors", kMaxTensors, kLeastTensorBytes, reader);
  if (!status.ok()) return status;
  const auto error = [](absl::string_view what, const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat("tensor ", what, status.message()));
  };
  std::vector<TensorInfo> infos;
  infos.reserve(static_cast<size_t>(count));
  for (uint64_t i = 0; i < count; ++i) {
    absl::StatusOr<TensorInfo> info = ReadTensorInfo(reader);
    if (!info.ok()) {
      return error(absl::StrCat(i, " of ", count, ": "), info.status());
    }
    infos.push_back(*std::move(info));
  }

  if (infos.empty()) return absl::OkStatus();  // The padding may be left out.

  const size_t padding =
      (*alignment - reader.position() % *alignment) % *alignment;
  if (padding > reader.remaining()) {
    return absl::InvalidArgumentError("ends before the tensors' data");
  }
  const absl::Span<const std::byte> data =
      bytes.subspan(reader.position() + padding);
  std::vector<std::pair<std::string, Tensor>> tensors;
  tensors.reserve(infos.size());
  for (TensorInfo& info : infos) {
    absl::StatusOr<TensorView> view = PlaceTensor(info, *alignment, data);
    if (!view.ok()) return error("", view.status());
    tensors.emplace_back(
        std::move(info.name),
        Tensor{info.type, *view, MakeBlockMatrix(*view, *this)});
  }
  if (std::optional<std::string> name = tensors_.Build(std::move(tensors))) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", QuoteForMessage(*name), " stands twice"));
  }
  return CheckNoOverlap();
}

absl::Status GgufFile::CheckNoOverlap() const {
  std::vector<size_t> order;
  for (size_t i = 0; i < tensors_.records().size(); ++i) {
    if (tensors_.records()[i].view.bytes > 0) order.push_back(i);
  }
  const auto view = [&](size_t i) -> const TensorView& {
    return tensors_.records()[order[i]].view;
  };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return tensors_.records()[a].view.data < tensors_.records()[b].view.data;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (view(i).data < view(i - 1).data + view(i - 1).bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", QuoteForMessage(tensors_.names()[order[i]]),
                       " overlaps tensor ",
                       QuoteForMessage(tensors_.names()[order[i - 1]])));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorView> GgufFile::Find(absl::string_view name) const {
  const Tensor* tensor = tensors_.Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(path_, ": there is no tensor ", QuoteForMessage(name)));
  }
  if (!GgufTensorDType(tensor->type).has_value()) {
    return absl::UnimplementedError(absl::StrCat(
        path_, ": tensor ", QuoteForMessage(name), " has type ",
        GgufTensorTypeName(tensor->type), ", which is not supported"));
  }
  return tensor->view;
}

const CodedMatrix* GgufFile::FindCoded(absl::string_view name) const {
  const Tensor* tensor = tensors_.Find(name);
  return tensor == nullptr ? nullptr : tensor->coded.get();
}

absl::StatusOr<std::string> GgufFile::TensorTypeName(
    absl::string_view name) const {
  const Tensor* tensor = tensors_.Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(path_, ": there is no tensor ", QuoteForMessage(name)));
  }
  return GgufTensorTypeName(tensor->type);
}

}  // namespace nibble
