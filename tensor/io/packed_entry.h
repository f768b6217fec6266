// What a tensor of a .nib file is, in the manifest and in memory.
//
//   absl::StatusOr<PackedKind> kind = ReadPackedEntry(manifest.tensors(0));
//   absl::StatusOr<int64_t> bytes = PackedKindBytes(*kind);
#ifndef NIBBLE_TENSOR_IO_PACKED_ENTRY_H_
#define NIBBLE_TENSOR_IO_PACKED_ENTRY_H_

#include <cstdint>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"

namespace nibble {

// A dense row-major tensor of 1 to 4 dimensions, none of them zero.
struct PlainTensor {
  DType dtype = DType::kF32;
  Shape shape;
};

// A matrix for the kernels, or a plain tensor.
using PackedKind = std::variant<PackedLayout, PlainTensor>;

// InvalidArgument for a plain tensor without dimensions or elements, or whose
// size is no number of bytes.
absl::StatusOr<int64_t> PackedKindBytes(const PackedKind& kind);

// Errors of these do not name the tensor.
absl::StatusOr<PackedKind> ReadPackedEntry(
    const PackedManifest::TensorEntry& entry);
void WritePackedEntry(const PackedKind& kind,
                      PackedManifest::TensorEntry* entry);

// The name of a tensor: 1 to 1000 bytes of UTF-8.
absl::Status CheckPackedName(absl::string_view name);
// Of an embedded file: also no '/' and '\', nor "." and "..", since somebody
// may write it to a folder.
absl::Status CheckPackedFileName(absl::string_view name);

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_PACKED_ENTRY_H_
