// CRC-32C (Castagnoli), the checksum of packed files, at the speed of memory.
//
//   uint32_t crc = Crc32c(first);
//   crc = ExtendCrc32c(crc, second);   // of first and second together
//   // The same from parts that were summed apart, on other threads:
//   crc = ConcatCrc32c(Crc32c(first), Crc32c(second), second.size());
//
// The CRC of no bytes is 0, that of "123456789" 0xE3069283 (RFC 3720).
#ifndef NIBBLE_TENSOR_IO_CHECKSUM_H_
#define NIBBLE_TENSOR_IO_CHECKSUM_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace nibble {

// The CRC of a text whose CRC is `crc` with `bytes` behind it.
uint32_t ExtendCrc32c(uint32_t crc, absl::Span<const std::byte> bytes);

inline uint32_t Crc32c(absl::Span<const std::byte> bytes) {
  return ExtendCrc32c(0, bytes);
}

// The CRC of two texts, one behind the other. Takes O(log second_bytes).
uint32_t ConcatCrc32c(uint32_t first, uint32_t second, size_t second_bytes);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_CHECKSUM_H_
