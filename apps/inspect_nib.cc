#include "apps/inspect_nib.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/inspect_check.h"
#include "kernels/cpu.h"
#include "kernels/thread_pool.h"
#include "re2/re2.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {
namespace {

Json QuantizationOf(const QuantizationRecord& record) {
  Json json = {{"method", record.method()},
               {"bits", record.bits()},
               {"group_size", record.group_size()},
               {"symmetric", record.symmetric()},
               {"keep_float", record.keep_float()},
               {"source", record.source()},
               {"program_version", record.program_version()}};
  Json overrides = Json::array();
  for (const QuantizationRecord::Override& other : record.overrides()) {
    overrides.push_back({{"tensor", other.tensor()},
                         {"format", other.format()},
                         {"group_size", other.group_size()},
                         {"symmetric", other.symmetric()},
                         {"reason", other.reason()}});
  }
  json["overrides"] = std::move(overrides);
  if (record.has_recipe()) json["recipe"] = record.recipe();
  return json;
}

Json PackedEntry(const std::string& name, const PackedLayout& layout) {
  Json entry = {{"name", name},
                {"dtype", std::string(WeightFormatName(layout.format))},
                {"shape", {layout.outputs, layout.inputs}},
                {"bytes", layout.bytes()}};
  if (IsInteger(layout.format)) {
    entry["group_size"] = layout.group_size;
    entry["symmetric"] = layout.symmetric;
    entry["minimums"] = layout.minimums;
    entry["wide_scales"] = layout.wide_scales;
  }
  return entry;
}

Json PlainEntry(const std::string& name, const TensorView& view) {
  return {{"name", name},
          {"dtype", std::string(DTypeName(view.dtype))},
          {"shape", view.shape.dims()},
          {"bytes", view.bytes}};
}

void AddTensors(Json& report, const PackedFile& file, const re2::RE2* filter) {
  Json listed = Json::array();
  int64_t parameters = 0, bytes = 0;
  for (const std::string& name : file.names()) {
    Json entry;
    if (const auto packed = file.FindPacked(name); packed.ok()) {
      entry = PackedEntry(name, packed->layout);
      parameters += packed->layout.outputs * packed->layout.inputs;
      bytes += packed->layout.bytes();
    } else {
      // A name of the file is one or the other.
      const TensorView view = *file.Find(name);
      entry = PlainEntry(name, view);
      parameters += view.shape.elements();
      bytes += static_cast<int64_t>(view.bytes);
    }
    if (filter == nullptr || re2::RE2::PartialMatch(name, *filter)) {
      listed.push_back(std::move(entry));
    }
  }
  report["tensors"] = std::move(listed);
  report["totals"] = {{"tensors", file.names().size()},
                      {"parameters", parameters},
                      {"bytes", bytes}};
}

void AddFiles(Json& report, const PackedFile& file) {
  Json files = Json::array();
  for (const std::string& name : file.file_names()) {
    files.push_back({{"name", name}, {"bytes", file.FindFile(name)->size()}});
  }
  report["files"] = std::move(files);
}

void AddChecksums(Json& report, const PackedFile& file) {
  ThreadPool pool(AvailableCores());
  const auto run = [&](int64_t tasks, absl::FunctionRef<void(int64_t)> task) {
    pool.ParallelFor(tasks, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) task(i);
    });
  };
  std::vector<absl::Status> damage = file.FindDamage(run);
  // What was read may be what another program is writing.
  if (const absl::Status status = file.CheckUnchanged(); !status.ok()) {
    damage.push_back(status);
  }
  for (const absl::Status& status : damage) {
    AddCheck(report, "checksums", status, "");
  }
  if (damage.empty()) {
    AddCheck(report, "checksums", absl::OkStatus(),
             absl::StrCat("all ", file.names().size(), " tensors and ",
                          file.file_names().size(), " embedded files match"));
  }
}

}  // namespace

bool InspectNib(Json& report, const std::string& path, const re2::RE2* filter) {
  const absl::StatusOr<std::shared_ptr<const PackedFile>> file =
      PackedFile::Open(path);
  AddCheck(report, "file", file.status(), "the manifest is sound");
  if (!file.ok()) return false;
  if ((*file)->manifest().has_record()) {
    report["quantization"] = QuantizationOf((*file)->manifest().record());
  }
  AddTensors(report, **file, filter);
  AddFiles(report, **file);
  AddChecksums(report, **file);
  return true;
}

}  // namespace nibble
