#include "quantization/calibrated/model_digest.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "models/manifest_config.h"
#include "quantization/calibration/digest.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/checksum.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// What a thread sums up at once: some megabytes.
constexpr int64_t kPieceBytes = 4 << 20;
constexpr int64_t kPieceRows = 64;

void AddDense(const TensorView& view, ThreadPool& pool, Digest& digest) {
  digest.Add(DTypeName(view.dtype));
  for (int i = 0; i < view.shape.rank(); ++i) digest.Add(view.shape.dim(i));
  const int64_t bytes = static_cast<int64_t>(view.bytes);
  std::vector<uint32_t> sums(
      static_cast<size_t>((bytes + kPieceBytes - 1) / kPieceBytes));
  pool.ParallelFor(
      static_cast<int64_t>(sums.size()), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t first = i * kPieceBytes;
          sums[static_cast<size_t>(i)] = Crc32c(absl::MakeConstSpan(
              view.data + first,
              static_cast<size_t>(std::min(kPieceBytes, bytes - first))));
        }
      });
  for (const uint32_t sum : sums) digest.Add(int64_t{sum});
}

template <class T>
uint32_t Extend(uint32_t crc, const std::vector<T>& values) {
  return ExtendCrc32c(
      crc,
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                          values.size() * sizeof(T)));
}

void AddCodes(const CodedMatrix& matrix, ThreadPool& pool, Digest& digest) {
  const CodedForm& form = matrix.form();
  digest.Add(form.outputs).Add(form.inputs).Add(int64_t{form.bits});
  digest.Add(form.group_size).Add(static_cast<int64_t>(form.offset));
  for (const int32_t input : form.input_order) digest.Add(int64_t{input});
  std::vector<uint32_t> sums(
      static_cast<size_t>((form.outputs + kPieceRows - 1) / kPieceRows));
  pool.ParallelFor(
      static_cast<int64_t>(sums.size()), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t first = i * kPieceRows;
          const int64_t rows = std::min(kPieceRows, form.outputs - first);
          std::vector<uint8_t> codes(static_cast<size_t>(rows * form.inputs));
          std::vector<float> scales(static_cast<size_t>(rows * form.groups()));
          std::vector<float> offsets(
              form.offset == CodeOffset::kSymmetric ? 0 : scales.size());
          matrix.Read(first, rows,
                      {absl::MakeSpan(codes), absl::MakeSpan(scales),
                       absl::MakeSpan(offsets)});
          sums[static_cast<size_t>(i)] =
              Extend(Extend(Extend(0, codes), scales), offsets);
        }
      });
  for (const uint32_t sum : sums) digest.Add(int64_t{sum});
}

}  // namespace

absl::StatusOr<std::string> ModelDigest(const Checkpoint& checkpoint,
                                        ThreadPool& pool) {
  Digest digest;
  ModelConfig config;
  ToManifest(checkpoint.config, &config);
  digest.Add(config.SerializeAsString());
  const TensorSource& tensors = *checkpoint.tensors;
  for (const std::string& name : tensors.names()) {
    digest.Add(name);
    const absl::StatusOr<TensorView> dense = tensors.Find(name);
    if (dense.ok()) {
      AddDense(*dense, pool, digest);
      tensors.Release(absl::MakeConstSpan(dense->data, dense->bytes));
    } else if (const CodedMatrix* codes = tensors.FindCoded(name)) {
      AddCodes(*codes, pool, digest);
      codes->Release();
    } else {
      return dense.status();
    }
  }
  return digest.Hex();
}

}  // namespace nibble
