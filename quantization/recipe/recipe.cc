#include "quantization/recipe/recipe.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/recipe/recipe_check.h"
#include "tensor/mapped_file.h"

namespace nibble {
namespace {

using google::protobuf::TextFormat;

// Two thousand times the longest recipe of the search.
constexpr size_t kMostBytes = 4 << 20;

// Keeps the first error of the text's grammar.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  explicit FirstError(absl::string_view file) : file_(file) {}

  void AddError(int line, google::protobuf::io::ColumnNumber,
                const std::string& message) override {
    if (!status_.ok()) return;
    const std::string where = line < 0 ? "" : absl::StrCat(":", line + 1);
    // It may quote a megabyte of any bytes.
    status_ = absl::InvalidArgumentError(absl::StrCat(
        file_, where, ": ", absl::Utf8SafeCEscape(message.substr(0, 300))));
  }

  absl::Status status() const { return status_; }

 private:
  const absl::string_view file_;
  absl::Status status_;
};

// Gives every field that is not set its default.
void FillFields(google::protobuf::Message* message) {
  using google::protobuf::FieldDescriptor;
  const auto* descriptor = message->GetDescriptor();
  const auto* reflection = message->GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (field->is_repeated() || !field->has_default_value() ||
        reflection->HasField(*message, field)) {
      continue;
    }
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        reflection->SetInt32(message, field, field->default_value_int32());
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        reflection->SetInt64(message, field, field->default_value_int64());
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        reflection->SetUInt64(message, field, field->default_value_uint64());
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        reflection->SetDouble(message, field, field->default_value_double());
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        reflection->SetBool(message, field, field->default_value_bool());
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        reflection->SetEnum(message, field, field->default_value_enum());
        break;
      default:
        break;
    }
  }
}

// The settings that depend on others, then all the rest. The sections of
// methods that are not used are gone, be they empty.
Recipe Completed(Recipe recipe) {
  FillFields(&recipe);
  if (recipe.grid().bits() == 8) {
    recipe.mutable_grid()->set_offset(Recipe::SYMMETRIC);
  }
  FillFields(recipe.mutable_grid());
  if (NeedsCalibration(recipe)) FillFields(recipe.mutable_calibration());
  if (recipe.transform() == Recipe::AWQ && !recipe.awq().has_clip()) {
    recipe.mutable_awq()->set_clip(recipe.rounding() == Recipe::NEAREST &&
                                   !recipe.round_to_nearest().search());
  }
  if (recipe.transform() == Recipe::AWQ) FillFields(recipe.mutable_awq());
  if (recipe.transform() == Recipe::TEQ) {
    Recipe::Teq* teq = recipe.mutable_teq();
    FillFields(teq);
    if (!teq->has_learning_rate()) {
      teq->set_learning_rate(
          RunsGptq(recipe) ? std::min(0.03, 2.0 / teq->iterations()) : 0.001);
    }
  }
  if (RunsGptq(recipe)) FillFields(recipe.mutable_gptq());
  switch (recipe.rounding()) {
    case Recipe::NEAREST:
      FillFields(recipe.mutable_round_to_nearest());
      break;
    case Recipe::GPTQ:
      break;
    case Recipe::SIGNROUND: {
      Recipe::SignRound* tuning = recipe.mutable_signround();
      FillFields(tuning);
      if (!tuning->has_learning_rate()) {
        tuning->set_learning_rate(1.0 / tuning->iterations());
      }
      break;
    }
  }
  return recipe;
}

std::string GridName(const Recipe::Grid& grid) {
  const std::string size = grid.group_size() == -1
                               ? std::string("row")
                               : absl::StrCat("g", grid.group_size());
  return absl::StrCat(
      "int", grid.bits(), " ", size, " ",
      absl::AsciiStrToLower(Recipe::Offset_Name(grid.offset())));
}

std::string RoundingName(const Recipe& recipe) {
  switch (recipe.rounding()) {
    case Recipe::NEAREST: {
      const Recipe::RoundToNearest& options = recipe.round_to_nearest();
      return options.importance() ? "rtn importance"
             : options.search()   ? "rtn search"
                                  : "rtn";
    }
    case Recipe::GPTQ: {
      const Recipe::Gptq& options = recipe.gptq();
      return absl::StrCat(
          "gptq", options.act_order() ? " act-order" : "",
          options.static_groups() ? " static" : "",
          options.search() ? "" : " no-search",
          options.refinements() == 2
              ? ""
              : absl::StrCat(" refinements-", options.refinements()),
          options.asymmetric_correction() == 1
              ? ""
              : absl::StrCat(" correction-", options.asymmetric_correction()));
    }
    case Recipe::SIGNROUND: {
      const int iterations = recipe.signround().iterations();
      return absl::StrCat(
          "signround", iterations == 200 ? "" : absl::StrCat(" ", iterations),
          recipe.signround().start_with_gptq() ? "" : " from-nearest");
    }
  }
  return "";
}

absl::Status ParseText(absl::string_view text, absl::string_view file,
                       google::protobuf::Message* message,
                       TextFormat::ParseInfoTree* lines) {
  if (text.size() > kMostBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": longer than ", kMostBytes, " bytes"));
  }
  if (absl::StripAsciiWhitespace(text).empty()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": is empty"));
  }
  FirstError errors(file);
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.WriteLocationsTo(lines);
  google::protobuf::io::ArrayInputStream stream(text.data(),
                                                static_cast<int>(text.size()));
  if (parser.Parse(&stream, message)) return absl::OkStatus();
  return errors.status().ok()
             ? absl::InvalidArgumentError(absl::StrCat(file, ": no recipe"))
             : errors.status();
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  const auto file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const auto bytes = (*file)->bytes();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

absl::StatusOr<Recipe> ParseRecipe(absl::string_view text,
                                   absl::string_view file) {
  Recipe recipe;
  TextFormat::ParseInfoTree lines;
  absl::Status status = ParseText(text, file, &recipe, &lines);
  if (status.ok()) status = CheckRecipe(recipe, file, &lines);
  if (!status.ok()) return status;
  return Completed(std::move(recipe));
}

absl::StatusOr<Recipe> ReadRecipe(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  return ParseRecipe(*text, path);
}

absl::StatusOr<std::vector<Recipe>> ParseRecipes(
    absl::string_view text, absl::string_view file,
    const Recipe::Calibration& calibration) {
  RecipeList list;
  TextFormat::ParseInfoTree lines;
  const absl::Status status = ParseText(text, file, &list, &lines);
  if (!status.ok()) return status;
  if (list.recipes().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": holds no recipes { ... }"));
  }
  const auto* field = RecipeList::descriptor()->FindFieldByName("recipes");
  std::vector<Recipe> recipes;
  for (int i = 0; i < list.recipes_size(); ++i) {
    Recipe recipe = list.recipes(i);
    const absl::Status checked =
        CheckRecipe(recipe, file, lines.GetTreeForNested(field, i));
    if (!checked.ok()) return checked;
    if (NeedsCalibration(recipe) && !recipe.has_calibration()) {
      *recipe.mutable_calibration() = calibration;
    }
    recipes.push_back(Completed(std::move(recipe)));
  }
  return recipes;
}

absl::StatusOr<std::vector<Recipe>> ReadRecipes(
    const std::string& path, const Recipe::Calibration& calibration) {
  const absl::StatusOr<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  return ParseRecipes(*text, path, calibration);
}

absl::StatusOr<Recipe> CompleteRecipe(const Recipe& recipe) {
  const absl::Status status = CheckRecipe(recipe, "recipe", nullptr);
  if (!status.ok()) return status;
  return Completed(recipe);
}

std::string MethodName(const Recipe& recipe) {
  const std::string rounding = RoundingName(recipe);
  if (recipe.transform() == Recipe::NONE) return rounding;
  std::string transform =
      absl::AsciiStrToLower(Recipe::Transform_Name(recipe.transform()));
  if (recipe.transform() == Recipe::TEQ &&
      recipe.teq().iterations() != Recipe::Teq().iterations()) {
    absl::StrAppend(&transform, " ", recipe.teq().iterations());
  }
  return rounding == "rtn" ? transform : absl::StrCat(transform, "+", rounding);
}

std::string RecipeName(const Recipe& recipe) {
  std::string name =
      absl::StrCat(MethodName(recipe), " ", GridName(recipe.grid()));
  if (recipe.head_bits() == 8) absl::StrAppend(&name, ", head int8");
  if (recipe.layers_size() == 1) absl::StrAppend(&name, ", 1 exception");
  if (recipe.layers_size() > 1) {
    absl::StrAppend(&name, ", ", recipe.layers_size(), " exceptions");
  }
  return name;
}

std::string RecipeText(const Recipe& recipe) {
  std::string text;
  TextFormat::PrintToString(recipe, &text);
  return absl::StrCat("# ", RecipeName(recipe), "\n", text);
}

bool NeedsCalibration(const Recipe& recipe) {
  return recipe.transform() != Recipe::NONE ||
         recipe.rounding() != Recipe::NEAREST ||
         recipe.round_to_nearest().importance();
}

bool RunsGptq(const Recipe& recipe) {
  return recipe.rounding() == Recipe::GPTQ ||
         (recipe.rounding() == Recipe::SIGNROUND &&
          recipe.signround().start_with_gptq());
}

}  // namespace nibble
