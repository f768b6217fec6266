// The first 64 bytes of a .nib file: docs/packed_format.md draws them.
//
//   absl::StatusOr<PackedHeader> header = ReadPackedHeader(bytes);
//   bytes.subspan(header->manifest_offset, header->manifest_bytes);
#ifndef NIBBLE_TENSOR_IO_PACKED_HEADER_H_
#define NIBBLE_TENSOR_IO_PACKED_HEADER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nibble {

// A name that no text file has: the SUB and the line feed also tell when a file
// was cut or converted as text.
inline constexpr std::array<char, 8> kPackedMagic = {'N', 'I', 'B',  'B',
                                                     'L', 'E', 0x1A, '\n'};
inline constexpr uint32_t kPackedVersion = 1;

// Parts of the file start at multiples of it. It is the smallest page in use,
// so that each part can be advised, locked or read past the page cache without
// touching its neighbours, and a multiple of the 64 bytes that the kernels'
// loads and tiles need.
inline constexpr uint64_t kPackedAlignment = 4096;

// 13 tensors of a layer take about 1 kB, so this is thousands of layers. What a
// hostile manifest of this size unfolds to stays under 300 MB.
inline constexpr uint64_t kMaxPackedManifestBytes = uint64_t{4} << 20;

// As it stands in the file, little-endian.
struct PackedHeader {
  std::array<char, 8> magic = kPackedMagic;
  uint32_t version = kPackedVersion;
  uint32_t flags = 0;  // None is defined.
  uint64_t manifest_offset = 64;
  uint64_t manifest_bytes = 0;
  uint64_t file_bytes = 0;
  uint32_t manifest_checksum = 0;  // CRC-32C
  uint32_t reserved[4] = {};       // Zero.
  uint32_t header_checksum = 0;    // CRC-32C of the 60 bytes before
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "numbers are used as they stand in the file");
static_assert(sizeof(PackedHeader) == 64);
static_assert(offsetof(PackedHeader, magic) == 0);
static_assert(offsetof(PackedHeader, version) == 8);
static_assert(offsetof(PackedHeader, flags) == 12);
static_assert(offsetof(PackedHeader, manifest_offset) == 16);
static_assert(offsetof(PackedHeader, manifest_bytes) == 24);
static_assert(offsetof(PackedHeader, file_bytes) == 32);
static_assert(offsetof(PackedHeader, manifest_checksum) == 40);
static_assert(offsetof(PackedHeader, reserved) == 44);
static_assert(offsetof(PackedHeader, header_checksum) == 60);

// The first multiple of kPackedAlignment that is not below `offset`.
// REQUIRES: offset <= 2^63.
constexpr uint64_t AlignPackedOffset(uint64_t offset) {
  return (offset + kPackedAlignment - 1) & ~(kPackedAlignment - 1);
}

// The CRC that header_checksum has to be.
uint32_t PackedHeaderChecksum(const PackedHeader& header);

// The checked header of a file with these bytes; manifest_checksum is left to
// compare. Errors do not name the file: InvalidArgument, DataLoss, or
// Unimplemented for another version.
absl::StatusOr<PackedHeader> ReadPackedHeader(
    absl::Span<const std::byte> bytes);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_PACKED_HEADER_H_
