// Builds packed files for tests, sound ones and broken ones.
//
//   PackedManifest manifest;
//   AddPlain(&manifest, "a", {2}, /*offset=*/4096);
//   std::string bytes = NibBytes(manifest, std::string(8, '\0'));
//   bytes = WithHeader(bytes, [](PackedHeader& h) { h.version = 7; });
#ifndef NIBBLE_TENSOR_IO_PACKED_TEST_FILES_H_
#define NIBBLE_TENSOR_IO_PACKED_TEST_FILES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_header.h"
#include "tensor/io/packed_manifest.pb.h"

namespace nibble::testing {

// Entries with a range that may be true or not; the checksum is that of as many
// zero bytes.
PackedManifest::TensorEntry* AddPlain(PackedManifest* manifest,
                                      absl::string_view name,
                                      const std::vector<int64_t>& dims,
                                      uint64_t offset);
PackedManifest::TensorEntry* AddPacked(PackedManifest* manifest,
                                       absl::string_view name,
                                       const PackedLayout& layout,
                                       uint64_t offset);
PackedManifest::FileEntry* AddFile(PackedManifest* manifest,
                                   absl::string_view name, uint64_t bytes,
                                   uint64_t offset);

// Header and manifest with the right checksums, zeros up to a multiple of 4096,
// and `data`.
std::string NibBytes(const PackedManifest& manifest, absl::string_view data);
// The same around a manifest that is any bytes.
std::string NibBytes(absl::string_view manifest, absl::string_view data);

// `bytes` with another header, which is signed again.
std::string WithHeader(std::string bytes,
                       absl::FunctionRef<void(PackedHeader&)> change);

// A sound small file with an embedded file, a plain tensor, and matrices of
// INT4 and bf16.
std::string SmallNib();
// Another with INT4 matrices that have minimums, one with f32 scales, INT8, and
// an input order.
std::string OrderedNib();
// The bytes of either behind the first page.
inline constexpr size_t kSmallNibDataBytes = 3 * kPackedAlignment + 128;

// Bytes whose values are finite in any float type.
std::string FiniteBytes(size_t count, uint32_t seed);

}  // namespace nibble::testing

#endif  // NIBBLE_TENSOR_IO_PACKED_TEST_FILES_H_
