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
#include "quantization/matrix_rows.h"
#include "quantization/output_path.h"
#include "quantization/round_to_nearest.h"
#include "re2/re2.h"
#include "tensor/block_format.h"
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

absl::Status CheckRounding(const QuantizationOptions& options) {
  const RoundingOptions& rounding = options.rounding;
  if (options.keep_codes || rounding.bits == 16) return absl::OkStatus();
  if (rounding.bits != 4 && rounding.bits != 8) {
    return absl::InvalidArgumentError(absl::StrCat(
        rounding.bits, " bits: weights of a GGUF file have 4, 8 or 16"));
  }
  if (rounding.group_size != kBlockElements) {
    return absl::InvalidArgumentError(absl::StrCat(
        "groups of ",
        rounding.group_size == kWholeRow ? "a whole row"
                                         : absl::StrCat(rounding.group_size),
        ": those of a GGUF file have 32 weights"));
  }
  return absl::OkStatus();
}

DType TypeOfMatrices(const RoundingOptions& rounding) {
  if (rounding.bits == 16) return DType::kF16;
  if (rounding.bits == 8) return DType::kQ8_0;
  return rounding.symmetric ? DType::kQ4_0 : DType::kQ4_1;
}

bool IsEmbeddingOrHead(const GgufPart& part) {
  return part.name == "token_embd.weight" || part.name == "output.weight";
}

// A part and how it is written.
struct Written {
  GgufPart part;
  DType dtype = DType::kF32;
  std::vector<float> values;  // of a vector that is in no tensor
};

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
    const absl::Status status = options_.keep_codes
                                    ? PlanKept(std::move(plan->parts))
                                    : PlanRounded(std::move(plan->parts));
    if (!status.ok()) return status;
    std::vector<float> divisors = RopeDivisors(checkpoint_.config);
    if (!divisors.empty()) {
      GgufPart part;
      part.name = "rope_freqs.weight";
      part.shape = {static_cast<int64_t>(divisors.size())};
      parts_.push_back({std::move(part), DType::kF32, std::move(divisors)});
    }
    return absl::OkStatus();
  }

  absl::StatusOr<QuantizationReport> Write(const std::string& path) {
    absl::StatusOr<GgufMetadata> metadata =
        ExportedMetadata(checkpoint_, architecture_, MainType());
    if (!metadata.ok()) return metadata.status();
    std::vector<GgufTensorPlan> plan;
    for (const Written& written : parts_) {
      plan.push_back({written.part.name, written.dtype, written.part.shape});
    }
    absl::StatusOr<GgufWriter> writer =
        GgufWriter::Create(path, *metadata, plan);
    if (!writer.ok()) return writer.status();
    for (const Written& written : parts_) {
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

  absl::Status PlanRounded(std::vector<GgufPart> parts) {
    const RE2 keep(options_.keep_float, RE2::Quiet);
    if (!keep.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("keep_float \"", options_.keep_float,
                       "\" is no regular expression: ", keep.error()));
    }
    const DType main = TypeOfMatrices(options_.rounding);
    bool any_kept = options_.keep_float.empty() || main == DType::kF16;
    for (GgufPart& part : parts) {
      Written written;
      if (part.is_matrix()) {
        const absl::StatusOr<MatrixRows> rows =
            MatrixRows::Find(tensors_, part.rows);
        if (!rows.ok()) return rows.status();
        total_ += rows->stored_bytes();
        const bool kept = !options_.keep_float.empty() &&
                          RE2::PartialMatch(part.matrix, keep);
        any_kept |= kept;
        written.dtype = main;
        if (IsEmbeddingOrHead(part) && main != DType::kF16) {
          written.dtype = DType::kQ8_0;
        }
        if (kept || part.shape.dim(1) % kBlockElements != 0) {
          written.dtype = DType::kF16;
        }
      }
      written.part = std::move(part);
      parts_.push_back(std::move(written));
    }
    if (any_kept) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("keep_float \"", options_.keep_float,
                     "\" matches none of the matrices to keep as floats"));
  }

  absl::Status PlanKept(std::vector<GgufPart> parts) {
    int64_t kept = 0;
    for (GgufPart& part : parts) {
      Written written;
      written.part = std::move(part);
      if (written.part.is_matrix()) {
        absl::StatusOr<std::optional<CodedBlocks>> coded =
            CodedBlocks::Find(tensors_, written.part);
        if (!coded.ok()) return coded.status();
        absl::StatusOr<DType> dtype =
            coded->has_value() ? (*coded)->Survey() : StoredType(written.part);
        if (!dtype.ok()) return dtype.status();
        written.dtype = *dtype;
        kept += coded->has_value() ? 1 : 0;
      }
      parts_.push_back(std::move(written));
    }
    if (kept > 0) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint_.path,
                     ": is not quantized: there are no codes to keep; round it "
                     "with --method=rtn"));
  }

  absl::StatusOr<DType> StoredType(const GgufPart& part) const {
    const absl::StatusOr<TensorView> view = tensors_.Find(part.rows[0].tensor);
    if (!view.ok()) return view.status();
    return view->dtype;
  }

  // Of most weights, for the file's own description.
  DType MainType() const {
    int64_t weights[kDTypeCount] = {};
    for (const Written& written : parts_) {
      if (!written.part.is_matrix() || IsEmbeddingOrHead(written.part)) {
        continue;
      }
      weights[static_cast<int>(written.dtype)] += written.part.shape.elements();
    }
    return static_cast<DType>(std::max_element(weights, weights + kDTypeCount) -
                              weights);
  }

  absl::Status Step(int64_t bytes) {
    if (options_.cancelled != nullptr && options_.cancelled->load()) {
      return absl::CancelledError("interrupted; nothing was written");
    }
    done_ += bytes;
    if (progress_) progress_(std::min(done_, total_), total_);
    return absl::OkStatus();
  }

  absl::Status WriteVector(const Written& written, GgufWriter& writer) {
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

  absl::Status WriteMatrix(const Written& written, GgufWriter& writer) {
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
          written, nullptr,
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
          written, &*rows,
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
  absl::Status WriteRows(const Written& written, const MatrixRows* rows,
                         EncodeRows encode, GgufWriter& writer,
                         RoundingLoss* sum) {
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
        done = Step(
            rows == nullptr ? 0 : rows->stored_bytes() / rows->rows() * count);
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
  std::vector<Written> parts_;
  AlignedBuffer bytes_;  // of the rows being written
  int64_t done_ = 0;     // bytes of matrices read,
  int64_t total_ = 0;    // of this many
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
  absl::Status status = CheckRounding(options);
  if (status.ok()) status = CheckOutput(model_path, out_path);
  if (!status.ok()) return status;
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  status = CheckSource(*checkpoint, options.keep_codes);
  if (!status.ok()) return status;
  GgufExport work(*checkpoint, options, pool, progress);
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
