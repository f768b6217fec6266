// One matrix of a checkpoint on its way into a file: surveyed once, then
// rounded and packed a few records at a time.
//
//   MatrixPacker packer(pool);
//   absl::StatusOr<PackedLayout> layout = packer.Survey(rows, wanted);
//   if (!layout.ok()) return layout.status();      // names file and tensor
//   absl::StatusOr<RoundingLoss> loss = packer.Pack(
//       rows, *layout, [&](absl::Span<const std::byte> bytes) {
//         return writer.Append(bytes);
//       });
//
// Memory beside the mapped input stays below 64 MB for rows of up to a hundred
// thousand weights, however many rows there are; input that was read is
// released.
#ifndef NIBBLE_QUANTIZATION_MATRIX_PACKER_H_
#define NIBBLE_QUANTIZATION_MATRIX_PACKER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/coded_gather.h"
#include "quantization/matrix_rows.h"
#include "quantization/round_to_nearest.h"
#include "tensor/buffer.h"
#include "tensor/packed_layout.h"

namespace nibble {

class MatrixPacker {
 public:
  // Takes the next bytes of the packed matrix. Called from one thread at a
  // time, which need not be the caller's: what is done is written while the
  // next rows are rounded.
  using Sink = absl::FunctionRef<absl::Status(absl::Span<const std::byte>)>;
  // Called between two blocks of rows with the input bytes just dealt with; an
  // error ends the work.
  using Step = absl::FunctionRef<absl::Status(int64_t stored_bytes)>;

  explicit MatrixPacker(ThreadPool& pool) : pool_(pool) {}

  // Reads all weights and returns `layout`, with wide scales if they are
  // needed. InvalidArgument, naming file and tensor: a weight is NaN, infinite
  // or too large for the format.
  absl::StatusOr<PackedLayout> Survey(const MatrixRows& rows,
                                      PackedLayout layout, Step step);

  // Hands codes as they are, layout.bytes() bytes, to `sink`, in order.
  // REQUIRES: `layout` came from codes.Survey.
  absl::Status Keep(const CodedGather& codes, const PackedLayout& layout,
                    Sink sink, Step step);

  // Rounds the weights and hands layout.bytes() bytes to `sink`, in order. The
  // loss of a float layout is not measured: it is zero.
  // REQUIRES: `layout` came from Survey.
  absl::StatusOr<RoundingLoss> Pack(const MatrixRows& rows,
                                    const PackedLayout& layout, Sink sink,
                                    Step step);

 private:
  absl::StatusOr<RoundingLoss> PackIntegers(const MatrixRows& rows,
                                            const PackedLayout& layout,
                                            Sink sink, Step step);
  absl::Status PackFloats(const MatrixRows& rows, const PackedLayout& layout,
                          Sink sink, Step step);

  ThreadPool& pool_;
  // Kept from matrix to matrix: fresh memory costs as much as rounding does.
  std::array<AlignedBuffer, 2> packed_;  // a block of records each
  AlignedBuffer values_;                 // [rows of a block, inputs], f32
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_MATRIX_PACKER_H_
