// A matrix of codes from a quantized checkpoint as blocks of GGUF.
//
//   absl::StatusOr<std::optional<CodedBlocks>> coded =
//       CodedBlocks::Find(tensors, part);
//   if (!coded.ok()) return coded.status();
//   if (*coded) dtype = (*coded)->Survey();   // q4_0, q4_1 or q8_0
//   (*coded)->Encode(dtype, 0, 64, [&](int64_t row) { return bytes_of(row); });
//
// Every weight keeps its value exactly, or there is an error.
#ifndef NIBBLE_QUANTIZATION_EXPORT_CODED_BLOCKS_H_
#define NIBBLE_QUANTIZATION_EXPORT_CODED_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "quantization/export/gguf_plan.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

class CodedBlocks {
 public:
  // nullopt: no row of the part is coded. InvalidArgument, naming file and
  // tensor: only some are; groups that are not whole blocks of 32; inputs in
  // another order (act-order), for which GGUF has no word.
  static absl::StatusOr<std::optional<CodedBlocks>> Find(
      const TensorSource& tensors, const GgufPart& part);

  int64_t stored_bytes() const { return stored_bytes_; }

  // Reads all scales and finds the smallest type that holds every weight:
  // q4_0, q4_1, q8_0. InvalidArgument: none does, because a scale is no f16
  // number (or not finite), or codes of 8 bits have zeros other than 128.
  absl::StatusOr<DType> Survey() const;

  // Rows [first, first + count) of the part's sources, each into the
  // GgufRowBytes(dtype, inputs) bytes that `out` gives for it.
  // REQUIRES: `dtype` came from Survey.
  void Encode(DType dtype, int64_t first, int64_t count,
              absl::FunctionRef<absl::Span<std::byte>(int64_t row)> out) const;

 private:
  struct Source {
    std::string tensor;
    const CodedMatrix* matrix = nullptr;
    int64_t first_row = 0;
    int64_t end = 0;  // the row behind its last one, of the part
    int64_t rows = 0;
  };
  // Rows as read, with one scale and offset a block.
  struct Rows {
    std::vector<uint8_t> codes;  // [rows, inputs]
    std::vector<float> scales;   // [rows, blocks]
    std::vector<float> offsets;  // [rows, blocks]: zeros, or minimums
  };

  explicit CodedBlocks(const TensorSource& tensors) : tensors_(&tensors) {}

  absl::Status Add(const RowRange& range);
  const Source& SourceOf(int64_t row) const;
  Rows Read(const Source& source, int64_t first, int64_t count) const;
  absl::Status Error(const Source& source, absl::string_view what) const;

  const TensorSource* tensors_;
  std::vector<Source> sources_;
  int64_t stored_bytes_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_CODED_BLOCKS_H_
