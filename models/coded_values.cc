#include "models/coded_values.h"

#include <algorithm>
#include <cstddef>

#include "absl/log/check.h"

namespace nibble {
namespace {

// A group: its scale, and what stands beside it.
struct Group {
  float scale;
  float zero;
  float minimum;
};

// Of minimums, the product of an f16 or bf16 scale and a code is exact, so that
// it makes no difference whether a compiler fuses it with the sum.
float ValueOf(const Group& group, uint8_t code) {
  return group.scale * (static_cast<float>(code) - group.zero) + group.minimum;
}

}  // namespace

void CodedReader::Read(int64_t first_row, int64_t rows,
                       absl::Span<float> values) {
  const CodedForm& form = matrix_.form();
  const int64_t groups = form.groups();
  CHECK_EQ(static_cast<int64_t>(values.size()), rows * form.inputs);
  codes_.resize(static_cast<size_t>(rows * form.inputs));
  scales_.resize(static_cast<size_t>(rows * groups));
  const bool stored = form.offset != CodeOffset::kSymmetric;
  offsets_.assign(scales_.size(),
                  stored ? 0.0f : static_cast<float>(1 << (form.bits - 1)));
  matrix_.Read(first_row, rows,
               {absl::MakeSpan(codes_), absl::MakeSpan(scales_),
                stored ? absl::MakeSpan(offsets_) : absl::Span<float>()});
  const bool minimums = form.offset == CodeOffset::kMinimums;
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* codes = codes_.data() + row * form.inputs;
    float* out = values.data() + row * form.inputs;
    for (int64_t g = 0; g < groups; ++g) {
      const float offset = offsets_[row * groups + g];
      // Without minimums, + -0 changes nothing, not even the sign of a zero.
      const Group group = {scales_[row * groups + g], minimums ? 0.0f : offset,
                           minimums ? offset : -0.0f};
      const int64_t end = std::min(form.inputs, (g + 1) * form.group_size);
      for (int64_t k = g * form.group_size; k < end; ++k) {
        const int64_t at = form.input_order.empty() ? k : form.input_order[k];
        out[at] = ValueOf(group, codes[k]);
      }
    }
  }
}

}  // namespace nibble
