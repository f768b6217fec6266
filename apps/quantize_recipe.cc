#include "apps/quantize_recipe.h"

#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/common/app.h"
#include "apps/method_flags.h"
#include "apps/quantize_keep_float.h"
#include "quantization/flow.h"
#include "quantization/recipe/recipe.h"

namespace nibble {
namespace {

// What an option belongs to.
enum Part : unsigned {
  kNearest = 1,
  kGptq = 2,
  kSignRound = 4,
  kAwq = 8,
  kTeq = 16,
};

std::string PartNames(unsigned parts) {
  std::string text;
  for (const auto& [part, name] :
       {std::pair(kNearest, "rtn"), std::pair(kGptq, "gptq"),
        std::pair(kAwq, "awq"), std::pair(kTeq, "teq"),
        std::pair(kSignRound, "signround")}) {
    if ((parts & part) == 0) continue;
    absl::StrAppend(&text, text.empty() ? "" : " and ", name);
  }
  return text;
}

template <class T>
absl::Status ErrorOf(const absl::Flag<T>& flag, absl::string_view problem) {
  const absl::CommandLineFlag& reflected = absl::GetFlagReflectionHandle(flag);
  return FlagError(reflected.Name(), reflected.CurrentValue(), problem);
}

// Fills a recipe and remembers the first option that does not belong to it.
class Builder {
 public:
  explicit Builder(const GivenGrid& given) : given_(given) {}

  absl::Status Run() {
    absl::Status status = Method();
    if (status.ok()) status = Grid();
    if (!status.ok()) return status;
    Options();
    Training();
    return status_;
  }

  Recipe recipe;
  // An option was given that only the flow by recipes has.
  bool needs_recipe = false;

 private:
  absl::Status Method() {
    const std::string& method = given_.method;
    if (method == "gptq") {
      recipe.set_rounding(Recipe::GPTQ);
    } else if (method == "signround") {
      recipe.set_rounding(Recipe::SIGNROUND);
    } else if (method == "awq") {
      recipe.set_transform(Recipe::AWQ);
    } else if (method == "teq") {
      recipe.set_transform(Recipe::TEQ);
    }
    const std::optional<std::string> rounding = absl::GetFlag(FLAGS_rounding);
    if (recipe.transform() != Recipe::NONE) recipe.set_rounding(Recipe::GPTQ);
    if (rounding.has_value()) {
      if (recipe.transform() == Recipe::NONE) {
        return ErrorOf(FLAGS_rounding,
                       "is for --method=awq and teq, which scale weights "
                       "before they are rounded; use --method for the rounding "
                       "alone");
      }
      if (*rounding == "gptq") {
        recipe.set_rounding(Recipe::GPTQ);
      } else if (*rounding == "signround") {
        recipe.set_rounding(Recipe::SIGNROUND);
      } else if (*rounding == "nearest") {
        recipe.set_rounding(Recipe::NEAREST);
      } else {
        return ErrorOf(FLAGS_rounding, "must be nearest, gptq or signround");
      }
    }
    parts_ = recipe.rounding() == Recipe::GPTQ        ? kGptq
             : recipe.rounding() == Recipe::SIGNROUND ? kSignRound
                                                      : kNearest;
    if (parts_ == kSignRound && absl::GetFlag(FLAGS_start_with_gptq)) {
      parts_ |= kGptq;
    }
    if (recipe.transform() == Recipe::AWQ) parts_ |= kAwq;
    if (recipe.transform() == Recipe::TEQ) parts_ |= kTeq;
    return absl::OkStatus();
  }

  absl::Status Grid() {
    Recipe::Grid& grid = *recipe.mutable_grid();
    if (given_.bits) grid.set_bits(*given_.bits);
    grid.set_group_size(given_.group_size.value_or(given_.gguf ? 32 : 128));
    if (given_.symmetric) {
      grid.set_offset(*given_.symmetric ? Recipe::SYMMETRIC : Recipe::ZEROS);
    }
    // Q4_1 has minimums, and f16 does not hold every zero times its scale.
    if (given_.gguf && !given_.symmetric.value_or(false) && grid.bits() < 8) {
      grid.set_offset(Recipe::MINIMUMS);
    }
    if (given_.offset) {
      const absl::Status status = Offset(*given_.offset);
      if (!status.ok()) return status;
    }
    return KeptFloats();
  }

  absl::Status Offset(const std::string& offset) {
    needs_recipe = true;
    Recipe::Grid& grid = *recipe.mutable_grid();
    if (given_.symmetric) {
      return FlagError("offset", offset, "contradicts --symmetric; give one");
    }
    if (offset == "symmetric") {
      grid.set_offset(Recipe::SYMMETRIC);
    } else if (offset == "zeros") {
      grid.set_offset(Recipe::ZEROS);
    } else if (offset == "minimums") {
      grid.set_offset(Recipe::MINIMUMS);
    } else {
      return FlagError("offset", offset,
                       "must be symmetric, zeros or minimums");
    }
    if (given_.gguf && offset == "zeros" && grid.bits() < 8) {
      return FlagError("offset", offset,
                       "contradicts --format=gguf, which has no zeros: give "
                       "minimums (Q4_1) or symmetric (Q4_0)");
    }
    return absl::OkStatus();
  }

  absl::Status KeptFloats() {
    const std::string pattern = given_.keep_float.value_or(kDefaultKeepFloat);
    const absl::StatusOr<KeptMatrices> kept = MatchKeepFloat(pattern);
    if (!kept.ok()) return kept.status();
    if (!kept->head) recipe.set_head_bits(8);
    if (given_.head_bits) {
      const absl::Status status = HeadBits(*given_.head_bits, kept->head);
      if (!status.ok()) return status;
    }
    if (!kept->layers) return absl::OkStatus();
    Recipe::LayerSettings& layers = *recipe.add_layers();
    layers.set_pattern(pattern);
    layers.set_bits(16);
    return absl::OkStatus();
  }

  absl::Status HeadBits(int bits, bool kept) {
    needs_recipe = true;
    recipe.set_head_bits(bits);
    if (!given_.keep_float || bits != (kept ? 8 : 16)) return absl::OkStatus();
    return FlagError(
        "head_bits", absl::StrCat(bits),
        absl::StrCat("contradicts --keep_float=", *given_.keep_float,
                     ", which ", kept ? "keeps" : "does not keep",
                     " the head in bf16; give one of them"));
  }

  // Hands the value, if it was given, to `set`.
  // Of a switch: if it is not as it is by default.
  template <class Set>
  void Take(const absl::Flag<bool>& flag, unsigned parts, const Set& set) {
    const absl::CommandLineFlag& reflected =
        absl::GetFlagReflectionHandle(flag);
    if (reflected.CurrentValue() == reflected.DefaultValue()) return;
    Give(flag, absl::GetFlag(flag), parts, set);
  }

  template <class T, class Set>
  void Take(const absl::Flag<std::optional<T>>& flag, unsigned parts,
            const Set& set) {
    const std::optional<T> value = absl::GetFlag(flag);
    if (value.has_value()) Give(flag, *value, parts, set);
  }

  template <class F, class T, class Set>
  void Give(const absl::Flag<F>& flag, const T& value, unsigned parts,
            const Set& set) {
    if (!status_.ok()) return;
    needs_recipe = true;
    if ((parts & parts_) != 0) return set(value);
    status_ = ErrorOf(flag, absl::StrCat("has no effect here; it is an option "
                                         "of ",
                                         PartNames(parts)));
  }

  void Options() {
    Recipe::Calibration& text = *recipe.mutable_calibration();
    Take(FLAGS_samples, ~0u, [&](int value) { text.set_samples(value); });
    Take(FLAGS_length, ~0u, [&](int value) { text.set_length(value); });
    Take(FLAGS_seed, ~0u, [&](uint64_t value) { text.set_seed(value); });
    if (text.ByteSizeLong() == 0) recipe.clear_calibration();
    Take(FLAGS_search, kNearest | kGptq, [&](bool value) {
      if ((parts_ & kGptq) != 0) {
        recipe.mutable_gptq()->set_search(value);
      } else {
        recipe.mutable_round_to_nearest()->set_search(value);
      }
    });
    Take(FLAGS_importance, kNearest, [&](bool value) {
      recipe.mutable_round_to_nearest()->set_importance(value);
    });
    Take(FLAGS_act_order, kGptq,
         [&](bool value) { recipe.mutable_gptq()->set_act_order(value); });
    Take(FLAGS_static_groups, kGptq,
         [&](bool value) { recipe.mutable_gptq()->set_static_groups(value); });
    Take(FLAGS_true_sequential, kGptq, [&](bool value) {
      recipe.mutable_gptq()->set_true_sequential(value);
    });
    Take(FLAGS_damping, kGptq,
         [&](double value) { recipe.mutable_gptq()->set_damping(value); });
    Take(FLAGS_correction, kGptq, [&](double value) {
      recipe.mutable_gptq()->set_asymmetric_correction(value);
    });
    Take(FLAGS_refinements, kGptq,
         [&](int value) { recipe.mutable_gptq()->set_refinements(value); });
    Take(FLAGS_scale_steps, kAwq,
         [&](int value) { recipe.mutable_awq()->set_scale_steps(value); });
    Take(FLAGS_clip, kAwq,
         [&](bool value) { recipe.mutable_awq()->set_clip(value); });
  }

  void Training() {
    Take(FLAGS_preset, kSignRound, [&](const std::string& value) {
      Recipe::SignRound& signround = *recipe.mutable_signround();
      if (value == "light") {
        signround.set_iterations(50);
        signround.set_learning_rate(5e-3);
      } else if (value == "best") {
        signround.set_iterations(1000);
      } else if (value != "default") {
        status_ = ErrorOf(FLAGS_preset, "must be light, default or best");
      }
    });
    const unsigned trained = kSignRound | kTeq;
    const auto both = [&](auto set_signround, auto set_teq) {
      if ((parts_ & kSignRound) != 0) set_signround();
      if ((parts_ & kTeq) != 0) set_teq();
    };
    Take(FLAGS_iterations, trained, [&](int value) {
      both([&] { recipe.mutable_signround()->set_iterations(value); },
           [&] { recipe.mutable_teq()->set_iterations(value); });
    });
    Take(FLAGS_learning_rate, trained, [&](double value) {
      both([&] { recipe.mutable_signround()->set_learning_rate(value); },
           [&] { recipe.mutable_teq()->set_learning_rate(value); });
    });
    Take(FLAGS_batch, trained, [&](int value) {
      both([&] { recipe.mutable_signround()->set_batch(value); },
           [&] { recipe.mutable_teq()->set_batch(value); });
    });
    Take(FLAGS_tune_range, kSignRound, [&](bool value) {
      recipe.mutable_signround()->set_tune_range(value);
    });
    Take(FLAGS_start_with_gptq, kSignRound, [&](bool value) {
      recipe.mutable_signround()->set_start_with_gptq(value);
    });
  }

  const GivenGrid& given_;
  unsigned parts_ = kNearest;
  absl::Status status_;
};

// A flag that was given and says what recipes say; empty: none.
std::string FlagOfRecipes(const GivenGrid& given) {
  if (given.has_method) return "--method";
  if (given.bits) return "--bits";
  if (given.group_size) return "--group_size";
  if (given.symmetric) return "--symmetric";
  if (given.offset) return "--offset";
  if (given.keep_float) return "--keep_float";
  if (given.head_bits) return "--head_bits";
  return "";
}

// A recipe says all: what flags would say beside it is a contradiction.
absl::Status CheckRecipeAlone(const GivenGrid& given, bool others) {
  std::string flag = FlagOfRecipes(given);
  if (flag.empty() && others) flag = "an option of a method";
  if (flag.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--recipe: contradicts ", flag,
      ": the recipe says all of that; give one of them, or edit the recipe"));
}

}  // namespace

absl::StatusOr<RecipeRequest> SearchBaseFromFlags(const GivenGrid& given) {
  constexpr absl::string_view kChosen =
      "contradicts --auto, which chooses it; --search_space=FILE lists recipes "
      "to choose from";
  if (given.has_method) return FlagError("method", given.method, kChosen);
  if (absl::GetFlag(FLAGS_rounding)) return ErrorOf(FLAGS_rounding, kChosen);
  if (absl::GetFlag(FLAGS_recipe)) return ErrorOf(FLAGS_recipe, kChosen);
  Builder builder(given);
  const absl::Status built = builder.Run();
  if (!built.ok()) return built;
  if (builder.recipe.has_round_to_nearest()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--search, --importance: ", kChosen));
  }
  RecipeRequest request;
  request.recipe = std::move(builder.recipe);
  request.calibration = absl::GetFlag(FLAGS_calibration);
  request.has_length = request.recipe.calibration().has_length();
  if (request.calibration.empty()) {
    return absl::InvalidArgumentError(
        "--auto: needs --calibration=FILE, a text to measure activations on");
  }
  return request;
}

absl::Status CheckSearchSpaceAlone(const GivenGrid& given) {
  const std::string flag = FlagOfRecipes(given);
  if (flag.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag,
                   ": contradicts --search_space, whose recipes say all of "
                   "that; give one of them, or edit the recipes"));
}

absl::StatusOr<std::optional<RecipeRequest>> RecipeFromFlags(
    const GivenGrid& given) {
  RecipeRequest request;
  request.calibration = absl::GetFlag(FLAGS_calibration);
  Builder builder(given);
  const absl::Status built = builder.Run();
  if (const auto file = absl::GetFlag(FLAGS_recipe)) {
    const bool others =
        builder.needs_recipe || absl::GetFlag(FLAGS_rounding).has_value();
    const absl::Status alone = CheckRecipeAlone(given, others || !built.ok());
    if (!alone.ok()) return alone;
    absl::StatusOr<Recipe> recipe = ReadRecipe(*file);
    if (!recipe.ok()) return recipe.status();
    request.recipe = *std::move(recipe);
    request.has_length = true;
    // One command line gives the model of any recipe again, also of one that
    // reads no text.
    if (!NeedsCalibration(request.recipe)) request.calibration.clear();
  } else {
    if (!built.ok()) return built;
    const bool keep = given.method == "keep";
    if ((keep || given.method == "rtn") && request.calibration.empty() &&
        !builder.needs_recipe) {
      return std::optional<RecipeRequest>();
    }
    if (keep) {
      return FlagError("method", "keep",
                       "rounds nothing, so --calibration and options of other "
                       "methods have no effect");
    }
    request.recipe = builder.recipe;
    request.has_length = builder.recipe.calibration().has_length();
  }
  const absl::StatusOr<Recipe> complete = CompleteRecipe(request.recipe);
  if (!complete.ok()) return complete.status();
  if (!request.calibration.empty() && !NeedsCalibration(*complete)) {
    return FlagError("calibration", request.calibration,
                     "has no effect: rounding to nearest reads no text; give "
                     "--search --importance, or another --method");
  }
  if (request.calibration.empty() && NeedsCalibration(*complete)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--calibration=FILE is needed: ", MethodName(*complete),
                     " measures activations on a text"));
  }
  return std::optional<RecipeRequest>(std::move(request));
}

}  // namespace nibble
