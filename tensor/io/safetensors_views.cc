// WriteSafetensors.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tensor/dtype.h"
#include "tensor/io/error_text.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/safetensors_writer.h"

namespace nibble {
namespace {

// Largest alignment first, so that no tensor needs a gap before it.
std::vector<const NamedTensor*> OrderForFile(
    absl::Span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  order.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(),
                   [](const NamedTensor* a, const NamedTensor* b) {
                     return DTypeAlignment(a->view.dtype) >
                            DTypeAlignment(b->view.dtype);
                   });
  return order;
}

absl::Status CheckSize(const std::string& path, const NamedTensor& tensor) {
  const absl::StatusOr<int64_t> bytes =
      TensorBytes(tensor.view.dtype, tensor.view.shape);
  if (!bytes.ok() || static_cast<size_t>(*bytes) == tensor.view.bytes) {
    return absl::OkStatus();  // what is wrong otherwise, the writer says
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "cannot write ", path, ": tensor ", QuoteForMessage(tensor.name), " has ",
      tensor.view.bytes, " bytes where its shape needs ", *bytes));
}

}  // namespace

absl::Status WriteSafetensors(
    const std::string& path, absl::Span<const NamedTensor> tensors,
    const std::map<std::string, std::string>& metadata) {
  const std::vector<const NamedTensor*> order = OrderForFile(tensors);
  std::vector<SafetensorsPlan> plan;
  plan.reserve(order.size());
  for (const NamedTensor* tensor : order) {
    const absl::Status status = CheckSize(path, *tensor);
    if (!status.ok()) return status;
    plan.push_back({tensor->name, tensor->view.dtype, tensor->view.shape});
  }
  absl::StatusOr<SafetensorsWriter> writer =
      SafetensorsWriter::Create(path, plan, metadata);
  if (!writer.ok()) return writer.status();
  for (const NamedTensor* tensor : order) {
    const absl::Status status = writer->Append(
        absl::MakeConstSpan(tensor->view.data, tensor->view.bytes));
    if (!status.ok()) return status;
  }
  return writer->Commit();
}

}  // namespace nibble
