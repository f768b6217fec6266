#include "quantization/flow.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/manifest_config.h"
#include "models/matrix_gather.h"
#include "models/registry.h"
#include "quantization/embedded_files.h"
#include "quantization/matrix_packer.h"
#include "quantization/matrix_rows.h"
#include "quantization/output_path.h"
#include "quantization/packing_plan.h"
#include "quantization/record.h"
#include "quantization/round_to_nearest.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// A piece of the embedding, which is copied without rounding it to integers.
constexpr int64_t kPieceElements = 2 << 20;

double SecondsSince(absl::Time start) {
  return absl::ToDoubleSeconds(absl::Now() - start);
}

std::string NameOf(const std::string& path) {
  std::filesystem::path name =
      std::filesystem::path(path).lexically_normal().filename();
  if (name.empty()) {  // "folder/"
    name = std::filesystem::path(path).lexically_normal().parent_path();
    name = name.filename();
  }
  return name.string();
}

QuantizationRecord RecordOf(const Checkpoint& checkpoint,
                            const QuantizationOptions& options,
                            const PackingPlan& plan) {
  QuantizationRecord record =
      options.keep_codes
          ? KeptRecord(checkpoint, plan.tensors)
          : RoundedRecord(options.rounding, options.keep_float, plan.tensors);
  record.set_source(
      absl::StrCat(NameOf(checkpoint.path), " (", checkpoint.format, ")"));
  record.set_program_version(options.program_version);
  if (!options.method.empty()) record.set_method(options.method);
  if (!options.recipe.empty()) record.set_recipe(options.recipe);
  return record;
}

// The two passes over one checkpoint.
class Flow {
 public:
  Flow(const Checkpoint& checkpoint, const QuantizationOptions& options,
       ThreadPool& pool, const QuantizationProgress& progress)
      : checkpoint_(checkpoint),
        tensors_(*checkpoint.tensors),
        options_(options),
        progress_(progress),
        pool_(pool),
        gather_(*checkpoint.tensors, pool),
        packer_(pool) {}

  absl::Status Plan() {
    absl::StatusOr<PackingPlan> plan =
        options_.keep_codes
            ? PlanKept(checkpoint_, pool_)
            : PlanRounded(checkpoint_, options_.rounding, options_.keep_float);
    if (!plan.ok()) return plan.status();
    plan_ = *std::move(plan);
    for (const PlannedTensor& tensor : plan_.tensors) {
      if (!IsMatrix(tensor)) continue;
      if (tensor.codes) {
        total_ += tensor.codes->stored_bytes();
        continue;
      }
      const absl::StatusOr<MatrixRows> rows =
          MatrixRows::Find(tensors_, tensor.rows);
      if (!rows.ok()) return rows.status();
      total_ += 2 * rows->stored_bytes();
    }
    return absl::OkStatus();
  }

  // Codes were surveyed for the plan.
  absl::Status Survey() {
    const absl::Time start = absl::Now();
    for (PlannedTensor& tensor : plan_.tensors) {
      if (!IsMatrix(tensor) || tensor.codes) continue;
      const absl::StatusOr<MatrixRows> rows =
          MatrixRows::Find(tensors_, tensor.rows);
      if (!rows.ok()) return rows.status();
      const absl::StatusOr<PackedLayout> layout =
          packer_.Survey(*rows, SurveyLayout(tensor, *rows),
                         [this](int64_t bytes) { return Step(bytes); });
      if (!layout.ok()) return layout.status();
      if (tensor.layout() != nullptr) *tensor.layout() = *layout;
    }
    report_.survey_seconds = SecondsSince(start);
    return absl::OkStatus();
  }

  absl::StatusOr<QuantizationReport> Write(const std::string& path) {
    absl::StatusOr<PackedFileWriter> writer = CreateWriter(path);
    if (!writer.ok()) return writer.status();
    for (const PlannedTensor& tensor : plan_.tensors) {
      const absl::Status written = IsMatrix(tensor)
                                       ? WriteMatrix(tensor, *writer)
                                       : WriteVector(tensor, *writer);
      if (!written.ok()) return written;
    }
    absl::Status status = tensors_.CheckUnchanged();
    // Asked once more: the last steps take no time.
    if (status.ok()) status = Step(0);
    if (status.ok()) status = writer->Commit();
    if (!status.ok()) return status;
    report_.relative_error =
        loss_.signal > 0 ? std::sqrt(loss_.error / loss_.signal) : 0.0;
    return std::move(report_);
  }

 private:
  static bool IsMatrix(const PlannedTensor& tensor) {
    return tensor.layout() != nullptr ||
           std::get<PlainTensor>(tensor.what).shape.rank() == 2;
  }

  // An embedding that becomes bf16 must have values in its range.
  static PackedLayout SurveyLayout(const PlannedTensor& tensor,
                                   const MatrixRows& rows) {
    if (tensor.layout() != nullptr) return *tensor.layout();
    PackedLayout layout;
    layout.format = std::get<PlainTensor>(tensor.what).dtype == DType::kBF16
                        ? WeightFormat::kBF16
                        : WeightFormat::kF32;
    layout.outputs = rows.rows();
    layout.inputs = rows.inputs();
    return layout;
  }

  absl::Status Step(int64_t bytes) {
    if (options_.cancelled != nullptr && options_.cancelled->load()) {
      return absl::CancelledError("interrupted; nothing was written");
    }
    done_ += bytes;
    if (progress_) progress_(std::min(done_, total_), total_);
    return absl::OkStatus();
  }

  absl::StatusOr<PackedFileWriter> CreateWriter(const std::string& path) const {
    absl::StatusOr<std::vector<EmbeddedFile>> files = FilesToEmbed(checkpoint_);
    if (!files.ok()) return files.status();
    PackedManifest manifest;
    ToManifest(plan_.config, manifest.mutable_config());
    *manifest.mutable_record() = RecordOf(checkpoint_, options_, plan_);
    std::vector<PackedTensorPlan> tensors;
    for (const PlannedTensor& tensor : plan_.tensors) {
      tensors.push_back({tensor.name, tensor.what});
    }
    return PackedFileWriter::Create(path, std::move(manifest), tensors, *files);
  }

  absl::Status WriteVector(const PlannedTensor& tensor,
                           PackedFileWriter& writer) {
    if (!tensor.input_order.empty()) {
      return writer.Append(absl::MakeConstSpan(
          reinterpret_cast<const std::byte*>(tensor.input_order.data()),
          tensor.input_order.size() * sizeof(int32_t)));
    }
    const absl::StatusOr<Array<float>> values = gather_.Bias(tensor.rows);
    if (!values.ok()) return values.status();
    return writer.Append(
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values->data()),
                            values->size() * sizeof(float)));
  }

  absl::Status WriteMatrix(const PlannedTensor& tensor,
                           PackedFileWriter& writer) {
    const absl::Time start = absl::Now();
    const absl::StatusOr<MatrixRows> rows =
        MatrixRows::Find(tensors_, tensor.rows);
    if (!rows.ok()) return rows.status();
    QuantizedTensor done;
    done.name = tensor.name;
    done.outputs = rows->rows();
    done.inputs = rows->inputs();
    done.stored_bytes = rows->stored_bytes();
    absl::Status written;
    if (tensor.codes) {
      written = WriteCodes(tensor, writer, done);
    } else if (tensor.layout() != nullptr) {
      written = WritePacked(*rows, *tensor.layout(), writer, done);
    } else {
      written = WriteEmbedding(tensor, *rows, writer, done);
    }
    if (!written.ok()) return written;
    done.seconds = SecondsSince(start);
    report_.stored_bytes += done.stored_bytes;
    report_.tensors.push_back(std::move(done));
    return absl::OkStatus();
  }

  absl::Status WriteCodes(const PlannedTensor& tensor, PackedFileWriter& writer,
                          QuantizedTensor& done) {
    const PackedLayout& layout = *tensor.layout();
    done.format = std::string(WeightFormatName(layout.format));
    done.wide_scales = layout.wide_scales;
    done.bytes = layout.bytes();
    return packer_.Keep(
        *tensor.codes, layout,
        [&writer](absl::Span<const std::byte> bytes) {
          return writer.Append(bytes);
        },
        [this](int64_t bytes) { return Step(bytes); });
  }

  absl::Status WritePacked(const MatrixRows& rows, const PackedLayout& layout,
                           PackedFileWriter& writer, QuantizedTensor& done) {
    const absl::StatusOr<RoundingLoss> loss = packer_.Pack(
        rows, layout,
        [&writer](absl::Span<const std::byte> bytes) {
          return writer.Append(bytes);
        },
        [this](int64_t bytes) { return Step(bytes); });
    if (!loss.ok()) return loss.status();
    done.format = std::string(WeightFormatName(layout.format));
    done.wide_scales = layout.wide_scales;
    done.bytes = layout.bytes();
    if (IsInteger(layout.format)) {
      done.relative_error =
          loss->signal > 0 ? std::sqrt(loss->error / loss->signal) : 0.0;
      loss_.error += loss->error;
      loss_.signal += loss->signal;
    }
    return absl::OkStatus();
  }

  absl::Status WriteEmbedding(const PlannedTensor& tensor,
                              const MatrixRows& rows, PackedFileWriter& writer,
                              QuantizedTensor& done) {
    const DType dtype = std::get<PlainTensor>(tensor.what).dtype;
    done.format = std::string(DTypeName(dtype));
    const absl::StatusOr<TensorView> stored =
        tensors_.Find(tensor.rows[0].tensor);
    const bool as_it_is = stored.ok() && stored->dtype == dtype;
    const int64_t block = std::max<int64_t>(1, kPieceElements / rows.inputs());
    for (int64_t first = 0; first < rows.rows(); first += block) {
      const int64_t count = std::min(block, rows.rows() - first);
      absl::Status status;
      if (as_it_is) {
        const size_t row_bytes =
            stored->bytes / static_cast<size_t>(rows.rows());
        const size_t bytes = static_cast<size_t>(count) * row_bytes;
        status = writer.Append(absl::MakeConstSpan(
            stored->data + static_cast<size_t>(first) * row_bytes, bytes));
        done.bytes += static_cast<int64_t>(bytes);
      } else {
        status = AppendFloats(rows, first, count, dtype, writer, done);
      }
      rows.Release(first, count);
      if (status.ok()) {
        status = Step(rows.stored_bytes() / rows.rows() * count);
      }
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // Rows as f32 or, rounded, as bf16.
  static absl::Status AppendFloats(const MatrixRows& rows, int64_t first,
                                   int64_t count, DType dtype,
                                   PackedFileWriter& writer,
                                   QuantizedTensor& done) {
    const size_t inputs = static_cast<size_t>(rows.inputs());
    Array<float> values(static_cast<size_t>(count) * inputs);
    for (int64_t i = 0; i < count; ++i) {
      const absl::Status read = rows.Read(
          first + i,
          values.span().subspan(static_cast<size_t>(i) * inputs, inputs));
      if (!read.ok()) return rows.Error(first + i, read);
    }
    absl::Span<const std::byte> bytes(
        reinterpret_cast<const std::byte*>(values.data()),
        values.size() * sizeof(float));
    Array<BF16> narrow;
    if (dtype == DType::kBF16) {
      narrow = Array<BF16>(values.size());
      F32ToBF16(values.span(), narrow.span());
      bytes =
          absl::MakeConstSpan(reinterpret_cast<const std::byte*>(narrow.data()),
                              narrow.size() * sizeof(BF16));
    }
    done.bytes += static_cast<int64_t>(bytes.size());
    return writer.Append(bytes);
  }

  const Checkpoint& checkpoint_;
  const TensorSource& tensors_;
  const QuantizationOptions& options_;
  const QuantizationProgress& progress_;
  ThreadPool& pool_;
  MatrixGather gather_;
  MatrixPacker packer_;
  PackingPlan plan_;
  int64_t done_ = 0;   // bytes of matrices read,
  int64_t total_ = 0;  // of this many in both passes
  RoundingLoss loss_;  // of all integer matrices
  QuantizationReport report_;
};

}  // namespace

absl::StatusOr<QuantizationReport> QuantizeCheckpoint(
    const std::string& model_path, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress) {
  const absl::Time start = absl::Now();
  const absl::Status paths = CheckOutput(model_path, out_path);
  if (!paths.ok()) return paths;
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<QuantizationReport> report =
      QuantizeOpenCheckpoint(*checkpoint, out_path, options, pool, progress);
  if (report.ok()) report->seconds = SecondsSince(start);
  return report;
}

absl::StatusOr<QuantizationReport> QuantizeOpenCheckpoint(
    const Checkpoint& checkpoint, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress) {
  const absl::Time start = absl::Now();
  if (checkpoint.packed != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.path,
                     ": is packed already; give the checkpoint it was made "
                     "from"));
  }
  Flow flow(checkpoint, options, pool, progress);
  absl::Status status = flow.Plan();
  if (status.ok()) status = flow.Survey();
  if (!status.ok()) return status;
  absl::StatusOr<QuantizationReport> report = flow.Write(out_path);
  if (!report.ok()) return report.status();
  std::error_code error;
  report->file_bytes =
      static_cast<int64_t>(std::filesystem::file_size(out_path, error));
  report->seconds = SecondsSince(start);
  return report;
}

}  // namespace nibble
