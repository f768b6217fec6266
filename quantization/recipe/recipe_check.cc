#include "quantization/recipe/recipe_check.h"

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "re2/re2.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

using Lines = google::protobuf::TextFormat::ParseInfoTree;

// More than any calibration has, and no sum of tokens overflows.
constexpr double kMostSamples = 1 << 20;
constexpr double kMostTokens = 1 << 20;
constexpr double kMostIterations = 1e6;
// Of a GPTQ block: a thread keeps the errors of so many columns and 64 rows in
// f32, 1 MiB.
constexpr double kMostColumns = 4096;
constexpr double kMostScaleSteps = 1000;

// A message of the recipe, where it stands and what it is called.
struct Scope {
  const google::protobuf::Message& message;
  const Lines* lines;
  std::string prefix;
};

// Keeps the first problem found.
class Checker {
 public:
  Checker(absl::string_view file, const Lines* lines)
      : file_(file), lines_(lines) {}

  absl::Status Run(const Recipe& recipe);

 private:
  void CheckUnused(const Recipe& recipe);
  void CheckRanges(const Recipe& recipe);
  void CheckCombinations(const Recipe& recipe);
  void CheckGroups(const Scope& scope);
  void CheckLayer(const Scope& scope, const Recipe::LayerSettings& layer);
  void CheckDigest(const Scope& scope, const std::string& digest);

  Scope Nested(const Scope& outer, const char* field,
               const google::protobuf::Message& message, int index = -1) const;
  void Refuse(const Scope& scope, const std::string& field,
              absl::string_view problem);
  void InRange(const Scope& scope, const std::string& field, double low,
               double high);
  void OneOf(const Scope& scope, const std::string& field, int value,
             std::initializer_list<int> allowed);

  const absl::string_view file_;
  const Lines* const lines_;
  absl::Status status_;
};

Scope Checker::Nested(const Scope& outer, const char* field,
                      const google::protobuf::Message& message,
                      int index) const {
  const auto* descriptor =
      outer.message.GetDescriptor()->FindFieldByName(field);
  const Lines* lines = outer.lines == nullptr
                           ? nullptr
                           : outer.lines->GetTreeForNested(descriptor, index);
  const std::string which = index < 0 ? "" : absl::StrCat("[", index, "]");
  return {message, lines, absl::StrCat(outer.prefix, field, which, ".")};
}

void Checker::Refuse(const Scope& scope, const std::string& field,
                     absl::string_view problem) {
  if (!status_.ok()) return;
  std::string where(file_);
  const auto* descriptor =
      scope.message.GetDescriptor()->FindFieldByName(field);
  if (scope.lines != nullptr && descriptor != nullptr) {
    const int index = descriptor->is_repeated() ? 0 : -1;
    const int line = scope.lines->GetLocation(descriptor, index).line;
    if (line >= 0) absl::StrAppend(&where, ":", line + 1);
  }
  status_ = absl::InvalidArgumentError(
      absl::StrCat(where, ": ", scope.prefix, field, ": ", problem));
}

// Of a number that is given.
void Checker::InRange(const Scope& scope, const std::string& field, double low,
                      double high) {
  using google::protobuf::FieldDescriptor;
  const auto* descriptor =
      scope.message.GetDescriptor()->FindFieldByName(field);
  const auto* reflection = scope.message.GetReflection();
  if (!reflection->HasField(scope.message, descriptor)) return;
  const double value = descriptor->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE
                           ? reflection->GetDouble(scope.message, descriptor)
                           : reflection->GetInt32(scope.message, descriptor);
  if (value >= low && value <= high) return;  // not NaN
  Refuse(scope, field,
         absl::StrCat("is ", value, "; must be between ", low, " and ", high));
}

void Checker::OneOf(const Scope& scope, const std::string& field, int value,
                    std::initializer_list<int> allowed) {
  if (absl::c_linear_search(allowed, value)) return;
  Refuse(scope, field,
         absl::StrCat("is ", value, "; must be one of ",
                      absl::StrJoin(allowed, ", ")));
}

void Checker::CheckUnused(const Recipe& recipe) {
  const Scope scope = {recipe, lines_, ""};
  const auto refuse = [&](bool wrong, const char* field, const char* needs) {
    if (wrong) {
      Refuse(scope, field, absl::StrCat("has no effect without ", needs));
    }
  };
  refuse(recipe.has_round_to_nearest() && recipe.rounding() != Recipe::NEAREST,
         "round_to_nearest", "rounding: NEAREST");
  refuse(recipe.has_gptq() && !RunsGptq(recipe), "gptq",
         "rounding: GPTQ, or SIGNROUND that starts with it");
  refuse(recipe.has_signround() && recipe.rounding() != Recipe::SIGNROUND,
         "signround", "rounding: SIGNROUND");
  refuse(recipe.has_awq() && recipe.transform() != Recipe::AWQ, "awq",
         "transform: AWQ");
  refuse(recipe.has_teq() && recipe.transform() != Recipe::TEQ, "teq",
         "transform: TEQ");
  refuse(recipe.has_calibration() && !NeedsCalibration(recipe), "calibration",
         "a method that reads text: AWQ, TEQ, GPTQ, SIGNROUND or "
         "round_to_nearest { importance: true }");
}

// A group size, and 8 or 16 bits with what they do not have.
void Checker::CheckGroups(const Scope& scope) {
  const auto* descriptor = scope.message.GetDescriptor();
  const auto* reflection = scope.message.GetReflection();
  const auto* size_field = descriptor->FindFieldByName("group_size");
  const auto* bits_field = descriptor->FindFieldByName("bits");
  const auto* offset_field = descriptor->FindFieldByName("offset");
  const int64_t size = reflection->GetInt64(scope.message, size_field);
  const bool has_size = reflection->HasField(scope.message, size_field);
  const int bits = reflection->HasField(scope.message, bits_field)
                       ? reflection->GetInt32(scope.message, bits_field)
                       : 4;
  const bool has_offset = reflection->HasField(scope.message, offset_field);
  if (has_size && size != -1 && (size < 1 || size % kGroupSizeUnit != 0)) {
    Refuse(scope, "group_size",
           absl::StrCat("is ", size, "; must be a positive multiple of ",
                        kGroupSizeUnit, ", or -1 for the whole row"));
  }
  if (bits == 8 && has_offset &&
      reflection->GetEnumValue(scope.message, offset_field) !=
          Recipe::SYMMETRIC) {
    Refuse(scope, "offset", "contradicts bits: 8, which is always SYMMETRIC");
  }
  if (bits != 16) return;
  if (has_size) Refuse(scope, "group_size", "contradicts bits: 16");
  if (has_offset) Refuse(scope, "offset", "contradicts bits: 16");
}

void Checker::CheckLayer(const Scope& scope,
                         const Recipe::LayerSettings& layer) {
  if (layer.pattern().empty()) {
    Refuse(scope, "pattern",
           "is needed: a regular expression for names like "
           "layers.0.down.weight");
  }
  RE2::Options options;
  options.set_log_errors(false);
  const RE2 pattern(layer.pattern(), options);
  if (!pattern.ok()) Refuse(scope, "pattern", pattern.error());
  if (!layer.has_bits() && !layer.has_group_size() && !layer.has_offset()) {
    Refuse(scope, "pattern", "nothing is set for it");
  }
  if (layer.has_bits()) OneOf(scope, "bits", layer.bits(), {2, 3, 4, 8, 16});
  CheckGroups(scope);
}

void Checker::CheckDigest(const Scope& scope, const std::string& digest) {
  if (digest.size() == 16 && absl::c_all_of(digest, absl::ascii_isxdigit)) {
    return;
  }
  Refuse(scope, "digest", "must be 16 hexadecimal digits");
}

void Checker::CheckRanges(const Recipe& recipe) {
  const Scope scope = {recipe, lines_, ""};
  const Scope grid = Nested(scope, "grid", recipe.grid());
  OneOf(grid, "bits", recipe.grid().bits(), {2, 3, 4, 8});
  CheckGroups(grid);
  OneOf(scope, "head_bits", recipe.head_bits(), {8, 16});
  const Scope text = Nested(scope, "calibration", recipe.calibration());
  InRange(text, "samples", 1, kMostSamples);
  InRange(text, "length", 1, kMostTokens);
  if (recipe.calibration().has_digest()) {
    CheckDigest(text, recipe.calibration().digest());
  }
  const Scope gptq = Nested(scope, "gptq", recipe.gptq());
  InRange(gptq, "damping", 0, 1);
  InRange(gptq, "block", 1, kMostColumns);
  InRange(gptq, "asymmetric_correction", 0, 1);
  InRange(gptq, "refinements", 0, 100);
  InRange(Nested(scope, "awq", recipe.awq()), "scale_steps", 1,
          kMostScaleSteps);
  const Scope teq = Nested(scope, "teq", recipe.teq());
  const Scope signround = Nested(scope, "signround", recipe.signround());
  for (const Scope& tuning : {teq, signround}) {
    InRange(tuning, "iterations", 1, kMostIterations);
    // A rate of 0 tunes nothing.
    InRange(tuning, "learning_rate", 1e-9, 1);
    InRange(tuning, "batch", 1, kMostSamples);
  }
  for (int i = 0; i < recipe.layers_size(); ++i) {
    CheckLayer(Nested(scope, "layers", recipe.layers(i), i), recipe.layers(i));
  }
}

void Checker::CheckCombinations(const Recipe& recipe) {
  const Scope scope = {recipe, lines_, ""};
  const Scope nearest =
      Nested(scope, "round_to_nearest", recipe.round_to_nearest());
  if (recipe.round_to_nearest().importance() &&
      !recipe.round_to_nearest().search()) {
    Refuse(nearest, "importance", "has no effect without search: true");
  }
  if (recipe.rounding() == Recipe::SIGNROUND && recipe.gptq().act_order() &&
      !recipe.gptq().static_groups()) {
    Refuse(Nested(scope, "gptq", recipe.gptq()), "act_order",
           "contradicts rounding: SIGNROUND, which trains groups of "
           "neighbours: it needs static_groups: true");
  }
  if (!recipe.awq().has_clip() || !recipe.awq().clip()) return;
  const Scope awq = Nested(scope, "awq", recipe.awq());
  if (recipe.rounding() != Recipe::NEAREST) {
    Refuse(awq, "clip", "has no effect without rounding: NEAREST");
  }
  if (recipe.round_to_nearest().search()) {
    Refuse(awq, "clip",
           "contradicts round_to_nearest { search: true }: both choose a "
           "group's range");
  }
}

absl::Status Checker::Run(const Recipe& recipe) {
  CheckUnused(recipe);
  CheckRanges(recipe);
  CheckCombinations(recipe);
  return status_;
}

}  // namespace

absl::Status CheckRecipe(const Recipe& recipe, absl::string_view file,
                         const Lines* lines) {
  return Checker(file, lines).Run(recipe);
}

}  // namespace nibble
