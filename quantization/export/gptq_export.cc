#include "quantization/export/gptq_export.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/shared_status.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "nlohmann/json.hpp"
#include "quantization/export/gptq_config.h"
#include "quantization/export/gptq_matrix.h"
#include "quantization/export/gptq_rows.h"
#include "quantization/export/output_folder.h"
#include "quantization/round_to_nearest.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/io/atomic_file.h"
#include "tensor/io/safetensors_writer.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Of one file of weights, as other programs split them too.
constexpr int64_t kShardBytes = int64_t{4} << 30;

// What is narrowed and written in one piece.
constexpr int64_t kPieceElements = 2 << 20;

// A tensor of the checkpoint, and those it becomes.
struct Item {
  std::string tensor;
  std::optional<GptqRows> matrix;  // else it is copied
  std::vector<SafetensorsPlan> written;

  int64_t bytes() const {
    int64_t sum = 0;
    for (const SafetensorsPlan& plan : written) {
      sum += *TensorBytes(plan.dtype, plan.shape);
    }
    return sum;
  }
};

bool MayIgnore(absl::string_view name,
               const std::vector<std::string>& ignored) {
  return absl::c_any_of(ignored, [name](absl::string_view pattern) {
    return absl::ConsumePrefix(&pattern, "*") ? absl::EndsWith(name, pattern)
                                              : name == pattern;
  });
}

class GptqExport {
 public:
  GptqExport(const Checkpoint& checkpoint, const QuantizationOptions& options,
             ThreadPool& pool, const QuantizationProgress& progress)
      : checkpoint_(checkpoint),
        tensors_(*checkpoint.tensors),
        options_(options),
        progress_(progress),
        pool_(pool) {}

  absl::Status Plan() {
    for (const LayerTensors& layer : checkpoint_.names.layers) {
      for (const LinearTensors* linear :
           {&layer.qkv, &layer.attention, &layer.up, &layer.down}) {
        for (const RowRange& range : linear->weight) {
          const absl::Status status = PlanMatrix(range.tensor);
          if (!status.ok()) return status;
        }
      }
    }
    for (Item& item : items_) {
      const absl::string_view base = absl::StripSuffix(item.tensor, ".weight");
      item.written = GptqTensors(std::string(base), item.matrix->form());
    }
    for (const std::string& name : tensors_.names()) {
      if (planned_.contains(name) ||
          MayIgnore(name, checkpoint_.names.ignored)) {
        continue;
      }
      const absl::Status status = PlanCopy(name);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<QuantizationReport> Write(const std::string& path,
                                           int64_t shard_bytes) {
    absl::StatusOr<OutputFolder> folder = OutputFolder::Create(path);
    if (!folder.ok()) return folder.status();
    absl::Status status = WriteShards(folder->path(), shard_bytes);
    if (status.ok()) {
      status = WriteGptqConfig(checkpoint_.path, folder->path(), settings_,
                               dtype_, options_.program_version);
    }
    if (status.ok()) status = tensors_.CheckUnchanged();
    if (status.ok()) status = Step(0);
    if (status.ok()) status = folder->Commit();
    if (!status.ok()) return status;
    report_.relative_error =
        loss_.signal > 0 ? std::sqrt(loss_.error / loss_.signal) : 0.0;
    report_.seconds = absl::ToDoubleSeconds(absl::Now() - start_);
    return std::move(report_);
  }

 private:
  absl::Status PlanMatrix(const std::string& name) {
    if (!planned_.insert(name).second) return absl::OkStatus();
    absl::StatusOr<GptqRows> rows =
        options_.keep_codes
            ? GptqRows::Kept(tensors_, name)
            : GptqRows::Rounded(tensors_, name, options_.rounding);
    if (!rows.ok()) return rows.status();
    const GptqForm& form = rows->form();
    // A group as long as the row is the whole row, whatever the row's length.
    const bool whole = form.group_size >= form.inputs;
    if (items_.empty()) {
      settings_.bits = form.bits;
      settings_.symmetric = true;
    }
    if (!whole && settings_.group_size == -1) {
      settings_.group_size = form.group_size;
    }
    if (form.bits != settings_.bits ||
        (!whole && form.group_size != settings_.group_size)) {
      return absl::InvalidArgumentError(
          absl::StrCat(tensors_.path(), ": tensor ", name, " has ", form.bits,
                       " bits in groups of ", form.group_size, ", another ",
                       settings_.bits, " in groups of ", settings_.group_size,
                       "; GPTQ's settings are one for all"));
    }
    settings_.symmetric &= rows->symmetric();
    settings_.act_order |= !rows->input_order().empty();
    total_ += rows->stored_bytes();
    items_.push_back({name, *std::move(rows), {}});
    return absl::OkStatus();
  }

  absl::Status PlanCopy(const std::string& name) {
    const absl::StatusOr<TensorView> view = tensors_.Find(name);
    if (!view.ok()) return view.status();
    const DType dtype =
        view->dtype == DType::kBF16 ? DType::kBF16 : DType::kF16;
    if (name == checkpoint_.names.embedding) dtype_ = dtype;
    total_ += static_cast<int64_t>(view->bytes);
    items_.push_back({name, std::nullopt, {{name, dtype, view->shape}}});
    return absl::OkStatus();
  }

  absl::Status Step(int64_t bytes) {
    if (options_.cancelled != nullptr && options_.cancelled->load()) {
      return absl::CancelledError("interrupted; nothing was written");
    }
    done_ += bytes;
    if (progress_) progress_(std::min(done_, total_), total_);
    return absl::OkStatus();
  }

  // The first item behind each file.
  std::vector<size_t> Split(int64_t shard_bytes) const {
    std::vector<size_t> ends;
    int64_t size = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      const int64_t bytes = items_[i].bytes();
      if (size > 0 && size + bytes > shard_bytes) {
        ends.push_back(i);
        size = 0;
      }
      size += bytes;
    }
    ends.push_back(items_.size());
    return ends;
  }

  absl::Status WriteShards(const std::string& folder, int64_t shard_bytes) {
    const std::vector<size_t> ends = Split(shard_bytes);
    nlohmann::ordered_json index;
    size_t first = 0;
    for (size_t shard = 0; shard < ends.size(); ++shard) {
      const std::string name =
          ends.size() == 1 ? "model.safetensors"
                           : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                             shard + 1, ends.size());
      const absl::Span<const Item> items =
          absl::MakeConstSpan(items_).subspan(first, ends[shard] - first);
      const absl::Status status =
          WriteShard(absl::StrCat(folder, "/", name), items);
      if (!status.ok()) return status;
      for (const Item& item : items) {
        for (const SafetensorsPlan& plan : item.written) {
          index["weight_map"][plan.name] = name;
        }
      }
      first = ends[shard];
    }
    if (ends.size() == 1) return absl::OkStatus();
    index["metadata"]["total_size"] = report_.file_bytes;
    absl::StatusOr<AtomicFile> file = AtomicFile::Create(
        absl::StrCat(folder, "/model.safetensors.index.json"));
    if (!file.ok()) return file.status();
    const absl::Status status = file->Append(absl::StrCat(index.dump(2), "\n"));
    return status.ok() ? file->Commit() : status;
  }

  absl::Status WriteShard(const std::string& path,
                          absl::Span<const Item> items) {
    std::vector<SafetensorsPlan> plan;
    for (const Item& item : items) {
      plan.insert(plan.end(), item.written.begin(), item.written.end());
      report_.file_bytes += item.bytes();
    }
    absl::StatusOr<SafetensorsWriter> writer =
        SafetensorsWriter::Create(path, plan, {{"format", "pt"}});
    if (!writer.ok()) return writer.status();
    for (const Item& item : items) {
      const absl::Status status = item.matrix.has_value()
                                      ? WriteMatrix(item, *writer)
                                      : WriteCopy(item, *writer);
      if (!status.ok()) return status;
    }
    return writer->Commit();
  }

  absl::Status WriteMatrix(const Item& item, SafetensorsWriter& writer) {
    const absl::Time start = absl::Now();
    GptqForm form = item.matrix->form();
    form.zeros_minus_one = settings_.v1();
    GptqMatrix matrix(form, item.matrix->input_order());
    constexpr int64_t kUnit = GptqMatrix::kRowsAtOnce;
    const int64_t units = (form.outputs + kUnit - 1) / kUnit;
    // One for each unit, summed in order: the same for any number of threads.
    std::vector<RoundingLoss> losses(static_cast<size_t>(units));
    SharedStatus status;
    pool_.ParallelFor(units, [&](int64_t begin, int64_t end, int) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t first = unit * kUnit;
        const absl::StatusOr<RoundingLoss> loss = item.matrix->Read(
            first, std::min(kUnit, form.outputs - first), &matrix);
        if (!loss.ok()) return status.Update(loss.status());
        losses[static_cast<size_t>(unit)] = *loss;
      }
    });
    absl::Status done = status.Get();
    for (const absl::Span<const std::byte> bytes : matrix.Bytes()) {
      if (done.ok()) done = writer.Append(bytes);
    }
    if (!done.ok()) return done;
    item.matrix->Release();
    RoundingLoss sum;
    for (const RoundingLoss& loss : losses) {
      sum.error += loss.error;
      sum.signal += loss.signal;
    }
    Report(item, sum, absl::ToDoubleSeconds(absl::Now() - start));
    return Step(item.matrix->stored_bytes());
  }

  void Report(const Item& item, const RoundingLoss& loss, double seconds) {
    const GptqForm& form = item.matrix->form();
    QuantizedTensor done;
    done.name = item.tensor;
    done.format = absl::StrCat("int", form.bits);
    done.outputs = form.outputs;
    done.inputs = form.inputs;
    done.stored_bytes = item.matrix->stored_bytes();
    done.bytes = item.bytes();
    done.seconds = seconds;
    if (!options_.keep_codes) {
      done.relative_error =
          loss.signal > 0 ? std::sqrt(loss.error / loss.signal) : 0.0;
      loss_.error += loss.error;
      loss_.signal += loss.signal;
    }
    report_.stored_bytes += done.stored_bytes;
    report_.tensors.push_back(std::move(done));
  }

  absl::Status WriteCopy(const Item& item, SafetensorsWriter& writer) {
    const absl::StatusOr<TensorView> view = tensors_.Find(item.tensor);
    if (!view.ok()) return view.status();
    const int64_t elements = view->shape.elements();
    const int64_t element_bytes = DTypeBlockBytes(view->dtype);
    std::vector<float> wide;
    std::vector<F16> narrow;
    for (int64_t first = 0; first < elements; first += kPieceElements) {
      const int64_t count = std::min(kPieceElements, elements - first);
      const size_t bytes = static_cast<size_t>(count * element_bytes);
      const TensorView piece = {view->dtype, Shape({count}),
                                view->data + first * element_bytes, bytes};
      wide.resize(static_cast<size_t>(count));
      narrow.resize(static_cast<size_t>(count));
      absl::Status status = ConvertToF32(piece, absl::MakeSpan(wide));
      if (!status.ok()) return status;
      absl::Span<const std::byte> out(piece.data, piece.bytes);
      if (view->dtype != item.written[0].dtype) {
        F32ToF16(wide, absl::MakeSpan(narrow));
        F16ToF32(narrow, absl::MakeSpan(wide));
        out = absl::MakeConstSpan(
            reinterpret_cast<const std::byte*>(narrow.data()),
            narrow.size() * sizeof(F16));
      }
      if (!AllFinite(wide)) {
        return absl::InvalidArgumentError(absl::StrCat(
            tensors_.path(), ": tensor ", item.tensor,
            " holds a value that is not finite or beyond f16's range"));
      }
      status = writer.Append(out);
      tensors_.Release(absl::MakeConstSpan(piece.data, piece.bytes));
      if (status.ok()) status = Step(static_cast<int64_t>(bytes));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  const Checkpoint& checkpoint_;
  const TensorSource& tensors_;
  const QuantizationOptions& options_;
  const QuantizationProgress& progress_;
  ThreadPool& pool_;
  const absl::Time start_ = absl::Now();
  GptqSettings settings_;
  DType dtype_ = DType::kF16;  // of the embedding as written
  absl::flat_hash_set<std::string> planned_;
  std::vector<Item> items_;
  int64_t done_ = 0;   // bytes read,
  int64_t total_ = 0;  // of this many
  RoundingLoss loss_;  // of all rounded matrices
  QuantizationReport report_;
};

absl::Status CheckRequest(const Checkpoint& checkpoint,
                          const QuantizationOptions& options) {
  if (checkpoint.format != "safetensors") {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.path,
                     ": a GPTQ folder is made from a Hugging Face folder, "
                     "whose names and configuration it takes over"));
  }
  if (options.keep_float != kDefaultKeepFloat) {
    return absl::InvalidArgumentError(absl::StrCat(
        "keep_float \"", options.keep_float,
        "\": a GPTQ folder has all matrices of the layers quantized and the "
        "head in 16 bits; leave it at \"",
        kDefaultKeepFloat, "\""));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QuantizationReport> ExportOpenGptqInShards(
    const Checkpoint& checkpoint, const std::string& out_path,
    const QuantizationOptions& options, int64_t shard_bytes, ThreadPool& pool,
    const QuantizationProgress& progress) {
  absl::Status status = CheckRequest(checkpoint, options);
  if (!status.ok()) return status;
  GptqExport work(checkpoint, options, pool, progress);
  status = work.Plan();
  if (!status.ok()) return status;
  return work.Write(out_path, shard_bytes);
}

absl::StatusOr<QuantizationReport> ExportOpenGptq(
    const Checkpoint& checkpoint, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress) {
  return ExportOpenGptqInShards(checkpoint, out_path, options, kShardBytes,
                                pool, progress);
}

absl::StatusOr<QuantizationReport> ExportGptq(
    const std::string& model_path, const std::string& out_path,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress) {
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  return ExportOpenGptq(*checkpoint, out_path, options, pool, progress);
}

}  // namespace nibble
