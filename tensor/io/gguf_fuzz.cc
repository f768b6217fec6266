// Fuzz target: any bytes as a GGUF file. Every tensor is read in full and every
// getter called with every key, so that a range outside the input is seen.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/log/check.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/io/test_files.h"
#include "tensor/view.h"

namespace {

void Touch(const nibble::TensorView& view) {
  CHECK_EQ(reinterpret_cast<uintptr_t>(view.data) %
               nibble::DTypeAlignment(view.dtype),
           0u);
  volatile unsigned sum = 0;
  for (size_t i = 0; i < view.bytes; ++i) {
    sum = sum + static_cast<unsigned>(view.data[i]);
  }
}

// Every row on its own: no block but the row's may be read.
void TouchCoded(const nibble::CodedMatrix& matrix) {
  const nibble::CodedForm& form = matrix.form();
  const auto inputs = static_cast<size_t>(form.inputs);
  const auto groups = static_cast<size_t>(form.groups());
  std::vector<uint8_t> codes(inputs);
  std::vector<float> scales(groups), offsets(groups);
  for (int64_t row = 0; row < form.outputs; ++row) {
    matrix.Read(row, 1,
                {absl::MakeSpan(codes), absl::MakeSpan(scales),
                 absl::MakeSpan(offsets)});
    for (const uint8_t code : codes) CHECK_LT(code, 1 << form.bits);
  }
}

void TouchKey(const nibble::GgufFile& file, const std::string& key) {
  CHECK(file.HasKey(key));
  CHECK(file.ValueSummary(key).find('\n') == std::string::npos);
  // A value reads as one kind at most, but for an empty array of numbers.
  const int kinds = file.GetString(key).ok() + file.GetUint(key).ok() +
                    file.GetFloat(key).ok() + file.GetBool(key).ok() +
                    file.GetStringArray(key).ok() +
                    file.GetFloatArray(key).ok() + file.GetIntArray(key).ok();
  CHECK_LE(kinds, 1);
  const auto strings = file.GetStringViews(key);
  if (strings.ok()) {
    volatile unsigned sum = 0;
    for (absl::string_view text : *strings) {
      for (char c : text) sum = sum + static_cast<unsigned char>(c);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const nibble::testing::AlignedBytes bytes(
      absl::string_view(reinterpret_cast<const char*>(data), size));
  const auto file = nibble::GgufFile::Parse("fuzz", bytes.span());
  if (!file.ok()) {
    CHECK(!file.status().message().empty());
    return 0;
  }
  for (const std::string& name : (*file)->names()) {
    CHECK((*file)->Contains(name));
    CHECK((*file)->TensorTypeName(name).ok());
    const auto view = (*file)->Find(name);
    if (view.ok()) Touch(*view);
    if (const auto* coded = (*file)->FindCoded(name)) TouchCoded(*coded);
  }
  for (const std::string& key : (*file)->keys()) TouchKey(**file, key);
  return 0;
}
