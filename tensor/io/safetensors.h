// Reads and writes safetensors files, the format of Hugging Face checkpoints.
//
//   auto weights = OpenSafetensorsFolder("path/to/checkpoint");
//   if (!weights.ok()) return weights.status();
//   absl::StatusOr<TensorView> norm = (*weights)->Find("model.norm.weight");
//
// The file (https://github.com/huggingface/safetensors):
//
//   u64 n, little-endian | n bytes of JSON | the tensors' bytes
//
//   {"__metadata__": {"format": "pt"},
//    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
//
// with offsets counted from the end of the JSON. Everything is checked when the
// file opens: the header is at most 100 MB of JSON of the depth above, with no
// name or field twice; every range lies inside the file, has exactly the bytes
// of its dtype and shape, and overlaps no other. Bytes that belong to no tensor
// are refused too: the format does not allow them, and they mean that the file
// is not what its header says.
//
// A tensor that is not aligned for its dtype (the format does not ask for it)
// is copied into memory of its own when it is first asked for; all others are
// views of the mapped file. A dtype that nibble does not have (U16, F8_E4M3) is
// an error only when that tensor is asked for.
#ifndef NIBBLE_TENSOR_IO_SAFETENSORS_H_
#define NIBBLE_TENSOR_IO_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {

// One file.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(
    const std::string& path);

// The checkpoint in a folder: model.safetensors, or else the shards that
// model.safetensors.index.json names. Shards must lie in the folder itself
// (their names hold no path separator), and hold what the index says they do.
// Tensors of a shard that the index does not name are refused.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensorsFolder(
    const std::string& dir);

// Reads a file that is already in memory; `path` is its name in messages.
// `bytes` must outlive the source.
absl::StatusOr<std::unique_ptr<TensorSource>> ParseSafetensors(
    const std::string& path, absl::Span<const std::byte> bytes);

struct NamedTensor {
  std::string name;
  TensorView view;
};

// Writes `tensors` to `path`, replacing what was there. Readers see the old
// file or the whole new one, never a part: the bytes go to a temporary file
// beside it, are flushed to the disk, and are then renamed. On any error (disk
// full, no permission) the temporary file is removed and `path` is as it was.
// Tensors are ordered by the alignment of their dtype, largest first, and
// otherwise as given, so that every one of them can be mapped in place.
// InvalidArgument for a name twice, a name or metadata that is not UTF-8, and a
// dtype that the format lacks (the quantized ones).
absl::Status WriteSafetensors(
    const std::string& path, absl::Span<const NamedTensor> tensors,
    const std::map<std::string, std::string>& metadata = {});

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_SAFETENSORS_H_
