#include "quantization/export/gptq_matrix.h"

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace nibble {
namespace {

template <class T>
absl::Span<const std::byte> BytesOf(const std::vector<T>& values) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                             values.size() * sizeof(T));
}

}  // namespace

absl::Status CheckGptqForm(const GptqForm& form) {
  const int64_t unit = form.codes_per_word();
  if (form.outputs % unit == 0 && form.inputs % unit == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("has shape [", form.outputs, ", ", form.inputs, "]; with ",
                   form.bits, " bits GPTQ's layout needs multiples of ", unit));
}

std::vector<SafetensorsPlan> GptqTensors(const std::string& base,
                                         const GptqForm& form) {
  const int64_t unit = form.codes_per_word();
  return {{base + ".qweight", DType::kI32, {form.inputs / unit, form.outputs}},
          {base + ".qzeros", DType::kI32, {form.groups(), form.outputs / unit}},
          {base + ".scales", DType::kF16, {form.groups(), form.outputs}},
          {base + ".g_idx", DType::kI32, {form.inputs}}};
}

GptqMatrix::GptqMatrix(const GptqForm& form,
                       absl::Span<const int32_t> input_order)
    : form_(form),
      input_order_(input_order),
      qweight_(static_cast<size_t>(form.inputs / form.codes_per_word() *
                                   form.outputs)),
      qzeros_(static_cast<size_t>(form.groups() * form.outputs /
                                  form.codes_per_word())),
      scales_(static_cast<size_t>(form.groups() * form.outputs)),
      group_of_input_(static_cast<size_t>(form.inputs)) {
  for (int64_t i = 0; i < form.inputs; ++i) {
    const int64_t input = input_order.empty() ? i : input_order[i];
    group_of_input_[input] = static_cast<int32_t>(i / form.group_size);
  }
}

void GptqMatrix::SetRows(int64_t first, int64_t count, const Rows& rows) {
  const int64_t unit = form_.codes_per_word();
  DCHECK_EQ(first % unit, 0);
  DCHECK_EQ(count % unit, 0);
  const int64_t groups = form_.groups();
  std::vector<uint8_t> ordered;  // [count, inputs], as the inputs stand
  const uint8_t* codes = rows.codes.data();
  if (!input_order_.empty()) {
    ordered.resize(rows.codes.size());
    for (int64_t n = 0; n < count; ++n) {
      for (int64_t i = 0; i < form_.inputs; ++i) {
        ordered[n * form_.inputs + input_order_[i]] =
            rows.codes[n * form_.inputs + i];
      }
    }
    codes = ordered.data();
  }
  for (int64_t word = 0; word < form_.inputs / unit; ++word) {
    for (int64_t n = 0; n < count; ++n) {
      const uint8_t* in = codes + n * form_.inputs + word * unit;
      uint32_t packed = 0;
      for (int64_t k = 0; k < unit; ++k) {
        packed |= static_cast<uint32_t>(in[k]) << (k * form_.bits);
      }
      qweight_[word * form_.outputs + first + n] = packed;
    }
  }
  const uint32_t mask = (1u << form_.bits) - 1;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t n = 0; n < count; ++n) {
      const int64_t at = group * form_.outputs + first + n;
      scales_[at] = ToF16(rows.scales[n * groups + group]);
      const uint32_t zero =
          rows.zeros[n * groups + group] - (form_.zeros_minus_one ? 1u : 0u);
      qzeros_[at / unit] |= (zero & mask) << (at % unit * form_.bits);
    }
  }
}

std::vector<absl::Span<const std::byte>> GptqMatrix::Bytes() const {
  return {BytesOf(qweight_), BytesOf(qzeros_), BytesOf(scales_),
          BytesOf(group_of_input_)};
}

}  // namespace nibble
