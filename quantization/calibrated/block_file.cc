#include "quantization/calibrated/block_file.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/convert/convert.h"
#include "models/coded_values.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr char kReportFile[] = "report.pb";
constexpr char kMarker[] = "transformed";

// Written in pieces of about this much.
constexpr int64_t kPieceBytes = 4 << 20;

int64_t RowBytes(int bits, int64_t inputs) {
  return bits <= 4 ? (inputs + 1) / 2 : inputs;
}

template <class T>
absl::Span<const std::byte> Bytes(absl::Span<const T> values) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                             values.size() * sizeof(T));
}

// Tensors in the order in which they are planned and then written.
class BlockWriter {
 public:
  explicit BlockWriter(const FinishedBlock& block) {
    for (const LinearId id : kAllLinears) {
      const auto& codes = block.codes[static_cast<size_t>(id)];
      if (codes.has_value()) {
        AddCodes(LinearName(id), *codes);
      } else if (block.transformed != nullptr) {
        AddFloats(LinearName(id), (*block.transformed)[id]);
      }
      if (block.transformed != nullptr) {
        AddVector(absl::StrCat(LinearName(id), ".bias"),
                  (*block.transformed)[id].bias.span());
      }
    }
    if (block.transformed != nullptr) {
      AddNorm("attention_norm", block.transformed->attention_norm);
      AddNorm("mlp_norm", block.transformed->mlp_norm);
    }
    marker_[0] = block.transformed != nullptr ? 1 : 0;
    Add(kMarker, DType::kI32, Shape({1}), Bytes<int32_t>(marker_));
    CHECK(block.report.has_layer());  // an embedded file has bytes
    report_ = block.report.SerializeAsString();
  }

  absl::Status Write(const std::string& path) {
    std::vector<PackedTensorPlan> plan;
    for (const Part& part : parts_) {
      plan.push_back({part.name, PlainTensor{part.dtype, part.shape}});
    }
    absl::StatusOr<PackedFileWriter> writer = PackedFileWriter::Create(
        path, PackedManifest(), plan, {{kReportFile, report_}});
    if (!writer.ok()) return writer.status();
    for (const Part& part : parts_) {
      const absl::Status status =
          part.codes != nullptr    ? WriteCodes(*part.codes, *writer)
          : part.floats != nullptr ? WriteFloats(*part.floats, *writer)
                                   : writer->Append(part.bytes);
      if (!status.ok()) return status;
    }
    return writer->Commit();
  }

 private:
  struct Part {
    std::string name;
    DType dtype;
    Shape shape;
    absl::Span<const std::byte> bytes;
    const QuantizedMatrix* codes = nullptr;
    const BlockLinear<float>* floats = nullptr;
  };

  void Add(std::string name, DType dtype, Shape shape,
           absl::Span<const std::byte> bytes) {
    parts_.push_back({std::move(name), dtype, shape, bytes});
  }

  void AddVector(std::string name, absl::Span<const float> values) {
    if (values.empty()) return;
    Add(std::move(name), DType::kF32,
        Shape({static_cast<int64_t>(values.size())}), Bytes(values));
  }

  void AddNorm(absl::string_view name, const BlockNorm<float>& norm) {
    AddVector(absl::StrCat(name, ".weight"), norm.weight.span());
    AddVector(absl::StrCat(name, ".bias"), norm.bias.span());
  }

  void AddCodes(absl::string_view name, const QuantizedMatrix& matrix) {
    const Shape grid({matrix.outputs, matrix.groups()});
    parts_.push_back(
        {absl::StrCat(name, ".codes"),
         DType::kU8,
         Shape({matrix.outputs, RowBytes(matrix.spec.bits, matrix.inputs)}),
         {},
         &matrix});
    Add(absl::StrCat(name, ".scales"), DType::kF32, grid,
        Bytes(matrix.scales.span()));
    if (!matrix.offsets.empty()) {
      Add(absl::StrCat(name, ".offsets"), DType::kF32, grid,
          Bytes(matrix.offsets.span()));
    }
    forms_.push_back(
        {matrix.spec.bits,
         static_cast<int32_t>(matrix.spec.group_inputs(matrix.inputs)),
         static_cast<int32_t>(matrix.spec.offset),
         static_cast<int32_t>(matrix.inputs)});
    Add(absl::StrCat(name, ".form"), DType::kI32, Shape({4}),
        Bytes<int32_t>(forms_.back()));
    if (!matrix.input_order.empty()) {
      Add(absl::StrCat(name, ".input_order"), DType::kI32,
          Shape({matrix.inputs}), Bytes<int32_t>(matrix.input_order));
    }
  }

  void AddFloats(absl::string_view name, const BlockLinear<float>& linear) {
    parts_.push_back({absl::StrCat(name, ".weight"),
                      DType::kBF16,
                      Shape({linear.outputs, linear.inputs}),
                      {},
                      nullptr,
                      &linear});
  }

  static absl::Status WriteCodes(const QuantizedMatrix& matrix,
                                 PackedFileWriter& writer) {
    const int64_t row_bytes = RowBytes(matrix.spec.bits, matrix.inputs);
    std::vector<uint8_t> packed;
    for (int64_t row = 0; row < matrix.outputs; ++row) {
      const absl::Span<const uint8_t> codes = matrix.row_codes(row);
      const size_t at = packed.size();
      packed.resize(at + static_cast<size_t>(row_bytes));
      if (matrix.spec.bits > 4) {
        std::memcpy(packed.data() + at, codes.data(), codes.size());
      } else {
        for (size_t j = 0; j < codes.size(); ++j) {
          packed[at + j / 2] |= static_cast<uint8_t>(codes[j] << (j % 2 * 4));
        }
      }
      const bool last = row + 1 == matrix.outputs;
      if (!last && static_cast<int64_t>(packed.size()) < kPieceBytes) continue;
      const absl::Status status = writer.Append(Bytes<uint8_t>(packed));
      if (!status.ok()) return status;
      packed.clear();
    }
    return absl::OkStatus();
  }

  static absl::Status WriteFloats(const BlockLinear<float>& linear,
                                  PackedFileWriter& writer) {
    std::vector<BF16> row(static_cast<size_t>(linear.inputs));
    for (int64_t i = 0; i < linear.outputs; ++i) {
      F32ToBF16(linear.view().row_span(i), absl::MakeSpan(row));
      const absl::Status status = writer.Append(Bytes<BF16>(row));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  std::vector<Part> parts_;
  // Their addresses stand in parts_; of each matrix one.
  std::vector<std::array<int32_t, 4>> forms_ = Reserved();
  std::array<int32_t, 1> marker_ = {0};
  std::string report_;

  static std::vector<std::array<int32_t, 4>> Reserved() {
    std::vector<std::array<int32_t, 4>> forms;
    forms.reserve(kLinearCount);
    return forms;
  }
};

// The codes of a matrix in a mapped file.
class MappedCodes : public CodedMatrix {
 public:
  MappedCodes(const CodedForm& form, TensorView codes, TensorView scales,
              TensorView offsets)
      : form_(form),
        codes_(codes.As<uint8_t>()),
        scales_(scales.As<float>()),
        offsets_(offsets.data == nullptr ? absl::Span<const float>()
                                         : offsets.As<float>()) {}

  const CodedForm& form() const override { return form_; }
  int64_t stored_bytes() const override {
    return static_cast<int64_t>(
        codes_.size() + sizeof(float) * (scales_.size() + offsets_.size()));
  }

  void Read(int64_t first_row, int64_t rows,
            const CodedRowsBuffer& out) const override {
    const int64_t groups = form_.groups();
    const size_t count = static_cast<size_t>(rows * groups);
    const size_t first = static_cast<size_t>(first_row * groups);
    std::memcpy(out.scales.data(), scales_.data() + first,
                count * sizeof(float));
    if (!offsets_.empty()) {
      std::memcpy(out.offsets.data(), offsets_.data() + first,
                  count * sizeof(float));
    }
    if (out.codes.empty()) return;
    const int64_t row_bytes = RowBytes(form_.bits, form_.inputs);
    for (int64_t i = 0; i < rows; ++i) {
      const uint8_t* stored = codes_.data() + (first_row + i) * row_bytes;
      uint8_t* codes = out.codes.data() + i * form_.inputs;
      if (form_.bits > 4) {
        std::memcpy(codes, stored, static_cast<size_t>(form_.inputs));
        continue;
      }
      for (int64_t j = 0; j < form_.inputs; ++j) {
        codes[j] = static_cast<uint8_t>(stored[j / 2] >> (j % 2 * 4) & 15);
      }
    }
  }

 private:
  const CodedForm form_;
  const absl::Span<const uint8_t> codes_;  // [outputs, row bytes]
  const absl::Span<const float> scales_;   // [outputs, groups]
  const absl::Span<const float> offsets_;  // [outputs, groups] or empty
};

void CopyTo(absl::Span<const float> from, Array<float>& to) {
  if (!from.empty()) std::copy(from.begin(), from.end(), to.begin());
}

absl::Status Damaged(const PackedFile& file, absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat(file.path(), ": ", what, "; the file is damaged"));
}

}  // namespace

const char* LinearName(LinearId id) {
  switch (id) {
    case LinearId::kQkv:
      return "qkv";
    case LinearId::kAttention:
      return "attention";
    case LinearId::kUp:
      return "up";
    case LinearId::kDown:
      break;
  }
  return "down";
}

void ApplyBlock(const BlockFile& block, BlockWeights<float>& weights,
                ThreadPool& pool) {
  for (const LinearId id : kAllLinears) {
    BlockLinear<float>& linear = weights[id];
    const CodedMatrix* codes = block.codes(id);
    if (codes != nullptr) {
      pool.ParallelFor(linear.outputs, [&](int64_t begin, int64_t end, int) {
        CodedReader reader(*codes);
        for (int64_t row = begin; row < end; ++row) {
          reader.Read(row, 1, linear.view().row_span(row));
        }
      });
    } else if (const absl::Span<const BF16> floats = block.floats(id);
               !floats.empty()) {
      BF16ToF32(floats, linear.weight.span());
    }
    CopyTo(block.bias(id), linear.bias);
  }
  CopyTo(block.norm("attention_norm.weight"), weights.attention_norm.weight);
  CopyTo(block.norm("attention_norm.bias"), weights.attention_norm.bias);
  CopyTo(block.norm("mlp_norm.weight"), weights.mlp_norm.weight);
  CopyTo(block.norm("mlp_norm.bias"), weights.mlp_norm.bias);
}

absl::Status WriteBlock(const std::string& path, const FinishedBlock& block) {
  return BlockWriter(block).Write(path);
}

absl::StatusOr<std::shared_ptr<const BlockFile>> BlockFile::Open(
    const std::string& path) {
  absl::StatusOr<std::shared_ptr<const PackedFile>> file =
      PackedFile::Open(path);
  if (absl::IsInvalidArgument(file.status())) {
    return absl::DataLossError(file.status().message());  // cut off, or other
  }
  if (!file.ok()) return file.status();
  const absl::Status sound = (*file)->VerifyAll();
  if (!sound.ok()) return sound;
  auto block = std::shared_ptr<BlockFile>(new BlockFile());
  block->file_ = *std::move(file);
  const PackedFile& stored = *block->file_;
  const absl::StatusOr<absl::string_view> report = stored.FindFile(kReportFile);
  const absl::StatusOr<TensorView> marker = stored.Find(kMarker);
  if (!report.ok() || !marker.ok() || marker->dtype != DType::kI32 ||
      !block->report_.ParseFromArray(report->data(),
                                     static_cast<int>(report->size()))) {
    return Damaged(stored, "is no finished block");
  }
  block->transformed_ = marker->As<int32_t>()[0] != 0;
  for (const LinearId id : kAllLinears) {
    const absl::Status read = block->ReadLinear(id);
    if (!read.ok()) return read;
  }
  return block;
}

absl::Status BlockFile::ReadLinear(LinearId id) {
  const std::string name = LinearName(id);
  if (!file_->Contains(name + ".codes")) return absl::OkStatus();
  const absl::StatusOr<TensorView> codes = file_->Find(name + ".codes");
  const absl::StatusOr<TensorView> scales = file_->Find(name + ".scales");
  const absl::StatusOr<TensorView> stored = file_->Find(name + ".form");
  const absl::StatusOr<TensorView> offsets = file_->Find(name + ".offsets");
  const absl::StatusOr<TensorView> order = file_->Find(name + ".input_order");
  if (!scales.ok() || !stored.ok()) {
    return Damaged(*file_, name + " lacks its scales");
  }
  const absl::Span<const int32_t> numbers = stored->As<int32_t>();
  CodedForm form;
  form.outputs = codes->shape.dim(0);
  form.bits = numbers[0];
  form.group_size = numbers[1];
  form.offset = static_cast<CodeOffset>(numbers[2]);
  form.inputs = numbers[3];
  if (order.ok()) form.input_order = order->As<int32_t>();
  codes_[static_cast<size_t>(id)] = std::make_unique<MappedCodes>(
      form, *codes, *scales, offsets.ok() ? *offsets : TensorView());
  return absl::OkStatus();
}

absl::Span<const BF16> BlockFile::floats(LinearId id) const {
  const absl::StatusOr<TensorView> view =
      file_->Find(absl::StrCat(LinearName(id), ".weight"));
  return view.ok() ? view->As<BF16>() : absl::Span<const BF16>();
}

absl::Span<const float> BlockFile::bias(LinearId id) const {
  return norm(absl::StrCat(LinearName(id), ".bias").c_str());
}

absl::Span<const float> BlockFile::norm(const char* name) const {
  const absl::StatusOr<TensorView> view = file_->Find(name);
  return view.ok() ? view->As<float>() : absl::Span<const float>();
}

}  // namespace nibble
