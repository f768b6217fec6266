#include "tensor/io/packed_header.h"

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tensor/io/checksum.h"

namespace nibble {
namespace {

template <class... Texts>
absl::Status Invalid(const Texts&... texts) {
  return absl::InvalidArgumentError(absl::StrCat(texts...));
}

// What a sound header of this version has to say about a file of `size` bytes.
absl::Status CheckFields(const PackedHeader& header, uint64_t size) {
  if (header.flags != 0) {
    return absl::UnimplementedError(absl::StrCat(
        "the header has flags ", header.flags, ", which are not supported"));
  }
  if (std::any_of(std::begin(header.reserved), std::end(header.reserved),
                  [](uint32_t word) { return word != 0; })) {
    return Invalid("the header's reserved bytes are not zero");
  }
  if (header.manifest_offset != sizeof(PackedHeader)) {
    return Invalid("the header says that the manifest starts at byte ",
                   header.manifest_offset, "; it must be ",
                   sizeof(PackedHeader));
  }
  if (header.file_bytes != size) {
    return Invalid(
        "the header says that the file has ", header.file_bytes,
        " bytes, but it has ", size,
        size < header.file_bytes ? "; it is truncated" : "; it was extended");
  }
  if (header.manifest_bytes > kMaxPackedManifestBytes) {
    return Invalid("the header says that the manifest has ",
                   header.manifest_bytes, " bytes, above the limit of ",
                   kMaxPackedManifestBytes);
  }
  if (header.manifest_bytes > size - sizeof(PackedHeader)) {
    return Invalid("the header says that the manifest has ",
                   header.manifest_bytes, " bytes, but only ",
                   size - sizeof(PackedHeader), " follow");
  }
  return absl::OkStatus();
}

}  // namespace

uint32_t PackedHeaderChecksum(const PackedHeader& header) {
  return Crc32c(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&header),
                                    offsetof(PackedHeader, header_checksum)));
}

absl::StatusOr<PackedHeader> ReadPackedHeader(
    absl::Span<const std::byte> bytes) {
  PackedHeader header;
  const size_t compared = std::min(bytes.size(), kPackedMagic.size());
  if (compared > 0 &&
      std::memcmp(bytes.data(), kPackedMagic.data(), compared) != 0) {
    return Invalid("is not a .nib file: it does not start with NIBBLE");
  }
  if (bytes.size() < sizeof(header)) {
    return Invalid("has ", bytes.size(), " bytes, too few for the header of ",
                   sizeof(header), "; it is truncated");
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  // Before the version: the checksum has its place in every version, and a
  // damaged number is no other version.
  if (PackedHeaderChecksum(header) != header.header_checksum) {
    return absl::DataLossError(
        "the header is damaged: its checksum does not match");
  }
  if (header.version != kPackedVersion) {
    return absl::UnimplementedError(absl::StrCat(
        "is version ", header.version,
        " of the packed format, and this program reads version ",
        kPackedVersion, "; quantize the model again, or use the program's ",
        header.version < kPackedVersion ? "older" : "newer", " release"));
  }
  if (absl::Status status = CheckFields(header, bytes.size()); !status.ok()) {
    return status;
  }
  return header;
}

}  // namespace nibble
