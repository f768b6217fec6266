// Writes a safetensors file whose tensors need not be in memory together.
//
//   absl::StatusOr<SafetensorsWriter> writer = SafetensorsWriter::Create(
//       "model.safetensors", {{"norm.weight", DType::kF16, {4096}}},
//       {{"format", "pt"}});
//   if (!writer.ok()) return writer.status();
//   if (auto s = writer->Append(bytes); !s.ok()) return s;  // in any pieces
//   return writer->Commit();
//
// The format is drawn in tensor/io/safetensors.h, which also has a function for
// tensors that are in memory. The file appears whole or not at all
// (tensor/io/atomic_file.h).
#ifndef NIBBLE_TENSOR_IO_SAFETENSORS_WRITER_H_
#define NIBBLE_TENSOR_IO_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "tensor/dtype.h"
#include "tensor/io/atomic_file.h"
#include "tensor/shape.h"

namespace nibble {

struct SafetensorsPlan {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
};

class SafetensorsWriter {
 public:
  // Takes room on the disk and writes the header. The data starts at a multiple
  // of 64 bytes; behind that, tensors stand without gaps, as the format wants
  // it: who wants them aligned for mapping gives those of the largest alignment
  // first. InvalidArgument for a name twice, a name or metadata that is not
  // UTF-8, and a dtype that the format lacks (the quantized ones);
  // ResourceExhausted when the disk is full.
  static absl::StatusOr<SafetensorsWriter> Create(
      const std::string& path, absl::Span<const SafetensorsPlan> tensors,
      const std::map<std::string, std::string>& metadata);

  // The next bytes of the tensors, in the order of the plan; a piece may end
  // anywhere.
  absl::Status Append(absl::Span<const std::byte> bytes);

  // REQUIRES: all bytes of all tensors have been given, and no more.
  absl::Status Commit();

 private:
  SafetensorsWriter(AtomicFile file, int64_t bytes)
      : file_(std::move(file)), missing_(bytes) {}

  AtomicFile file_;
  int64_t missing_;  // bytes
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_SAFETENSORS_WRITER_H_
