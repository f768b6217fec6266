// Named tensors from somewhere: one file, several shards, memory.
//
//   for (const std::string& name : source.names()) {
//     absl::StatusOr<TensorView> tensor = source.Find(name);
//     if (!tensor.ok()) return tensor.status();  // names file and tensor
//   }
//
// Every view a source hands out lies wholly inside its file, has as many bytes
// as its dtype and shape say, is aligned for its dtype, and lives as long as
// the source. Sources are immutable and may be read from several threads.
#ifndef NIBBLE_TENSOR_IO_TENSOR_SOURCE_H_
#define NIBBLE_TENSOR_IO_TENSOR_SOURCE_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"

namespace nibble {

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // What to call the source in messages: the path of its file or index.
  virtual const std::string& path() const = 0;

  // Sorted. Includes tensors whose type Find refuses.
  virtual const std::vector<std::string>& names() const = 0;

  virtual bool Contains(absl::string_view name) const = 0;

  // NotFound when there is no such tensor; Unimplemented, with the type's name,
  // when its type is not one of DType. Both name the file and the tensor.
  virtual absl::StatusOr<TensorView> Find(absl::string_view name) const = 0;

  // The tensor as codes, where it is a matrix stored in a form that CodedMatrix
  // covers; otherwise null. Some sources can hand out such a tensor in its
  // stored form too (GGUF's blocks); for others Find refuses it. Lives as long
  // as the source.
  virtual const CodedMatrix* FindCoded(absl::string_view name) const {
    static_cast<void>(name);
    return nullptr;
  }

  // Aborted when a file behind the source was truncated or written to since it
  // was opened, so that what was read may be wrong: see tensor/mapped_file.h.
  // Call it after a long load.
  virtual absl::Status CheckUnchanged() const { return absl::OkStatus(); }

  // `range`, a part of a view from here, was read and takes up no more memory
  // until it is read again. Does nothing where there is no file behind it.
  virtual void Release(absl::Span<const std::byte> range) const {
    static_cast<void>(range);
  }
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_TENSOR_SOURCE_H_
