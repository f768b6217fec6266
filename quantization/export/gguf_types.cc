#include "quantization/export/gguf_types.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "quantization/export/coded_blocks.h"
#include "quantization/matrix_rows.h"
#include "quantization/round_to_nearest.h"
#include "re2/re2.h"
#include "tensor/block_format.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {
namespace {

DType TypeOfMatrices(const RoundingOptions& rounding) {
  if (rounding.bits == 16) return DType::kF16;
  if (rounding.bits == 8) return DType::kQ8_0;
  return rounding.symmetric ? DType::kQ4_0 : DType::kQ4_1;
}

bool IsEmbeddingOrHead(const GgufPart& part) {
  return part.name == "token_embd.weight" || part.name == "output.weight";
}

absl::StatusOr<GgufTypes> RoundedTypes(const TensorSource& tensors,
                                       const QuantizationOptions& options,
                                       std::vector<GgufPart> parts) {
  const RE2 keep(options.keep_float, RE2::Quiet);
  if (!keep.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("keep_float \"", options.keep_float,
                     "\" is no regular expression: ", keep.error()));
  }
  const DType main = TypeOfMatrices(options.rounding);
  bool any_kept = options.keep_float.empty() || main == DType::kF16;
  GgufTypes types;
  for (GgufPart& part : parts) {
    TypedGgufPart typed;
    if (part.is_matrix()) {
      const absl::StatusOr<MatrixRows> rows =
          MatrixRows::Find(tensors, part.rows);
      if (!rows.ok()) return rows.status();
      types.stored_bytes += rows->stored_bytes();
      const bool kept =
          !options.keep_float.empty() && RE2::PartialMatch(part.matrix, keep);
      any_kept |= kept;
      typed.dtype = main;
      if (IsEmbeddingOrHead(part) && main != DType::kF16) {
        typed.dtype = DType::kQ8_0;
      }
      if (kept || part.shape.dim(1) % kBlockElements != 0) {
        typed.dtype = DType::kF16;
      }
    }
    typed.part = std::move(part);
    types.parts.push_back(std::move(typed));
  }
  if (any_kept) return types;
  return absl::InvalidArgumentError(
      absl::StrCat("keep_float \"", options.keep_float,
                   "\" matches none of the matrices to keep as floats"));
}

// Of floats that are kept: the type of their first tensor.
absl::Status KeepFloats(const TensorSource& tensors, TypedGgufPart* typed,
                        int64_t* stored_bytes) {
  const std::vector<RowRange>& ranges = typed->part.rows;
  const absl::StatusOr<MatrixRows> rows = MatrixRows::Find(tensors, ranges);
  if (!rows.ok()) return rows.status();
  const absl::StatusOr<TensorView> view = tensors.Find(ranges[0].tensor);
  if (!view.ok()) return view.status();
  typed->dtype = view->dtype;
  *stored_bytes += rows->stored_bytes();
  return absl::OkStatus();
}

absl::StatusOr<GgufTypes> KeptTypes(const TensorSource& tensors,
                                    const std::string& path,
                                    std::vector<GgufPart> parts) {
  GgufTypes types;
  bool any_coded = false;
  for (GgufPart& part : parts) {
    TypedGgufPart typed;
    typed.part = std::move(part);
    if (typed.part.is_matrix()) {
      const absl::StatusOr<std::optional<CodedBlocks>> coded =
          CodedBlocks::Find(tensors, typed.part);
      if (!coded.ok()) return coded.status();
      if (coded->has_value()) {
        const absl::StatusOr<DType> dtype = (*coded)->Survey();
        if (!dtype.ok()) return dtype.status();
        typed.dtype = *dtype;
        types.stored_bytes += (*coded)->stored_bytes();
        any_coded = true;
      } else {
        const absl::Status status =
            KeepFloats(tensors, &typed, &types.stored_bytes);
        if (!status.ok()) return status;
      }
    }
    types.parts.push_back(std::move(typed));
  }
  if (any_coded) return types;
  return absl::InvalidArgumentError(
      absl::StrCat(path,
                   ": is not quantized: there are no codes to keep; round it "
                   "with --method=rtn"));
}

}  // namespace

absl::Status CheckGgufRounding(const QuantizationOptions& options) {
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

absl::StatusOr<GgufTypes> ChooseGgufTypes(const Checkpoint& checkpoint,
                                          const QuantizationOptions& options,
                                          std::vector<GgufPart> parts) {
  return options.keep_codes
             ? KeptTypes(*checkpoint.tensors, checkpoint.path, std::move(parts))
             : RoundedTypes(*checkpoint.tensors, options, std::move(parts));
}

DType MainGgufType(const GgufTypes& types) {
  int64_t weights[kDTypeCount] = {};
  for (const TypedGgufPart& typed : types.parts) {
    if (!typed.part.is_matrix() || IsEmbeddingOrHead(typed.part)) continue;
    weights[static_cast<int>(typed.dtype)] += typed.part.shape.elements();
  }
  return static_cast<DType>(std::max_element(weights, weights + kDTypeCount) -
                            weights);
}

}  // namespace nibble
