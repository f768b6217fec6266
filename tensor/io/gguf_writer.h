// Writes GGUF files, version 3: the metadata and the list of tensors first,
// then the tensors' bytes as they are made.
//
//   GgufMetadata metadata;
//   metadata.String("general.architecture", "llama").U32("llama.block_count",
//   6); absl::StatusOr<GgufWriter> writer = GgufWriter::Create(
//       "model.gguf", metadata, {{"output_norm.weight", DType::kF32, {256}}});
//   if (!writer.ok()) return writer.status();
//   if (auto s = writer->Append(bytes); !s.ok()) return s;  // in any pieces
//   return writer->Commit();
//
// The layout is drawn in tensor/io/gguf.h. Data is aligned to 32 bytes. The
// file appears whole or not at all (tensor/io/atomic_file.h).
#ifndef NIBBLE_TENSOR_IO_GGUF_WRITER_H_
#define NIBBLE_TENSOR_IO_GGUF_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/dtype.h"
#include "tensor/io/atomic_file.h"
#include "tensor/io/gguf.h"
#include "tensor/shape.h"

namespace nibble {

// Keys and values in the order they are given. A key twice is the caller's
// mistake, which Create reports.
class GgufMetadata {
 public:
  GgufMetadata& String(absl::string_view key, absl::string_view value);
  GgufMetadata& U32(absl::string_view key, uint32_t value);
  GgufMetadata& F32(absl::string_view key, float value);
  GgufMetadata& Bool(absl::string_view key, bool value);
  GgufMetadata& Strings(absl::string_view key,
                        absl::Span<const std::string> values);
  GgufMetadata& I32s(absl::string_view key, absl::Span<const int32_t> values);
  GgufMetadata& F32s(absl::string_view key, absl::Span<const float> values);

  // The keys of another file with their values as they stand there, without
  // those of `except`.
  GgufMetadata& CopyOf(const GgufFile& file,
                       absl::Span<const absl::string_view> except);

  const std::vector<std::string>& keys() const { return keys_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void Key(absl::string_view key, uint32_t type);

  std::vector<std::string> keys_;
  std::string bytes_;
};

struct GgufTensorPlan {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;  // outermost first, as everywhere here
};

class GgufWriter {
 public:
  // Begins the file and takes room for it on the disk. InvalidArgument for a
  // name or key twice, a dtype that GGUF lacks, a row that is not a whole
  // number of blocks; ResourceExhausted when the disk is full.
  static absl::StatusOr<GgufWriter> Create(
      const std::string& path, const GgufMetadata& metadata,
      absl::Span<const GgufTensorPlan> tensors);

  // The next bytes of the tensors, in the order of the plan; a piece may end
  // anywhere. REQUIRES: not more than the plan has.
  absl::Status Append(absl::Span<const std::byte> bytes);

  // REQUIRES: all bytes of all tensors have been given.
  absl::Status Commit();

 private:
  GgufWriter(AtomicFile file, std::vector<int64_t> sizes)
      : file_(std::move(file)), sizes_(std::move(sizes)) {}

  // Zeros up to the next tensor.
  absl::Status Pad();

  AtomicFile file_;
  std::vector<int64_t> sizes_;  // bytes of each tensor
  size_t tensor_ = 0;           // the one being written,
  int64_t written_ = 0;         // and how much of it is
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_GGUF_WRITER_H_
