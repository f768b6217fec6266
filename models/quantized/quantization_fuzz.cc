// Fuzz target: any JSON as the settings of a quantized folder, over tensors of
// every layout whose shapes the input alters. Opening may refuse, but what it
// accepts must be read within its tensors (a sanitizer sees the rest).
//
// The input: a line whose bytes alter dimensions, four bytes each (which
// tensor, which dimension, new size, what to fill with), then the JSON.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/config_reader.h"
#include "models/quantized/quantized_folder.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/coded_tensors.h"
#include "testing/quantized_layers.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using testing::StoredTensors;

// Modules g (GPTQ) or a (AWQ GEMM), whose parts have the same names, and c
// (compressed-tensors): [32, 64], 4 bits, groups of 32.
StoredTensors Folder(bool awq) {
  testing::RandomValues random(1);
  auto matrix =
      testing::RandomCodes({32, 64, 4, 32, CodeOffset::kZeros, {}}, random);
  StoredTensors tensors;
  if (awq) {
    PackAwqGemm(*matrix, "a", {}, tensors);
    return tensors;
  }
  matrix->Shuffle(random);
  PackGptq(*matrix, "g", {}, tensors);
  PackCompressedTensors(*matrix, "c", {}, tensors);
  return tensors;
}

void Alter(absl::string_view bytes, StoredTensors& tensors) {
  for (; bytes.size() >= 4; bytes.remove_prefix(4)) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
    const std::string name = tensors.names()[byte(0) % tensors.names().size()];
    const TensorView view = *tensors.Find(name);
    std::vector<int64_t> dims(view.shape.dims().begin(),
                              view.shape.dims().end());
    // '0' leaves the size as it is.
    if (byte(1) != '0') dims[byte(1) % dims.size()] = byte(2);
    const absl::StatusOr<Shape> shape = Shape::Create(dims);
    CHECK(shape.ok());
    std::vector<std::byte> values(view.data, view.data + view.bytes);
    values.resize(
        static_cast<size_t>(shape->elements() * DTypeBlockBytes(view.dtype)),
        std::byte{byte(3)});
    if (byte(3) != '0' && !values.empty()) values[0] = std::byte{byte(3)};
    tensors.SetBytes(name, view.dtype, *shape, std::move(values));
  }
}

void OpenAndRead(const StoredTensors& tensors, absl::string_view json) {
  absl::StatusOr<ConfigReader> reader = ConfigReader::Parse(json, "fuzz");
  if (!reader.ok()) return;
  auto stored = std::make_unique<StoredTensors>();
  stored->Add(tensors);
  const absl::StatusOr<std::unique_ptr<QuantizedTensors>> opened =
      OpenQuantizedTensors(std::move(stored), *reader);
  if (!opened.ok()) {
    CHECK(!opened.status().message().empty());
    CHECK_LT(opened.status().message().size(), 4096u);
    return;
  }
  CHECK_GE((*opened)->summary().coded_matrices, 1);
  for (const std::string& name : (*opened)->names()) {
    const CodedMatrix* matrix = (*opened)->FindCoded(name);
    if (matrix == nullptr) continue;
    const CodedForm& form = matrix->form();
    CHECK(form.group_size >= 1 && form.group_size <= form.inputs);
    const std::vector<float> weights = testing::Dequantize(*matrix, 9);
    CHECK_EQ(static_cast<int64_t>(weights.size()), form.outputs * form.inputs);
  }
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find('\n');
  if (line == absl::string_view::npos) return 0;
  for (const bool awq : {false, true}) {
    static const nibble::StoredTensors* const folders[] = {
        new nibble::StoredTensors(nibble::Folder(false)),
        new nibble::StoredTensors(nibble::Folder(true))};
    nibble::StoredTensors tensors;
    tensors.Add(*folders[awq]);
    nibble::Alter(input.substr(0, line), tensors);
    nibble::OpenAndRead(tensors, input.substr(line + 1));
  }
  return 0;
}
