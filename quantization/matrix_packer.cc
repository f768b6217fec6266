#include "quantization/matrix_packer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <thread>  // NOLINT
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/pack_codes.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/shared_status.h"
#include "kernels/thread_pool.h"
#include "quantization/matrix_rows.h"
#include "quantization/round_to_nearest.h"
#include "tensor/buffer.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Weights in a block: large enough that starting threads and writing cost
// nothing (a block of bf16 weights is 16 MB of input), small enough for memory
// to stay flat.
constexpr int64_t kBlockWeights = 8 << 20;

// Halfway from bf16's largest value to the next power of two: from here on
// rounding to nearest gives infinity.
constexpr float kBF16Overflow = 0x1.FFp127f;

// Rows in a block: whole records.
int64_t BlockRows(const PackedLayout& layout) {
  const int64_t unit = layout.record_outputs();
  return std::max(unit, kBlockWeights / layout.inputs / unit * unit);
}

// The same format for fewer outputs: `rows` of the matrix as one of its own.
PackedLayout LayoutOfRows(PackedLayout layout, int64_t rows) {
  layout.outputs = rows;
  return layout;
}

absl::Status OutOfRange(const PackedLayout& layout,
                        absl::Span<const float> row) {
  if (!AllFinite(row)) {
    return absl::InvalidArgumentError(
        "holds a value that is not a finite number; the file is damaged");
  }
  return absl::InvalidArgumentError(
      IsInteger(layout.format)
          ? "holds a weight above 2^126, which cannot be rounded to integers"
          : "holds a value beyond bf16's range, which this matrix is kept in");
}

RowSurvey SurveyFloats(absl::Span<const float> row, WeightFormat format) {
  RowSurvey survey;
  if (format == WeightFormat::kF32) {
    survey.in_range = AllFinite(row);
    return survey;
  }
  // Written so that NaN fails.
  survey.in_range = absl::c_all_of(
      row, [](float value) { return std::abs(value) < kBF16Overflow; });
  return survey;
}

// Hands blocks of bytes to a sink on a thread of its own, while the next block
// is made in the other of two buffers. Copying into the page cache takes about
// as long as rounding the same weights does.
class BlockWriter {
 public:
  BlockWriter(std::array<AlignedBuffer, 2>& buffers, MatrixPacker::Sink sink)
      : buffers_(buffers), sink_(sink) {}
  ~BlockWriter() { Finish().IgnoreError(); }

  // A buffer for the next block.
  std::byte* Next(size_t bytes) {
    AlignedBuffer& buffer = buffers_[next_];
    if (buffer.size() < bytes) buffer = AlignedBuffer(bytes);
    bytes_ = bytes;
    return buffer.data();
  }

  // Begins to write what was put into the buffer; the error is that of the
  // block before.
  absl::Status Write() {
    const absl::Status before = Finish();
    if (!before.ok()) return before;
    const absl::Span<const std::byte> block(buffers_[next_].data(), bytes_);
    thread_ = std::thread([this, block] { status_ = sink_(block); });
    next_ = 1 - next_;
    return absl::OkStatus();
  }

  // Waits until all is written.
  absl::Status Finish() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }

 private:
  std::array<AlignedBuffer, 2>& buffers_;
  const MatrixPacker::Sink sink_;
  size_t next_ = 0;   // the buffer that is not being written
  size_t bytes_ = 0;  // of the block in it
  absl::Status status_;
  std::thread thread_;
};

// What a thread needs to round the rows of one record.
class RecordRounder {
 public:
  RecordRounder(const MatrixRows& rows, const PackedLayout& layout)
      : rows_(rows),
        layout_(layout),
        row_(layout.inputs),
        codes_(layout.record_outputs() * layout.inputs),
        scales_(layout.record_outputs() * layout.groups()),
        zeros_(layout.has_zeros() ? scales_.size() : 0) {}

  // Rounds rows [first, first + count) of the matrix and packs them into the
  // record of `block` that begins with its row `first - block_first`.
  absl::Status Round(int64_t first, int64_t count, int64_t block_first,
                     const PackedLayout& block_layout, std::byte* block,
                     RoundingLoss* loss) {
    for (int64_t i = 0; i < count; ++i) {
      const absl::Status read = rows_.Read(first + i, absl::MakeSpan(row_));
      if (!read.ok()) return rows_.Error(first + i, read);
      const RoundingLoss row_loss = RoundRow(
          row_, layout_,
          {Part(codes_, i, layout_.inputs), Part(scales_, i, layout_.groups()),
           Part(zeros_, i, zeros_.empty() ? 0 : layout_.groups())});
      loss->error += row_loss.error;
      loss->signal += row_loss.signal;
    }
    PackCodes(block_layout, first - block_first, count,
              {Part(codes_, 0, count * layout_.inputs),
               Part(scales_, 0, count * layout_.groups()),
               Part(zeros_, 0, zeros_.empty() ? 0 : count * layout_.groups())},
              block);
    return absl::OkStatus();
  }

 private:
  template <class T>
  static absl::Span<T> Part(std::vector<T>& values, int64_t index,
                            int64_t size) {
    return absl::MakeSpan(values).subspan(static_cast<size_t>(index * size),
                                          static_cast<size_t>(size));
  }

  const MatrixRows& rows_;
  const PackedLayout& layout_;
  std::vector<float> row_;      // [inputs]
  std::vector<uint8_t> codes_;  // [record_outputs, inputs]
  std::vector<float> scales_;   // [record_outputs, groups]
  std::vector<uint8_t> zeros_;  // [record_outputs, groups] or empty
};

}  // namespace

absl::StatusOr<PackedLayout> MatrixPacker::Survey(const MatrixRows& rows,
                                                  PackedLayout layout,
                                                  Step step) {
  const int64_t block = BlockRows(layout);
  std::vector<char> wide(static_cast<size_t>(pool_.threads()), 0);
  for (int64_t first = 0; first < rows.rows(); first += block) {
    const int64_t count = std::min(block, rows.rows() - first);
    SharedStatus status;
    pool_.ParallelFor(count, [&](int64_t begin, int64_t end, int thread) {
      std::vector<float> row(static_cast<size_t>(layout.inputs));
      for (int64_t i = first + begin; i < first + end; ++i) {
        const absl::Status read = rows.Read(i, absl::MakeSpan(row));
        if (!read.ok()) return status.Update(rows.Error(i, read));
        const RowSurvey survey = IsInteger(layout.format)
                                     ? SurveyRow(row, layout)
                                     : SurveyFloats(row, layout.format);
        if (!survey.in_range) {
          return status.Update(rows.Error(i, OutOfRange(layout, row)));
        }
        wide[thread] |= survey.needs_wide_scales ? 1 : 0;
      }
    });
    if (!status.Get().ok()) return status.Get();
    rows.Release(first, count);
    const absl::Status go_on = step(rows.stored_bytes() / rows.rows() * count);
    if (!go_on.ok()) return go_on;
  }
  layout.wide_scales = absl::c_linear_search(wide, 1);
  return layout;
}

absl::Status MatrixPacker::Keep(const CodedGather& codes,
                                const PackedLayout& layout, Sink sink,
                                Step step) {
  const int64_t block = BlockRows(layout);
  BlockWriter writer(packed_, sink);
  for (int64_t first = 0; first < layout.outputs; first += block) {
    const int64_t count = std::min(block, layout.outputs - first);
    std::byte* packed =
        writer.Next(static_cast<size_t>(LayoutOfRows(layout, count).bytes()));
    codes.Pack(layout, first, count, pool_, packed);
    absl::Status status = writer.Write();
    if (status.ok()) {
      status = step(codes.stored_bytes() / layout.outputs * count);
    }
    if (!status.ok()) return status;
  }
  codes.Release();
  return writer.Finish();
}

absl::StatusOr<RoundingLoss> MatrixPacker::Pack(const MatrixRows& rows,
                                                const PackedLayout& layout,
                                                Sink sink, Step step) {
  CHECK_EQ(rows.rows(), layout.outputs);
  CHECK_EQ(rows.inputs(), layout.inputs);
  if (IsInteger(layout.format)) return PackIntegers(rows, layout, sink, step);
  const absl::Status status = PackFloats(rows, layout, sink, step);
  if (!status.ok()) return status;
  return RoundingLoss{};
}

absl::StatusOr<RoundingLoss> MatrixPacker::PackIntegers(
    const MatrixRows& rows, const PackedLayout& layout, Sink sink, Step step) {
  const int64_t block = BlockRows(layout);
  const int64_t unit = layout.record_outputs();
  // One for each record, summed in order: the same for any number of threads.
  std::vector<RoundingLoss> losses(static_cast<size_t>(layout.records()));
  BlockWriter writer(packed_, sink);
  for (int64_t first = 0; first < rows.rows(); first += block) {
    const int64_t count = std::min(block, rows.rows() - first);
    const PackedLayout block_layout = LayoutOfRows(layout, count);
    std::byte* packed = writer.Next(static_cast<size_t>(block_layout.bytes()));
    SharedStatus status;
    pool_.ParallelFor(
        block_layout.records(), [&](int64_t begin, int64_t end, int) {
          RecordRounder rounder(rows, layout);
          for (int64_t record = begin; record < end; ++record) {
            const int64_t row = record * unit;
            status.Update(rounder.Round(
                first + row, std::min(unit, count - row), first, block_layout,
                packed, &losses[first / unit + record]));
          }
        });
    if (!status.Get().ok()) return status.Get();
    absl::Status sent = writer.Write();
    if (!sent.ok()) return sent;
    rows.Release(first, count);
    sent = step(rows.stored_bytes() / rows.rows() * count);
    if (!sent.ok()) return sent;
  }
  const absl::Status written = writer.Finish();
  if (!written.ok()) return written;
  RoundingLoss sum;
  for (const RoundingLoss& loss : losses) {
    sum.error += loss.error;
    sum.signal += loss.signal;
  }
  return sum;
}

absl::Status MatrixPacker::PackFloats(const MatrixRows& rows,
                                      const PackedLayout& layout, Sink sink,
                                      Step step) {
  const int64_t block = BlockRows(layout);
  for (int64_t first = 0; first < rows.rows(); first += block) {
    const int64_t count = std::min(block, rows.rows() - first);
    const size_t size = static_cast<size_t>(count * layout.inputs);
    if (values_.size() < size * sizeof(float)) {
      values_ = AlignedBuffer(size * sizeof(float));
    }
    const absl::Span<float> values(reinterpret_cast<float*>(values_.data()),
                                   size);
    SharedStatus status;
    pool_.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const absl::Status read = rows.Read(
            first + i, values.subspan(static_cast<size_t>(i * layout.inputs),
                                      static_cast<size_t>(layout.inputs)));
        if (!read.ok()) return status.Update(rows.Error(first + i, read));
      }
    });
    if (!status.Get().ok()) return status.Get();
    const absl::StatusOr<PackedMatrix> packed =
        PackMatrix(MakeTensorView<float>(values, Shape({count, layout.inputs})),
                   layout.format, pool_);
    if (!packed.ok()) return rows.Error(first, packed.status());
    absl::Status sent =
        sink(absl::MakeConstSpan(packed->data(), packed->bytes()));
    if (!sent.ok()) return sent;
    rows.Release(first, count);
    sent = step(rows.stored_bytes() / rows.rows() * count);
    if (!sent.ok()) return sent;
  }
  return absl::OkStatus();
}

}  // namespace nibble
