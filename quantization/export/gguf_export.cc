#include "quantization/export/gguf_export.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/shared_status.h"
#include "models/checkpoint.h"
#include "models/matrix_gather.h"
#include "models/registry.h"
#include "quantization/export/coded_blocks.h"
#include "quantization/export/gguf_blocks.h"
#include "quantization/export/gguf_metadata.h"
#include "quantization/export/gguf_plan.h"
#include "quantization/export/gguf_types.h"
#include "quantization/matrix_rows.h"
#include "quantization/output_path.h"
#include "quantization/round_to_nearest.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf_writer.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// In one piece: enough for threads to be worth starting, little enough for
// memory to stay flat (8 MB of Q8_0).
constexpr int64_t kBlockWeights = 8 << 20;

class GgufExport {
 public:
  GgufExport(const Checkpoint& checkpoint, const QuantizationOptions& options,
             ThreadPool& pool, const QuantizationProgress& progress)
      : checkpoint_(checkpoint),
        tensors_(*checkpoint.tensors),
        options_(options),
        progress_(progress),
        pool_(pool),
        gather_(*checkpoint.tensors, pool) {}

  absl::Status Plan() {
    absl::StatusOr<GgufPlan> plan = PlanGguf(checkpoint_);
    if (!plan.ok()) return plan.status();
    architecture_ = plan->architecture;
    absl::StatusOr<GgufTypes> types =
        ChooseGgufTypes(checkpoint_, options_, std::move(plan->parts));
    if (!types.ok()) return types.status();
    types_ = *std::move(types);
    std::vector<float> divisors = RopeDivisors(checkpoint_.config);
    if (!divisors.empty()) {
      GgufPart part;
      part.name = "rope_freqs.weight";
      part.shape = {static_cast<int64_t>(divisors.size())};
      types_.parts.push_back(
          {std::move(part), DType::kF32, std::move(divisors)});
    }
    return absl::OkStatus();
  }

  absl::StatusOr<QuantizationReport> Write(const std::string& path) {
    absl::StatusOr<GgufMetadata> metadata =
        ExportedMetadata(checkpoint_, architecture_, MainGgufType(types_));
    if (!metadata.ok()) return metadata.status();
    std::vector<GgufTensorPlan> plan;
    for (const TypedGgufPart& written : types_.parts) {
      plan.push_back({written.part.name, written.dtype, written.part.shape});
    }
    absl::StatusOr<GgufWriter> writer =
        GgufWriter::Create(path, *metadata, plan);
    if (!writer.ok()) return writer.status();
    for (const TypedGgufPart& written : types_.parts) {
      const absl::Status status = written.part.is_matrix()
                                      ? WriteMatrix(written, *writer)
                                      : WriteVector(written, *writer);
      if (!status.ok()) return status;
    }
    absl::Status status = tensors_.CheckUnchanged();
    if (status.ok()) status = Step(0);
    if (status.ok()) status = writer->Commit();
    if (!status.ok()) return status;
    report_.relative_error =
        loss_.signal > 0 ? std::sqrt(loss_.error / loss_.signal) : 0.0;
    return std::move(report_);
  }

 private:
  using RowBytes = absl::FunctionRef<absl::Span<std::byte>(int64_t row)>;
  // Writes source rows [first, first + count) into their bytes, and the loss of
  // each into losses[row].
  using EncodeRows = absl::FunctionRef<absl::Status(
      int64_t first, int64_t count, RowBytes out, RoundingLoss* losses)>;

  absl::Status Step(int64_t bytes) {
    if (options_.cancelled != nullptr && options_.cancelled->load()) {
      return absl::CancelledError("interrupted; nothing was written");
    }
    done_ += bytes;
    if (progress_) progress_(done_, types_.stored_bytes);
    return absl::OkStatus();
  }

  absl::Status WriteVector(const TypedGgufPart& written, GgufWriter& writer) {
    const GgufPart& part = written.part;
    std::vector<float> values = written.values;
    if (values.empty()) {
      values.resize(static_cast<size_t>(part.shape.elements()));
    }
    if (!part.rows.empty()) {
      const absl::StatusOr<Array<float>> stored = gather_.Bias(part.rows);
      if (!stored.ok()) return stored.status();
      for (int64_t i = 0; i < part.shape.elements(); ++i) {
        values[static_cast<size_t>(part.WrittenRow(i))] =
            (*stored)[static_cast<size_t>(i)];
      }
    }
    return writer.Append(
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                            values.size() * sizeof(float)));
  }

  absl::Status WriteMatrix(const TypedGgufPart& written, GgufWriter& writer) {
    const absl::Time start = absl::Now();
    const GgufPart& part = written.part;
    QuantizedTensor done;
    done.name = part.name;
    done.format = std::string(DTypeName(written.dtype));
    done.outputs = part.shape.dim(0);
    done.inputs = part.shape.dim(1);
    RoundingLoss loss;
    absl::Status status;
    const absl::StatusOr<std::optional<CodedBlocks>> coded =
        options_.keep_codes ? CodedBlocks::Find(tensors_, part)
                            : absl::StatusOr<std::optional<CodedBlocks>>(
                                  std::optional<CodedBlocks>());
    if (!coded.ok()) return coded.status();
    if (coded->has_value()) {
      done.stored_bytes = (*coded)->stored_bytes();
      status = WriteRows(
          written, nullptr, done.stored_bytes,
          [&](int64_t first, int64_t count, RowBytes out, RoundingLoss*) {
            (*coded)->Encode(written.dtype, first, count, out);
            return absl::OkStatus();
          },
          writer, &loss);
    } else {
      const absl::StatusOr<MatrixRows> rows =
          MatrixRows::Find(tensors_, part.rows);
      if (!rows.ok()) return rows.status();
      done.stored_bytes = rows->stored_bytes();
      status = WriteRows(
          written, &*rows, done.stored_bytes,
          [&](int64_t first, int64_t count, RowBytes out,
              RoundingLoss* losses) {
            return EncodeFloats(*rows, written.dtype, first, count, out,
                                losses);
          },
          writer, &loss);
    }
    if (!status.ok()) return status;
    done.bytes = *TensorBytes(written.dtype, part.shape);
    if (IsQuantized(written.dtype) && !coded->has_value()) {
      done.relative_error =
          loss.signal > 0 ? std::sqrt(loss.error / loss.signal) : 0.0;
      loss_.error += loss.error;
      loss_.signal += loss.signal;
    }
    done.seconds = absl::ToDoubleSeconds(absl::Now() - start);
    report_.stored_bytes += done.stored_bytes;
    report_.tensors.push_back(std::move(done));
    return absl::OkStatus();
  }

  static absl::Status EncodeFloats(const MatrixRows& rows, DType dtype,
                                   int64_t first, int64_t count, RowBytes out,
                                   RoundingLoss* losses) {
    std::vector<float> values(static_cast<size_t>(rows.inputs()));
    for (int64_t row = first; row < first + count; ++row) {
      const absl::Status read = rows.Read(row, absl::MakeSpan(values));
      if (!read.ok()) return rows.Error(row, read);
      const absl::StatusOr<RoundingLoss> loss =
          EncodeGgufRow(dtype, values, out(row));
      if (!loss.ok()) return rows.Error(row, loss.status());
      losses[row] = *loss;
    }
    return absl::OkStatus();
  }

  // `rows` is what is read, to be released; null: codes.
  absl::Status WriteRows(const TypedGgufPart& written, const MatrixRows* rows,
                         int64_t stored_bytes, EncodeRows encode,
                         GgufWriter& writer, RoundingLoss* sum) {
    const int64_t outputs = written.part.shape.dim(0);
    const int64_t inputs = written.part.shape.dim(1);
    const int64_t row_bytes = GgufRowBytes(written.dtype, inputs);
    // Whole heads, within which rows change places.
    const int64_t unit = std::max<int64_t>(1, written.part.permuted_head_dim);
    const int64_t block = std::max(unit, kBlockWeights / inputs / unit * unit);
    // One for each row, summed in order: the same for any number of threads.
    std::vector<RoundingLoss> losses(static_cast<size_t>(outputs));
    for (int64_t first = 0; first < outputs; first += block) {
      const int64_t count = std::min(block, outputs - first);
      const size_t bytes = static_cast<size_t>(count * row_bytes);
      if (bytes_.size() < bytes) bytes_ = AlignedBuffer(bytes);
      const absl::Span<std::byte> out(bytes_.data(), bytes);
      SharedStatus status;
      pool_.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
        status.Update(encode(
            first + begin, end - begin,
            [&](int64_t row) {
              return out.subspan(
                  static_cast<size_t>((written.part.WrittenRow(row) - first) *
                                      row_bytes),
                  static_cast<size_t>(row_bytes));
            },
            losses.data()));
      });
      absl::Status done = status.Get();
      if (done.ok()) done = writer.Append(out);
      if (rows != nullptr) rows->Release(first, count);
      if (done.ok()) {
        done = Step(stored_bytes * (first + count) / outputs -
                    stored_bytes * first / outputs);
      }
      if (!done.ok()) return done;
    }
    for (const RoundingLoss& loss : losses) {
      sum->error += loss.error;
      sum->signal += loss.signal;
    }
    return absl::OkStatus();
  }

  const Checkpoint& checkpoint_;
  const TensorSource& tensors_;
  const QuantizationOptions& options_;
  const QuantizationProgress& progress_;
  ThreadPool& pool_;
  MatrixGather gather_;
  std::string architecture_;
  GgufTypes types_;
  AlignedBuffer bytes_;  // of the rows being written
  int64_t done_ = 0;     // bytes of matrices read
  RoundingLoss loss_;    // of all rounded matrices
  QuantizationReport report_;
};

absl::Status CheckSource(const Checkpoint& checkpoint, bool keep_codes) {
  if (checkpoint.packed != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.path,
                     ": is packed already; give the checkpoint it was made "
                     "from"));
  }
  if (keep_codes && checkpoint.gguf != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.path,
                     ": is a GGUF file already; copy it to keep it as it "
                     "is"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QuantizationReport> ExportGguf(
    const std::string& model_path, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress) {
  const absl::Time start = absl::Now();
  absl::Status status = CheckGgufRounding(options);
  if (status.ok()) status = CheckOutput(model_path, out_path);
  if (!status.ok()) return status;
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  status = CheckSource(*checkpoint, options.keep_codes);
  if (!status.ok()) return status;
  absl::StatusOr<QuantizationReport> report =
      ExportOpenGguf(*checkpoint, out_path, options, pool, progress);
  if (report.ok()) {
    report->seconds = absl::ToDoubleSeconds(absl::Now() - start);
  }
  return report;
}

absl::StatusOr<QuantizationReport> ExportOpenGguf(
    const Checkpoint& checkpoint, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress) {
  const absl::Time start = absl::Now();
  absl::Status status = CheckGgufRounding(options);
  if (!status.ok()) return status;
  GgufExport work(checkpoint, options, pool, progress);
  status = work.Plan();
  if (!status.ok()) return status;
  absl::StatusOr<QuantizationReport> report = work.Write(out_path);
  if (!report.ok()) return report.status();
  std::error_code error;
  report->file_bytes =
      static_cast<int64_t>(std::filesystem::file_size(out_path, error));
  report->seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return report;
}

}  // namespace nibble
