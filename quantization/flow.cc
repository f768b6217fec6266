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
                            absl::Span<const PlannedTensor> plan) {
  const RoundingOptions& rounding = options.rounding;
  QuantizationRecord record;
  record.set_method("rtn");
  record.set_bits(rounding.bits);
  record.set_group_size(rounding.group_size == kWholeRow ? 0
                                                         : rounding.group_size);
  record.set_symmetric(rounding.bits == 8 || rounding.symmetric);
  record.set_keep_float(options.keep_float);
  record.set_source(
      absl::StrCat(NameOf(checkpoint.path), " (", checkpoint.format, ")"));
  record.set_program_version(options.program_version);
  for (const PlannedTensor& tensor : plan) {
    if (tensor.layout() == nullptr || IsInteger(tensor.layout()->format)) {
      continue;
    }
    QuantizationRecord::Override* kept = record.add_overrides();
    kept->set_tensor(tensor.name);
    kept->set_format(std::string(WeightFormatName(tensor.layout()->format)));
    kept->set_reason("keep_float");
  }
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
        gather_(*checkpoint.tensors, pool),
        packer_(pool) {}

  absl::Status Plan() {
    absl::StatusOr<std::vector<PlannedTensor>> plan =
        PlanTensors(checkpoint_, options_.rounding, options_.keep_float);
    if (!plan.ok()) return plan.status();
    plan_ = *std::move(plan);
    for (const PlannedTensor& tensor : plan_) {
      if (!IsMatrix(tensor)) continue;
      const absl::StatusOr<MatrixRows> rows =
          MatrixRows::Find(tensors_, tensor.rows);
      if (!rows.ok()) return rows.status();
      total_ += 2 * rows->stored_bytes();
    }
    return absl::OkStatus();
  }

  absl::Status Survey() {
    const absl::Time start = absl::Now();
    for (PlannedTensor& tensor : plan_) {
      if (!IsMatrix(tensor)) continue;
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
    for (const PlannedTensor& tensor : plan_) {
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

  // The embedding's values must be as a matrix of bf16 would have them.
  static PackedLayout SurveyLayout(const PlannedTensor& tensor,
                                   const MatrixRows& rows) {
    if (tensor.layout() != nullptr) return *tensor.layout();
    PackedLayout layout;
    layout.format = WeightFormat::kBF16;
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
    ToManifest(checkpoint_.config, manifest.mutable_config());
    *manifest.mutable_record() = RecordOf(checkpoint_, options_, plan_);
    std::vector<PackedTensorPlan> tensors;
    for (const PlannedTensor& tensor : plan_) {
      tensors.push_back({tensor.name, tensor.what});
    }
    return PackedFileWriter::Create(path, std::move(manifest), tensors, *files);
  }

  absl::Status WriteVector(const PlannedTensor& tensor,
                           PackedFileWriter& writer) {
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
    const absl::Status written =
        tensor.layout() != nullptr
            ? WritePacked(*rows, *tensor.layout(), writer, done)
            : WriteEmbedding(tensor, writer, done);
    if (!written.ok()) return written;
    done.seconds = SecondsSince(start);
    report_.stored_bytes += done.stored_bytes;
    report_.tensors.push_back(std::move(done));
    return absl::OkStatus();
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
                              PackedFileWriter& writer, QuantizedTensor& done) {
    const absl::StatusOr<TensorView> stored =
        tensors_.Find(tensor.rows[0].tensor);
    if (!stored.ok()) return stored.status();
    const DType dtype = std::get<PlainTensor>(tensor.what).dtype;
    done.format = std::string(DTypeName(dtype));
    const int64_t block = DTypeBlockElements(stored->dtype);
    const int64_t elements = stored->shape.elements();
    const int64_t piece = kPieceElements / block * block;
    Array<BF16> narrow;
    for (int64_t first = 0; first < elements; first += piece) {
      const int64_t count = std::min(piece, elements - first);
      const absl::Span<const std::byte> source(
          stored->data + first / block * DTypeBlockBytes(stored->dtype),
          static_cast<size_t>(count / block * DTypeBlockBytes(stored->dtype)));
      absl::Span<const std::byte> bytes = source;
      if (dtype != stored->dtype) {  // f32 to bf16
        narrow = Array<BF16>(static_cast<size_t>(count));
        F32ToBF16(
            absl::MakeConstSpan(reinterpret_cast<const float*>(source.data()),
                                static_cast<size_t>(count)),
            narrow.span());
        bytes = absl::MakeConstSpan(
            reinterpret_cast<const std::byte*>(narrow.data()),
            narrow.size() * sizeof(BF16));
      }
      done.bytes += static_cast<int64_t>(bytes.size());
      absl::Status status = writer.Append(bytes);
      tensors_.Release(source);
      if (status.ok()) status = Step(static_cast<int64_t>(source.size()));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  const Checkpoint& checkpoint_;
  const TensorSource& tensors_;
  const QuantizationOptions& options_;
  const QuantizationProgress& progress_;
  MatrixGather gather_;
  MatrixPacker packer_;
  std::vector<PlannedTensor> plan_;
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
  absl::Status status = CheckOutput(model_path, out_path);
  if (!status.ok()) return status;
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  if (checkpoint->packed != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(model_path,
                     ": is packed already; give the checkpoint it was made "
                     "from"));
  }
  Flow flow(*checkpoint, options, pool, progress);
  status = flow.Plan();
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
