// Compares the parts of a packed file with their checksums.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tensor/io/checksum.h"
#include "tensor/io/packed_file.h"

namespace nibble {
namespace {

// What one task reads: enough that starting it costs nothing (30 us at 16
// GB/s), and little enough to stay in the L2 cache between the checksum and the
// search for values that are not finite.
constexpr size_t kStretchBytes = size_t{512} << 10;

// The exponents of the floats in a word of 64 bits, and what added to them
// reaches the signs' places exactly where an exponent is all ones, as those of
// infinities and NaNs are.
struct ExponentMask {
  uint64_t exponents;
  uint64_t one;
  uint64_t signs;
};

constexpr ExponentMask kF64 = {0x7FF0000000000000, 0x0010000000000000,
                               0x8000000000000000};
constexpr ExponentMask kF32 = {0x7F8000007F800000, 0x0080000000800000,
                               0x8000000080000000};
constexpr ExponentMask kF16 = {0x7C007C007C007C00, 0x0400040004000400,
                               0x8000800080008000};
constexpr ExponentMask kBF16 = {0x7F807F807F807F80, 0x0080008000800080,
                                0x8000800080008000};

bool AllFinite(const ExponentMask& mask, const std::byte* data, size_t bytes) {
  uint64_t found = 0;
  size_t i = 0;
  for (uint64_t word; i + sizeof(word) <= bytes; i += sizeof(word)) {
    std::memcpy(&word, data + i, sizeof(word));
    found |= (word & mask.exponents) + mask.one;
  }
  uint64_t last = 0;
  std::memcpy(&last, data + i, bytes - i);
  found |= (last & mask.exponents) + mask.one;
  return (found & mask.signs) == 0;
}

bool AllFinite(DType dtype, const std::byte* data, size_t bytes) {
  switch (dtype) {
    case DType::kF32:
      return AllFinite(kF32, data, bytes);
    case DType::kF64:
      return AllFinite(kF64, data, bytes);
    case DType::kF16:
      return AllFinite(kF16, data, bytes);
    case DType::kBF16:
      return AllFinite(kBF16, data, bytes);
    default:
      return true;
  }
}

// Whether the scales and minimums, or the weights of a float format, of whole
// records are finite.
bool RecordsAreFinite(const PackedLayout& layout, const std::byte* data,
                      size_t bytes) {
  if (!IsInteger(layout.format)) {
    return AllFinite(
        layout.format == WeightFormat::kF32 ? DType::kF32 : DType::kBF16, data,
        bytes);
  }
  const DType scale = layout.wide_scales ? DType::kF32 : DType::kF16;
  const size_t record = static_cast<size_t>(layout.record_bytes());
  const size_t floats = static_cast<size_t>(
      layout.has_minimums() ? layout.codes_offset() : layout.zeros_offset());
  bool finite = true;
  for (size_t i = 0; i < bytes; i += record) {
    finite &= AllFinite(scale, data + i, floats);
  }
  return finite;
}

bool AreFinite(const PackedKind& kind, const std::byte* data, size_t bytes) {
  if (const auto* layout = std::get_if<PackedLayout>(&kind)) {
    return RecordsAreFinite(*layout, data, bytes);
  }
  return AllFinite(std::get<PlainTensor>(kind).dtype, data, bytes);
}

// Bytes of a part that one task takes: whole records.
size_t StretchOf(const PackedKind* kind) {
  const auto* layout =
      kind == nullptr ? nullptr : std::get_if<PackedLayout>(kind);
  if (layout == nullptr) return kStretchBytes;
  const size_t record = static_cast<size_t>(layout->record_bytes());
  return std::max(kStretchBytes / record, size_t{1}) * record;
}

bool AllZero(const std::byte* data, size_t bytes) {
  return std::all_of(data, data + bytes,
                     [](std::byte byte) { return byte == std::byte{0}; });
}

void RunHere(int64_t tasks, absl::FunctionRef<void(int64_t)> task) {
  for (int64_t i = 0; i < tasks; ++i) task(i);
}

}  // namespace

std::vector<absl::Status> PackedFile::DamageOf(size_t first, size_t last,
                                               ParallelRunner run) const {
  struct Stretch {
    size_t part = 0, offset = 0, bytes = 0;
    uint32_t checksum = 0;
    bool finite = true;
  };
  std::vector<const PackedKind*> kinds(parts_.size(), nullptr);
  for (const Tensor& tensor : tensors_.records()) {
    kinds[tensor.part] = &tensor.kind;
  }
  std::vector<Stretch> stretches;
  for (size_t p = first; p < last; ++p) {
    const size_t step = StretchOf(kinds[p]);
    for (size_t at = 0; at < parts_[p].bytes; at += step) {
      stretches.push_back({p, at, std::min(step, parts_[p].bytes - at)});
    }
  }
  run(static_cast<int64_t>(stretches.size()), [&](int64_t i) {
    Stretch& s = stretches[static_cast<size_t>(i)];
    const std::byte* data = parts_[s.part].data + s.offset;
    s.checksum = Crc32c(absl::MakeConstSpan(data, s.bytes));
    if (kinds[s.part] != nullptr) {
      s.finite = AreFinite(*kinds[s.part], data, s.bytes);
    }
  });

  std::vector<absl::Status> damage;
  size_t next = 0;
  for (size_t p = first; p < last; ++p) {
    const Part& part = parts_[p];
    uint32_t checksum = 0;
    bool finite = true;
    for (; next < stretches.size() && stretches[next].part == p; ++next) {
      const Stretch& s = stretches[next];
      checksum = ConcatCrc32c(checksum, s.checksum, s.bytes);
      finite &= s.finite;
    }
    const auto add = [&](absl::string_view what) {
      damage.push_back(
          absl::DataLossError(absl::StrCat(path_, ": ", PartText(part), what)));
    };
    if (checksum != part.checksum) {
      add(absl::StrFormat(" is damaged: its checksum is %08x instead of %08x",
                          checksum, part.checksum));
    } else if (!finite) {
      add(" holds a scale or weight that is not finite");
    }
  }
  return damage;
}

absl::Status PackedFile::VerifyTensor(absl::string_view name) const {
  const absl::StatusOr<const Tensor*> tensor = FindTensor(name);
  if (!tensor.ok()) return tensor.status();
  const size_t part = (*tensor)->part;
  const std::vector<absl::Status> damage = DamageOf(part, part + 1, RunHere);
  return damage.empty() ? absl::OkStatus() : damage[0];
}

std::vector<absl::Status> PackedFile::FindDamage(ParallelRunner run) const {
  std::vector<absl::Status> damage = DamageOf(0, parts_.size(), run);
  for (const Part& part : parts_) {
    if (!AllZero(part.data - part.gap, part.gap)) {
      damage.push_back(absl::DataLossError(
          absl::StrCat(path_, ": the padding in front of ", PartText(part),
                       " is damaged: it is not zero")));
    }
  }
  return damage;
}

absl::Status PackedFile::VerifyAll(ParallelRunner run) const {
  const std::vector<absl::Status> damage = FindDamage(run);
  return damage.empty() ? absl::OkStatus() : damage[0];
}

absl::Status PackedFile::VerifyAll() const { return VerifyAll(RunHere); }

}  // namespace nibble
