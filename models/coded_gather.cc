#include "models/coded_gather.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/matmul/pack_codes.h"
#include "tensor/bf16.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr int64_t kRecordOutputs = 2 * kPackedTileOutputs;

// Rows that are read at once, whole records. Some formats store neighbouring
// rows side by side (GPTQ: 16 words to a cache line), and their readers work in
// blocks of 64 rows.
constexpr int64_t kBlockRows = 64;
static_assert(kBlockRows % kRecordOutputs == 0);

// Scales from here on may take a weight beyond f32: |scale| * 255 + |minimum|.
constexpr float kMaxScale = 0x1p118f;

bool WholeRow(const CodedForm& form) { return form.group_size >= form.inputs; }

// The code of weight 0 of a symmetric form.
int MiddleOf(const CodedForm& form) { return 1 << (form.bits - 1); }

// Exactly representable as f16 without subnormals.
bool FitsF16(float value) {
  return value == 0.0f ||
         (std::abs(value) >= 0x1p-14f && ToFloat(ToF16(value)) == value);
}

// Whether value * code is exact for each code of 4 bits: the product has four
// bits more than the value.
bool TimesCodeIsExact(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return (bits & 15) == 0;
}

// What the packed form is to be, by the forms of its parts.
struct Wish {
  int bits = 0;  // the most of any part
  bool zeros = false;
  bool minimums = false;
  bool wide_zeros = false;  // of 8 bits
  int64_t group_size = 0;   // 0: a whole row

  void Add(const CodedForm& form) {
    bits = std::max(bits, form.bits);
    zeros |= form.offset == CodeOffset::kZeros;
    minimums |= form.offset == CodeOffset::kMinimums;
    wide_zeros |= form.offset == CodeOffset::kZeros && form.bits > 7;
    if (!WholeRow(form)) group_size = std::gcd(group_size, form.group_size);
  }

  std::optional<PackedLayout> Layout(int64_t outputs, int64_t inputs) const {
    PackedLayout layout;
    layout.outputs = outputs;
    layout.inputs = inputs;
    layout.group_size = group_size == 0 ? inputs : group_size;
    if (bits <= 4) {
      layout.format = WeightFormat::kInt4;
      layout.minimums = minimums;
      layout.symmetric = !minimums && !zeros;
    } else {
      layout.format = WeightFormat::kInt8;
      if (minimums || wide_zeros) return std::nullopt;
    }
    const absl::StatusOr<PackedLayout> valid = PackedLayout::Checked(layout);
    if (!valid.ok()) return std::nullopt;
    return *valid;
  }
};

// What a survey finds of the scales and minimums that will be stored.
struct Findings {
  bool finite = true;
  bool exact = true;   // an integer layout has every value
  bool narrow = true;  // in f16

  void Add(const CodedForm& form, bool minimums, float scale, float offset) {
    finite &= std::isfinite(scale) && std::isfinite(offset);
    exact &= std::abs(scale) < kMaxScale;
    narrow &= FitsF16(scale);
    if (!minimums) return;
    exact &= TimesCodeIsExact(scale) && std::abs(offset) < 0x1p127f;
    narrow &= FitsF16(form.offset == CodeOffset::kMinimums ? offset
                                                           : -scale * offset);
  }
};

}  // namespace

bool HasCodes(const TensorSource& tensors, absl::Span<const RowRange> rows) {
  return absl::c_any_of(rows, [&](const RowRange& range) {
    return tensors.FindCoded(range.tensor) != nullptr;
  });
}

std::optional<CodedGather> CodedGather::Find(const TensorSource& tensors,
                                             absl::Span<const RowRange> rows) {
  CodedGather gather(tensors);
  Wish wish;
  int64_t outputs = 0;
  for (const RowRange& range : rows) {
    const CodedMatrix* matrix = tensors.FindCoded(range.tensor);
    if (matrix == nullptr) return std::nullopt;
    gather.parts_.push_back(
        {range.tensor, matrix, range.first_row, outputs, range.rows});
    outputs += range.rows;
    wish.Add(matrix->form());
    if (matrix->form().input_order != gather.input_order()) return std::nullopt;
  }
  const std::optional<PackedLayout> layout =
      wish.Layout(outputs, gather.parts_[0].matrix->form().inputs);
  if (!layout) return std::nullopt;
  gather.layout_ = *layout;
  return gather;
}

int64_t CodedGather::stored_bytes() const {
  int64_t bytes = 0;
  for (const Part& part : parts_) {
    bytes +=
        part.matrix->stored_bytes() / part.matrix->form().outputs * part.rows;
  }
  return bytes;
}

const CodedGather::Part& CodedGather::PartOf(int64_t row) const {
  return *std::upper_bound(parts_.begin(), parts_.end(), row,
                           [](int64_t wanted, const Part& part) {
                             return wanted < part.begin + part.rows;
                           });
}

absl::StatusOr<std::optional<PackedLayout>> CodedGather::Survey(
    ThreadPool& pool) const {
  std::atomic<bool> narrow(true);
  std::atomic<bool> exact(true);
  for (const Part& part : parts_) {
    const CodedForm& form = part.matrix->form();
    const bool offsets = form.offset != CodeOffset::kSymmetric;
    const int64_t groups = form.groups();
    std::atomic<bool> finite(true);
    const int64_t blocks = (part.rows + kBlockRows - 1) / kBlockRows;
    pool.ParallelFor(blocks, [&](int64_t begin, int64_t end, int) {
      std::vector<float> scales, zeros;
      Findings found;
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * kBlockRows;
        const int64_t rows = std::min(kBlockRows, part.rows - first);
        scales.resize(static_cast<size_t>(rows * groups));
        // The zero of symmetric codes, where there are no others.
        zeros.assign(scales.size(), static_cast<float>(MiddleOf(form)));
        part.matrix->Read(
            part.first_row + first, rows,
            {{},
             absl::MakeSpan(scales),
             offsets ? absl::MakeSpan(zeros) : absl::Span<float>()});
        for (size_t i = 0; i < scales.size(); ++i) {
          found.Add(form, layout_.has_minimums(), scales[i], zeros[i]);
        }
      }
      if (!found.finite) finite.store(false, std::memory_order_relaxed);
      if (!found.exact) exact.store(false, std::memory_order_relaxed);
      if (!found.narrow) narrow.store(false, std::memory_order_relaxed);
    });
    if (finite.load()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        tensors_->path(), ": tensor ", part.tensor,
        ": holds a scale or a minimum that is not a finite number; the file is "
        "damaged"));
  }
  if (!exact.load()) return std::optional<PackedLayout>();
  PackedLayout layout = layout_;
  layout.wide_scales = !narrow.load();
  const absl::StatusOr<PackedLayout> valid = PackedLayout::Checked(layout);
  if (!valid.ok()) return std::optional<PackedLayout>();
  return std::optional<PackedLayout>(*valid);
}

// Packs a block of rows at a time: rows as their tensors have them, translated
// into the layout's codes and groups.
class CodedGather::BlockPacker {
 public:
  BlockPacker(const CodedGather& gather, const PackedLayout& layout)
      : gather_(gather),
        layout_(layout),
        codes_(static_cast<size_t>(kBlockRows * layout.inputs)),
        scales_(static_cast<size_t>(kBlockRows * layout.groups())),
        zeros_(layout.has_zeros() ? scales_.size() : 0),
        minimums_(layout.has_minimums() ? scales_.size() : 0) {}

  // Rows [first_row, first_row + rows), at most kBlockRows, become outputs from
  // `first_output` on of `packed`, which `target` lays out.
  void Pack(int64_t first_row, int64_t rows, const PackedLayout& target,
            int64_t first_output, std::byte* packed) {
    for (int64_t done = 0; done < rows;) {
      const Part& part = gather_.PartOf(first_row + done);
      const int64_t skipped = first_row + done - part.begin;
      const int64_t count = std::min(rows - done, part.rows - skipped);
      ReadPart(part, part.first_row + skipped, done, count);
      done += count;
    }
    const size_t groups = static_cast<size_t>(rows * layout_.groups());
    CodedRows coded;
    coded.codes = absl::MakeConstSpan(codes_).first(
        static_cast<size_t>(rows * layout_.inputs));
    coded.scales = absl::MakeConstSpan(scales_).first(groups);
    if (layout_.has_zeros()) {
      coded.zeros = absl::MakeConstSpan(zeros_).first(groups);
    }
    if (layout_.has_minimums()) {
      coded.minimums = absl::MakeConstSpan(minimums_).first(groups);
    }
    PackCodes(target, first_output, rows, coded, packed);
  }

 private:
  // `count` rows of a tensor become rows [to, to + count) of the block.
  void ReadPart(const Part& part, int64_t from, int64_t to, int64_t count) {
    const CodedForm& form = part.matrix->form();
    const int64_t groups = form.groups();
    part_scales_.resize(static_cast<size_t>(count * groups));
    // The zero of symmetric codes, where there are no others.
    part_offsets_.assign(part_scales_.size(),
                         static_cast<float>(MiddleOf(form)));
    part.matrix->Read(from, count,
                      {absl::MakeSpan(codes_).subspan(
                           static_cast<size_t>(to * layout_.inputs),
                           static_cast<size_t>(count * layout_.inputs)),
                       absl::MakeSpan(part_scales_),
                       form.offset == CodeOffset::kSymmetric
                           ? absl::Span<float>()
                           : absl::MakeSpan(part_offsets_)});
    for (int64_t row = 0; row < count; ++row) {
      Spread(form, row * groups, to + row);
    }
  }

  // One row, whose groups stand at `stored` of the part's, in the layout's
  // groups, each of which lies within one stored group.
  void Spread(const CodedForm& form, int64_t stored, int64_t row) {
    for (int64_t g = 0; g < layout_.groups(); ++g) {
      const int64_t first = g * layout_.group_size;
      const int64_t from =
          stored + (WholeRow(form) ? 0 : first / form.group_size);
      const int64_t to = row * layout_.groups() + g;
      const float scale = part_scales_[from];
      const float offset = part_offsets_[from];
      scales_[to] = scale;
      const int moved = Offset(form, scale, offset, to);
      if (moved == 0) continue;
      const int64_t end = std::min(layout_.inputs, first + layout_.group_size);
      uint8_t* codes = codes_.data() + row * layout_.inputs;
      for (int64_t k = first; k < end; ++k) {
        codes[k] = static_cast<uint8_t>(codes[k] + moved);
      }
    }
  }

  // Stores group `to`'s zero or minimum; returns what its codes go up by.
  int Offset(const CodedForm& form, float scale, float offset, int64_t to) {
    if (layout_.has_minimums()) {
      minimums_[to] =
          form.offset == CodeOffset::kMinimums ? offset : -scale * offset;
      return 0;
    }
    if (layout_.has_zeros()) {
      zeros_[to] = static_cast<uint8_t>(offset);
      return 0;
    }
    return static_cast<int>(layout_.symmetric_zero()) -
           static_cast<int>(offset);
  }

  const CodedGather& gather_;
  const PackedLayout& layout_;
  std::vector<uint8_t> codes_;      // [64, inputs]
  std::vector<float> scales_;       // [64, layout groups]
  std::vector<uint8_t> zeros_;      // [64, layout groups] or empty
  std::vector<float> minimums_;     // [64, layout groups] or empty
  std::vector<float> part_scales_;  // [rows, groups of the tensor]
  std::vector<float> part_offsets_;
};

void CodedGather::Pack(const PackedLayout& layout, int64_t first_row,
                       int64_t rows, ThreadPool& pool,
                       std::byte* packed) const {
  CHECK_EQ(first_row % kRecordOutputs, 0);
  PackedLayout target = layout;
  target.outputs = rows;
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  pool.ParallelFor(blocks, [&](int64_t begin, int64_t end, int) {
    BlockPacker packer(*this, layout);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * kBlockRows;
      packer.Pack(first_row + row, std::min(kBlockRows, rows - row), target,
                  row, packed);
    }
  });
}

void CodedGather::Release() const {
  for (const Part& part : parts_) part.matrix->Release();
}

absl::StatusOr<StoredMatrix> AsStored(const TensorSource& tensors,
                                      absl::Span<const RowRange> rows,
                                      ThreadPool& pool) {
  StoredMatrix stored;
  stored.codes = CodedGather::Find(tensors, rows);
  if (stored.codes) {
    const absl::StatusOr<std::optional<PackedLayout>> layout =
        stored.codes->Survey(pool);
    if (!layout.ok()) return layout.status();
    if (layout->has_value()) {
      stored.layout = **layout;
      return stored;
    }
    stored.codes.reset();
  }
  PackedLayout& layout = stored.layout;
  layout.format = WeightFormat::kBF16;
  for (const RowRange& range : rows) {
    layout.outputs += range.rows;
    const absl::StatusOr<TensorView> dense = tensors.Find(range.tensor);
    if (dense.ok()) {
      layout.inputs = dense->shape.dim(1);
      continue;
    }
    const CodedMatrix* codes = tensors.FindCoded(range.tensor);
    if (codes == nullptr) return dense.status();
    layout.inputs = codes->form().inputs;
    layout.format = WeightFormat::kF32;
  }
  return stored;
}

}  // namespace nibble
