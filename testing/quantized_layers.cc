#include "testing/quantized_layers.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tensor/bf16.h"
#include "testing/random_tensor.h"
#include "testing/tiny_model.h"

namespace nibble::testing {
namespace {

// A matrix of 32-bit words that fields are written into.
class Words {
 public:
  Words(int64_t rows, int64_t cols)
      : cols_(cols), words_(static_cast<size_t>(rows * cols)) {}

  uint32_t& at(int64_t row, int64_t col) { return words_[row * cols_ + col]; }

  void Store(const std::string& name, StoredTensors& tensors) const {
    tensors.Set(name, {static_cast<int64_t>(words_.size()) / cols_, cols_},
                std::vector<int32_t>(words_.begin(), words_.end()));
  }

 private:
  int64_t cols_;
  std::vector<uint32_t> words_;
};

int64_t WordCount(int64_t fields, int bits) {
  return (fields * bits + 31) / 32;
}

// Bit by bit: field `index` of a stream, whose word i is word(i).
template <class Word>
void PutField(int64_t index, int bits, uint32_t value, const Word& word) {
  for (int b = 0; b < bits; ++b) {
    const int64_t bit = index * bits + b;
    word(bit / 32) |= (value >> b & 1) << (bit % 32);
  }
}

uint32_t ZeroOf(const MemoryCodes& matrix, int64_t row, int64_t group) {
  return matrix.offsets.empty()
             ? 1u << (matrix.shape.bits - 1)
             : static_cast<uint32_t>(
                   matrix.offsets[row * matrix.shape.groups() + group]);
}

// [outputs, columns] or, `by_group`, [groups, outputs]; columns beyond the
// groups are padding.
void StoreScales(const MemoryCodes& matrix, const std::string& name,
                 bool by_group, int64_t columns, DType dtype,
                 StoredTensors& tensors) {
  const int64_t outputs = matrix.shape.outputs, groups = matrix.shape.groups();
  std::vector<float> scales(static_cast<size_t>(outputs * columns));
  for (int64_t row = 0; row < outputs; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      scales[by_group ? g * outputs + row : row * columns + g] =
          matrix.scales[row * groups + g];
    }
  }
  const Shape shape =
      by_group ? Shape({groups, outputs}) : Shape({outputs, columns});
  if (dtype == DType::kF32) return tensors.Set(name, shape, scales);
  if (dtype == DType::kF16) {
    std::vector<F16> narrow(scales.size());
    absl::c_transform(scales, narrow.begin(), [](float s) { return ToF16(s); });
    return tensors.Set(name, shape, narrow);
  }
  std::vector<BF16> narrow(scales.size());
  absl::c_transform(scales, narrow.begin(), [](float s) { return ToBF16(s); });
  tensors.Set(name, shape, narrow);
}

// The input that code k of a row belongs to.
int64_t InputOf(const MemoryCodes& matrix, int64_t k) {
  return matrix.order.empty() ? k : matrix.order[k];
}

void StoreGroupIndex(const MemoryCodes& matrix, const std::string& name,
                     bool always, StoredTensors& tensors) {
  if (matrix.order.empty() && !always) return;
  std::vector<int32_t> g_idx(static_cast<size_t>(matrix.shape.inputs));
  for (int64_t k = 0; k < matrix.shape.inputs; ++k) {
    g_idx[InputOf(matrix, k)] =
        static_cast<int32_t>(k / matrix.shape.group_size);
  }
  tensors.Set(name, {matrix.shape.inputs}, g_idx);
}

}  // namespace

void StoredTensors::SetBytes(const std::string& name, DType dtype,
                             const Shape& shape, std::vector<std::byte> bytes) {
  entries_[name] = Entry{dtype, shape, std::move(bytes)};
  names_.clear();
  for (const auto& [stored, entry] : entries_) names_.push_back(stored);
}

void StoredTensors::Remove(const std::string& name) {
  CHECK_EQ(entries_.erase(name), 1u) << name;
  names_.erase(absl::c_find(names_, name));
}

void StoredTensors::Add(const TensorSource& other) {
  for (const std::string& name : other.names()) {
    const TensorView view = *other.Find(name);
    SetBytes(name, view.dtype, view.shape,
             std::vector<std::byte>(view.data, view.data + view.bytes));
  }
}

std::vector<NamedTensor> StoredTensors::list() const {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : names_) tensors.push_back({name, *Find(name)});
  return tensors;
}

bool StoredTensors::Contains(absl::string_view name) const {
  return entries_.find(name) != entries_.end();
}

absl::StatusOr<TensorView> StoredTensors::Find(absl::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    return absl::NotFoundError(absl::StrCat(path_, ": no tensor ", name));
  }
  const Entry& entry = found->second;
  return TensorView{entry.dtype, entry.shape, entry.bytes.data(),
                    entry.bytes.size()};
}

void PackGptq(const MemoryCodes& matrix, const std::string& module,
              const PackOptions& options, StoredTensors& tensors) {
  const CodedForm& form = matrix.shape;
  Words codes(WordCount(form.inputs, form.bits), form.outputs);
  for (int64_t row = 0; row < form.outputs; ++row) {
    for (int64_t k = 0; k < form.inputs; ++k) {
      PutField(InputOf(matrix, k), form.bits,
               matrix.codes[row * form.inputs + k],
               [&](int64_t i) -> uint32_t& { return codes.at(i, row); });
    }
  }
  const int64_t words = WordCount(form.outputs, form.bits);
  const uint32_t mask = (1u << form.bits) - 1;
  const bool straddles = 32 % form.bits != 0;
  Words zeros(form.groups(), words);
  for (int64_t g = 0; g < form.groups(); ++g) {
    for (int64_t row = 0; row < form.outputs; ++row) {
      const uint32_t less = options.zeros_less_one && straddles ? 1 : 0;
      PutField(row, form.bits, (ZeroOf(matrix, row, g) - less) & mask,
               [&](int64_t i) -> uint32_t& { return zeros.at(g, i); });
    }
    if (!options.zeros_less_one || straddles) continue;
    for (int64_t i = 0; i < words; ++i) {
      for (int bit = 0; bit < 32; bit += form.bits) zeros.at(g, i) -= 1u << bit;
    }
  }
  codes.Store(module + ".qweight", tensors);
  zeros.Store(module + ".qzeros", tensors);
  StoreScales(matrix, module + ".scales", true, form.groups(), options.scales,
              tensors);
  StoreGroupIndex(matrix, module + ".g_idx", options.g_idx, tensors);
}

void PackAwqGemm(const MemoryCodes& matrix, const std::string& module,
                 const PackOptions& options, StoredTensors& tensors) {
  const CodedForm& form = matrix.shape;
  CHECK(form.bits == 4 && form.outputs % 8 == 0 && matrix.order.empty());
  // The nibble that output 8 c + i of a word takes.
  constexpr int kNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  Words codes(form.inputs, form.outputs / 8);
  Words zeros(form.groups(), form.outputs / 8);
  for (int64_t row = 0; row < form.outputs; ++row) {
    const int shift = 4 * kNibble[row % 8];
    for (int64_t k = 0; k < form.inputs; ++k) {
      codes.at(k, row / 8) |= uint32_t{matrix.codes[row * form.inputs + k]}
                              << shift;
    }
    for (int64_t g = 0; g < form.groups(); ++g) {
      zeros.at(g, row / 8) |= ZeroOf(matrix, row, g) << shift;
    }
  }
  codes.Store(module + ".qweight", tensors);
  zeros.Store(module + ".qzeros", tensors);
  StoreScales(matrix, module + ".scales", true, form.groups(), options.scales,
              tensors);
}

void PackAwqGemv(const MemoryCodes& matrix, const std::string& module,
                 const PackOptions& options, StoredTensors& tensors) {
  const CodedForm& form = matrix.shape;
  CHECK(form.bits == 4 && form.inputs % 8 == 0 && matrix.order.empty());
  const int64_t multiple = 128 / std::min<int64_t>(128, form.group_size);
  const int64_t words =
      (WordCount(form.groups(), 4) + multiple - 1) / multiple * multiple;
  Words codes(form.outputs, form.inputs / 8);
  Words zeros(form.outputs, words);
  for (int64_t row = 0; row < form.outputs; ++row) {
    for (int64_t k = 0; k < form.inputs; ++k) {
      PutField(k, 4, matrix.codes[row * form.inputs + k],
               [&](int64_t i) -> uint32_t& { return codes.at(row, i); });
    }
    for (int64_t g = 0; g < form.groups(); ++g) {
      PutField(g, 4, ZeroOf(matrix, row, g),
               [&](int64_t i) -> uint32_t& { return zeros.at(row, i); });
    }
  }
  codes.Store(module + ".qweight", tensors);
  zeros.Store(module + ".qzeros", tensors);
  StoreScales(matrix, module + ".scales", false, 8 * words, options.scales,
              tensors);
}

void PackCompressedTensors(const MemoryCodes& matrix, const std::string& module,
                           const PackOptions& options, StoredTensors& tensors) {
  const CodedForm& form = matrix.shape;
  Words codes(form.outputs, WordCount(form.inputs, form.bits));
  Words zeros(WordCount(form.outputs, form.bits), form.groups());
  for (int64_t row = 0; row < form.outputs; ++row) {
    for (int64_t k = 0; k < form.inputs; ++k) {
      PutField(InputOf(matrix, k), form.bits,
               matrix.codes[row * form.inputs + k],
               [&](int64_t i) -> uint32_t& { return codes.at(row, i); });
    }
    for (int64_t g = 0; g < form.groups(); ++g) {
      PutField(row, form.bits, ZeroOf(matrix, row, g),
               [&](int64_t i) -> uint32_t& { return zeros.at(i, g); });
    }
  }
  codes.Store(module + ".weight_packed", tensors);
  if (form.offset == CodeOffset::kZeros) {
    zeros.Store(module + ".weight_zero_point", tensors);
  }
  tensors.Set(module + ".weight_shape", {2},
              std::vector<int64_t>{form.outputs, form.inputs});
  StoreScales(matrix, module + ".weight_scale", false, form.groups(),
              options.scales, tensors);
  StoreGroupIndex(matrix, module + ".weight_g_idx", options.g_idx, tensors);
}

absl::Status WriteQuantizedLlama(
    const std::string& dir, const std::string& settings,
    absl::FunctionRef<void(StoredTensors&)> change) {
  TinyModelOptions options;
  options.hidden = 64;
  options.head_dim = 16;
  options.ffn = 96;
  options.dtype = DType::kBF16;
  options.extra_config = "\"quantization_config\": " + settings;
  const absl::Status written = WriteTinyLlama(dir, options);
  if (!written.ok()) return written;
  StoredTensors tensors;
  {
    const absl::StatusOr<std::unique_ptr<TensorSource>> floats =
        OpenSafetensorsFolder(dir);
    if (!floats.ok()) return floats.status();
    tensors.Add(**floats);
  }
  RandomValues random(1);
  const std::vector<std::string> names = tensors.names();
  for (absl::string_view module : names) {
    const Shape shape = tensors.Find(module)->shape;
    if (!absl::ConsumeSuffix(&module, ".weight") ||
        !absl::EndsWith(module, "_proj")) {
      continue;
    }
    const auto codes = RandomCodes(
        {shape.dim(0), shape.dim(1), 4, 32, CodeOffset::kSymmetric, {}},
        random);
    tensors.Remove(absl::StrCat(module, ".weight"));
    PackGptq(*codes, std::string(module), {}, tensors);
  }
  change(tensors);
  return WriteSafetensors(dir + "/model.safetensors", tensors.list());
}

std::vector<float> Dequantize(const CodedMatrix& matrix, int64_t rows) {
  const CodedForm& form = matrix.form();
  MemoryCodes block;
  block.shape = form;
  std::vector<float> weights(static_cast<size_t>(form.outputs * form.inputs));
  for (int64_t first = 0; first < form.outputs; first += rows) {
    const int64_t count = std::min(rows, form.outputs - first);
    block.codes.assign(static_cast<size_t>(count * form.inputs), 0xFF);
    block.scales.assign(static_cast<size_t>(count * form.groups()), 0);
    block.offsets.assign(
        form.offset == CodeOffset::kSymmetric ? 0 : block.scales.size(), 0);
    matrix.Read(first, count,
                {absl::MakeSpan(block.codes), absl::MakeSpan(block.scales),
                 absl::MakeSpan(block.offsets)});
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t k = 0; k < form.inputs; ++k) {
        const int64_t input =
            form.input_order.empty() ? k : form.input_order[k];
        weights[(first + row) * form.inputs + input] = block.Value(row, k);
      }
    }
  }
  return weights;
}

}  // namespace nibble::testing
