#include "models/quantized/zero_points.h"

#include <cstdint>
#include <optional>

#include "absl/algorithm/container.h"
#include "absl/types/span.h"

namespace nibble {
namespace {

// Whether every field of every word is a zero point: none lies across words and
// none is padding, so that words can be looked at instead.
bool IsDense(const ModuleTensors& matrix) {
  return 32 % matrix.bits == 0 && matrix.layout != CodeLayout::kAwqGemv &&
         matrix.outputs * matrix.bits % 32 == 0;
}

absl::Span<const uint32_t> WordsOf(const ModuleTensors& matrix) {
  return {reinterpret_cast<const uint32_t*>(matrix.zeros.data),
          matrix.zeros.bytes / sizeof(uint32_t)};
}

template <class Predicate>
bool AllZeros(const StoredCodes& codes, const Predicate& predicate) {
  for (int64_t group = 0; group < codes.form().groups(); ++group) {
    for (int64_t row = 0; row < codes.form().outputs; ++row) {
      if (!predicate(codes.Zero(row, group))) return false;
    }
  }
  return true;
}

// The one value that all zeros have; nullopt where they differ.
std::optional<uint32_t> OnlyValue(const StoredCodes& codes) {
  const ModuleTensors& matrix = codes.matrix();
  const uint32_t first = codes.Zero(0, 0);
  bool same = true;
  if (IsDense(matrix)) {
    const uint32_t mask = (1u << matrix.bits) - 1;
    const uint32_t ones = 0xFFFFFFFFu / mask;
    const uint32_t word = ones * first - (matrix.zeros_less_one ? ones : 0);
    same = absl::c_all_of(WordsOf(matrix),
                          [word](uint32_t other) { return other == word; });
  } else {
    same = AllZeros(codes, [first](uint32_t zero) { return zero == first; });
  }
  return same ? std::optional<uint32_t>(first) : std::nullopt;
}

bool AnyIsZero(const StoredCodes& codes) {
  const ModuleTensors& matrix = codes.matrix();
  if (!IsDense(matrix)) {
    return !AllZeros(codes, [](uint32_t zero) { return zero != 0; });
  }
  const uint32_t mask = (1u << matrix.bits) - 1;
  const uint32_t ones = 0xFFFFFFFFu / mask;
  const uint32_t top = ones << (matrix.bits - 1);
  return absl::c_any_of(WordsOf(matrix), [=](uint32_t stored) {
    const uint32_t word = stored + ones;
    // The classic test for a field of 0, exact as a test of the whole word.
    return ((word - ones) & ~word & top) != 0;
  });
}

}  // namespace

ZeroPoints JudgeZeros(const StoredCodes& codes, bool declared_symmetric) {
  const ModuleTensors& matrix = codes.matrix();
  if (matrix.zeros.data == nullptr) return ZeroPoints::kMiddle;
  const uint32_t middle = 1u << (matrix.bits - 1);
  const std::optional<uint32_t> only = OnlyValue(codes);
  if (only == middle) return ZeroPoints::kMiddle;
  if (declared_symmetric) {
    return matrix.layout == CodeLayout::kGptq &&
                   only == (matrix.zeros_less_one ? middle + 1 : middle - 1)
               ? ZeroPoints::kMislabelled
               : ZeroPoints::kNotSymmetric;
  }
  return matrix.zeros_less_one && AnyIsZero(codes) ? ZeroPoints::kAmbiguous
                                                   : ZeroPoints::kPlain;
}

}  // namespace nibble
