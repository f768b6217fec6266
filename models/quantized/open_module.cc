#include "models/quantized/open_module.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/quantized/code_stream.h"
#include "models/quantized/group_order.h"
#include "models/quantized/module_rules.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr absl::string_view kGptqParts[] = {".qweight", ".qzeros", ".scales",
                                            ".g_idx"};
constexpr absl::string_view kCompressedParts[] = {
    ".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point",
    ".weight_g_idx"};

// Words of zeros that AutoAWQ gives a row of kAwqGemv: enough for its groups,
// rounded up to what its kernel loads at once. 0: it has no such group size.
int64_t GemvZeroWords(int64_t inputs, int64_t group_size) {
  if (group_size < 128 && group_size != 64 && group_size != 32 &&
      group_size != 16) {
    return 0;
  }
  const int64_t multiple = std::max<int64_t>(1, 128 / group_size);
  const int64_t words = (inputs / group_size + 7) / 8;
  return (words + multiple - 1) / multiple * multiple;
}

// Puts one module together; the first problem is kept, and what is read after
// it is empty.
class Opener {
 public:
  Opener(const TensorSource& tensors, const std::string& module,
         const QuantizationSettings& settings, const ModuleForm& form)
      : tensors_(tensors), module_(module), settings_(settings), form_(form) {
    matrix_.layout = settings.layout;
    matrix_.bits = form.bits;
    matrix_.zeros_less_one = settings.zeros_less_one;
  }

  absl::StatusOr<std::unique_ptr<StoredCodes>> Open();

 private:
  void OpenGptq();
  void OpenAwqGemm();
  void OpenAwqGemv();
  void OpenCompressedTensors();
  bool ScalesAnActivation() const;

  bool Has(absl::string_view part) const {
    return tensors_.Contains(absl::StrCat(module_, part));
  }
  // Records what is wrong with a part.
  void Fail(absl::string_view part, absl::string_view problem);
  // A stored part of one of `dtypes` and of rank `rank`, no dimension 0; an
  // empty one, with as many zeros for a shape, on any problem.
  TensorView Part(absl::string_view part, absl::Span<const DType> dtypes,
                  int rank);
  TensorView Codes() { return Part(CodesPart(), {DType::kI32}, 2); }
  absl::string_view CodesPart() const { return ModuleParts(matrix_.layout)[0]; }
  // `part` must have this shape, given the codes' and the settings.
  TensorView Expect(absl::string_view part, absl::Span<const DType> dtypes,
                    const Shape& shape);
  TensorView Scales(absl::string_view part, const Shape& shape) {
    return Expect(part, {DType::kF16, DType::kBF16, DType::kF32}, shape);
  }
  TensorView Zeros(absl::string_view part, const Shape& shape) {
    return Expect(part, {DType::kI32}, shape);
  }
  // Sets the matrix's sizes and returns the number of its groups.
  int64_t SetSizes(int64_t outputs, int64_t inputs);
  void ReadOrder(absl::string_view part);

  const TensorSource& tensors_;
  const std::string& module_;
  const QuantizationSettings& settings_;
  const ModuleForm form_;
  ModuleTensors matrix_;
  absl::Status status_;
};

void Opener::Fail(absl::string_view part, absl::string_view problem) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(tensors_.path(), ": tensor ", module_, part, " ", problem));
}

TensorView Opener::Part(absl::string_view part, absl::Span<const DType> dtypes,
                        int rank) {
  TensorView none;
  none.shape = rank == 1 ? Shape({0}) : Shape({0, 0});
  if (!status_.ok()) return none;
  const absl::StatusOr<TensorView> view =
      tensors_.Find(absl::StrCat(module_, part));
  if (!view.ok()) {
    status_ = view.status();
    return none;
  }
  if (!absl::c_linear_search(dtypes, view->dtype)) {
    std::vector<absl::string_view> names;
    for (const DType dtype : dtypes) names.push_back(DTypeName(dtype));
    Fail(part, absl::StrCat("is of type ", DTypeName(view->dtype),
                            "; it must be ", ListOf(names)));
    return none;
  }
  if (view->shape.rank() != rank || view->shape.elements() == 0) {
    Fail(part,
         absl::StrCat("has shape ", view->shape.ToString(), "; it must have ",
                      rank, " dimensions, none of them 0"));
    return none;
  }
  return *view;
}

TensorView Opener::Expect(absl::string_view part,
                          absl::Span<const DType> dtypes, const Shape& shape) {
  TensorView view = Part(part, dtypes, shape.rank());
  if (status_.ok() && view.shape != shape) {
    Fail(part, absl::StrCat("has shape ", view.shape.ToString(), "; with ",
                            form_.bits, " bits and groups of ",
                            matrix_.group_size, " (", settings_.source,
                            ") and a matrix of [", matrix_.outputs, ", ",
                            matrix_.inputs, "] it must be ", shape.ToString()));
  }
  return view;
}

int64_t Opener::SetSizes(int64_t outputs, int64_t inputs) {
  // Inputs are numbered in 32 bits.
  constexpr int64_t kMaxSize = std::numeric_limits<int32_t>::max();
  if (outputs > kMaxSize || inputs > kMaxSize) {
    Fail(CodesPart(), absl::StrCat("is a matrix of [", outputs, ", ", inputs,
                                   "], which is too large"));
  }
  matrix_.outputs = outputs;
  matrix_.inputs = inputs;
  matrix_.group_size =
      form_.group_size < 0 ? inputs : std::min(form_.group_size, inputs);
  if (!status_.ok()) return 0;
  return (inputs + matrix_.group_size - 1) / matrix_.group_size;
}

void Opener::ReadOrder(absl::string_view part) {
  if (!status_.ok() || !Has(part)) return;
  const TensorView view = Expect(part, {DType::kI32}, {matrix_.inputs});
  if (!status_.ok()) return;
  const absl::Span<const int32_t> g_idx = view.As<int32_t>();
  // Compressed-tensors' sign that there is none.
  if (absl::c_all_of(g_idx, [](int32_t group) { return group == -1; })) return;
  absl::StatusOr<std::vector<int32_t>> order =
      GroupOrder(g_idx, matrix_.group_size);
  if (!order.ok()) {
    return Fail(
        part, absl::StrCat("does not fit groups of ", matrix_.group_size, ": ",
                           order.status().message()));
  }
  matrix_.input_order = *std::move(order);
}

void Opener::OpenGptq() {
  matrix_.codes = Codes();
  const int64_t bits = matrix_.codes.shape.dim(0) * 32;
  if (bits % form_.bits != 0) {
    Fail(CodesPart(), absl::StrCat("has ", matrix_.codes.shape.dim(0),
                                   " rows, which do not hold whole codes of ",
                                   form_.bits, " bits"));
  }
  const int64_t groups =
      SetSizes(matrix_.codes.shape.dim(1), bits / form_.bits);
  matrix_.scales = Scales(".scales", {groups, matrix_.outputs});
  matrix_.zeros =
      Zeros(".qzeros", {groups, CodeWords(matrix_.outputs, form_.bits)});
  ReadOrder(".g_idx");
}

void Opener::OpenAwqGemm() {
  matrix_.codes = Codes();
  const int64_t words = matrix_.codes.shape.dim(1);
  const int64_t groups = SetSizes(words * 8, matrix_.codes.shape.dim(0));
  matrix_.scales = Scales(".scales", {groups, matrix_.outputs});
  matrix_.zeros = Zeros(".qzeros", {groups, words});
}

void Opener::OpenAwqGemv() {
  matrix_.codes = Codes();
  SetSizes(matrix_.codes.shape.dim(0), matrix_.codes.shape.dim(1) * 8);
  if (!status_.ok()) return;
  const int64_t words = GemvZeroWords(matrix_.inputs, matrix_.group_size);
  if (words == 0 || matrix_.inputs % matrix_.group_size != 0) {
    return Fail(CodesPart(),
                absl::StrCat("has ", matrix_.inputs, " inputs in groups of ",
                             matrix_.group_size,
                             "; AWQ's GEMV has whole groups of 16, 32, 64, or "
                             "128 and more"));
  }
  matrix_.scales = Scales(".scales", {matrix_.outputs, 8 * words});
  matrix_.zeros = Zeros(".qzeros", {matrix_.outputs, words});
}

void Opener::OpenCompressedTensors() {
  const TensorView shape = Part(".weight_shape", {DType::kI64, DType::kI32}, 1);
  int64_t sizes[2] = {0, 0};
  if (status_.ok() && shape.shape.elements() == 2) {
    for (size_t i = 0; i < 2; ++i) {
      sizes[i] = shape.dtype == DType::kI64 ? shape.As<int64_t>()[i]
                                            : shape.As<int32_t>()[i];
    }
  }
  if (sizes[0] < 1 || sizes[1] < 1) {
    return Fail(".weight_shape", "must hold two sizes above 0");
  }
  const int64_t groups = SetSizes(sizes[0], sizes[1]);
  if (!status_.ok()) return;
  matrix_.codes =
      Expect(CodesPart(), {DType::kI32},
             {matrix_.outputs, CodeWords(matrix_.inputs, form_.bits)});
  matrix_.scales = Scales(".weight_scale", {matrix_.outputs, groups});
  if (!form_.symmetric || Has(".weight_zero_point")) {
    matrix_.zeros = Zeros(".weight_zero_point",
                          {CodeWords(matrix_.outputs, form_.bits), groups});
  }
  ReadOrder(".weight_g_idx");
}

// AutoAWQ scales what it cannot fold into a norm, the output of GELU, by a
// vector of its own.
bool Opener::ScalesAnActivation() const {
  return (matrix_.layout == CodeLayout::kAwqGemm ||
          matrix_.layout == CodeLayout::kAwqGemv) &&
         Has(".scales") && !Has(".qweight") && !Has(".qzeros");
}

absl::StatusOr<std::unique_ptr<StoredCodes>> Opener::Open() {
  if (ScalesAnActivation()) {
    return absl::UnimplementedError(absl::StrCat(
        tensors_.path(), ": tensor ", module_,
        ".scales divides an activation, which is not supported; AWQ without "
        "scaled activations is"));
  }
  switch (matrix_.layout) {
    case CodeLayout::kGptq:
      OpenGptq();
      break;
    case CodeLayout::kAwqGemm:
      OpenAwqGemm();
      break;
    case CodeLayout::kAwqGemv:
      OpenAwqGemv();
      break;
    case CodeLayout::kCompressedTensors:
      OpenCompressedTensors();
      break;
  }
  if (matrix_.layout == CodeLayout::kAwqGemm ||
      matrix_.layout == CodeLayout::kAwqGemv) {
    if (Has(".g_idx")) Fail(".g_idx", "is no part of an AWQ matrix");
  }
  if (Has(".weight")) {
    Fail(".weight", absl::StrCat("stands beside ", module_, CodesPart(),
                                 ": stored twice"));
  }
  if (!status_.ok()) return status_;
  return std::make_unique<StoredCodes>(std::move(matrix_), &tensors_);
}

}  // namespace

absl::Span<const absl::string_view> ModuleParts(CodeLayout layout) {
  return layout == CodeLayout::kCompressedTensors
             ? absl::MakeConstSpan(kCompressedParts)
             : absl::MakeConstSpan(kGptqParts);
}

absl::StatusOr<std::unique_ptr<StoredCodes>> OpenModule(
    const TensorSource& tensors, const std::string& module,
    const QuantizationSettings& settings) {
  std::vector<ModuleForm> forms = settings.FormsOf(module);
  // Left in floating point, they say; what is stored decides.
  if (forms.empty()) forms.push_back(settings.common);
  absl::Status first_problem;
  for (const ModuleForm& form : forms) {
    absl::StatusOr<std::unique_ptr<StoredCodes>> matrix =
        Opener(tensors, module, settings, form).Open();
    if (matrix.ok()) return matrix;
    first_problem.Update(matrix.status());
  }
  return first_problem;
}

}  // namespace nibble
