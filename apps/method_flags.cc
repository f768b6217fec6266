#include "apps/method_flags.h"

#include <cstdint>
#include <optional>
#include <string>

#include "absl/flags/flag.h"

ABSL_FLAG(std::optional<std::string>, rounding, std::nullopt,
          "how --method=awq or teq rounds what it has scaled: gptq (the "
          "default), nearest (as in their papers) or signround");
ABSL_FLAG(std::optional<std::string>, recipe, std::nullopt,
          "file with the whole method, also per layer "
          "(quantization/recipe/recipe.proto), in place of the flags for it");
ABSL_FLAG(std::string, calibration, "",
          "text to measure activations on: UTF-8, or JSON lines with \"text\" "
          "(.jsonl); every method but rtn needs it");
ABSL_FLAG(std::optional<int>, samples, std::nullopt,
          "windows of calibration text; default 128");
ABSL_FLAG(std::optional<int>, length, std::nullopt,
          "tokens of a window; default 512, or as many as the model takes");
ABSL_FLAG(std::optional<uint64_t>, seed, std::nullopt,
          "which windows of the text, and the order of training; default 1");
ABSL_FLAG(std::optional<std::string>, offset, std::nullopt,
          "what a group has beside its scale: symmetric (nothing), zeros, or "
          "minimums (any number, as in GGUF's Q4_1, which has no zeros)");
ABSL_FLAG(std::optional<int>, head_bits, std::nullopt,
          "of the output head: 16 (bf16, the default) or 8; with --calibration "
          "or an option of a method");
ABSL_FLAG(bool, search, false,
          "rtn: search each group's range for the least error; gptq always "
          "does, unless a recipe says search: false");
ABSL_FLAG(bool, importance, false,
          "rtn: weigh errors of --search by the mean squared inputs");
ABSL_FLAG(bool, act_order, false,
          "gptq: inputs in the order of their size; default false");
ABSL_FLAG(bool, static_groups, false,
          "gptq: groups are fitted before any weight changes; default false");
ABSL_FLAG(bool, true_sequential, true,
          "gptq: each matrix of a block sees those before it quantized; "
          "default true");
ABSL_FLAG(std::optional<double>, damping, std::nullopt,
          "gptq: share of the mean second moment added to each; default 0.05");
ABSL_FLAG(std::optional<double>, correction, std::nullopt,
          "gptq: share of the correction towards the float model's outputs; "
          "default 1");
ABSL_FLAG(std::optional<int>, refinements, std::nullopt,
          "gptq: passes over codes and scales once all are chosen; default 2");
ABSL_FLAG(std::optional<int>, scale_steps, std::nullopt,
          "awq: exponents tried for the scales; default 20");
ABSL_FLAG(bool, clip, true,
          "awq: clip the ranges of groups; has no effect unless weights are "
          "rounded to nearest (--rounding=nearest) without --search");
ABSL_FLAG(std::optional<int>, iterations, std::nullopt,
          "signround, teq: training steps of each block; default 200");
ABSL_FLAG(std::optional<double>, learning_rate, std::nullopt,
          "signround, teq: default 1 / iterations, and 2 / iterations but at "
          "most 0.03 (0.001 where GPTQ has no part)");
ABSL_FLAG(std::optional<int>, batch, std::nullopt,
          "signround, teq: windows of a step; default 8");
ABSL_FLAG(bool, tune_range, true,
          "signround: train the groups' ranges too; default true");
ABSL_FLAG(
    bool, start_with_gptq, true,
    "signround: start training from what GPTQ makes of the block, not from "
    "round to nearest; default true");
ABSL_FLAG(std::optional<std::string>, preset, std::nullopt,
          "signround: light (50 iterations, rate 0.005), default (200) or best "
          "(1000)");
