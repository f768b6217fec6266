// Quantized layers as other tools store them, for tests of their readers. The
// packing is written out bit by bit, apart from the readers under test.
//
//   StoredTensors tensors;
//   PackGptq(*RandomCodes(form, random), "layer", {}, tensors);
//   // tensors now has layer.qweight, layer.qzeros, layer.scales
//   WriteSafetensors(path, tensors.list());
#ifndef NIBBLE_TESTING_QUANTIZED_LAYERS_H_
#define NIBBLE_TESTING_QUANTIZED_LAYERS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/coded_tensors.h"

namespace nibble::testing {

// Tensors of any dtype in memory, which a test may replace and remove.
class StoredTensors : public TensorSource {
 public:
  // Replaces what has that name.
  template <class T>
  void Set(const std::string& name, const Shape& shape,
           const std::vector<T>& values) {
    CHECK_EQ(static_cast<int64_t>(values.size()), shape.elements());
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    SetBytes(name, DTypeOf<T>::value, shape, std::move(bytes));
  }
  void SetBytes(const std::string& name, DType dtype, const Shape& shape,
                std::vector<std::byte> bytes);
  void Remove(const std::string& name);
  // All of `other`.
  void Add(const TensorSource& other);

  std::vector<NamedTensor> list() const;

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override;
  absl::StatusOr<TensorView> Find(absl::string_view name) const override;

 private:
  struct Entry {
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;
  };

  const std::string path_ = "stored";
  std::vector<std::string> names_;
  std::map<std::string, Entry, std::less<>> entries_;
};

struct PackOptions {
  // GPTQ's first format: zeros less one, subtracted from whole words.
  bool zeros_less_one = false;
  bool g_idx = false;  // stored even where the matrix has no input order
  DType scales = DType::kF16;
};

// `matrix`, symmetric or with zeros, as tensors named `module` and an ending.
// An input order is stored as g_idx. REQUIRES: sizes that the layout can hold;
// AWQ: 4 bits and no input order; GEMV: groups of 16, 32, 64 or 128.
void PackGptq(const MemoryCodes& matrix, const std::string& module,
              const PackOptions& options, StoredTensors& tensors);
void PackAwqGemm(const MemoryCodes& matrix, const std::string& module,
                 const PackOptions& options, StoredTensors& tensors);
void PackAwqGemv(const MemoryCodes& matrix, const std::string& module,
                 const PackOptions& options, StoredTensors& tensors);
void PackCompressedTensors(const MemoryCodes& matrix, const std::string& module,
                           const PackOptions& options, StoredTensors& tensors);

// A tiny Llama in `dir` whose layers' 14 matrices are GPTQ's second version, 4
// bits, symmetric, in groups of 32 (all else bf16), with `settings` (JSON) for
// its "quantization_config" and `change` applied to the tensors.
absl::Status WriteQuantizedLlama(
    const std::string& dir, const std::string& settings,
    absl::FunctionRef<void(StoredTensors&)> change = [](StoredTensors&) {});

// The weights [outputs, inputs], input order undone, computed one by one from
// what Read gives for blocks of `rows` rows.
std::vector<float> Dequantize(const CodedMatrix& matrix, int64_t rows);

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_QUANTIZED_LAYERS_H_
