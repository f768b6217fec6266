// The flags of quantize that say how weights are rounded; quantize_recipe.h
// makes a recipe of them.
#ifndef NIBBLE_APPS_METHOD_FLAGS_H_
#define NIBBLE_APPS_METHOD_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/flags/declare.h"

ABSL_DECLARE_FLAG(std::optional<std::string>, rounding);
ABSL_DECLARE_FLAG(std::optional<std::string>, recipe);
ABSL_DECLARE_FLAG(std::string, calibration);
ABSL_DECLARE_FLAG(std::optional<int>, samples);
ABSL_DECLARE_FLAG(std::optional<int>, length);
ABSL_DECLARE_FLAG(std::optional<uint64_t>, seed);
ABSL_DECLARE_FLAG(std::optional<std::string>, offset);
ABSL_DECLARE_FLAG(std::optional<int>, head_bits);
ABSL_DECLARE_FLAG(bool, search);
ABSL_DECLARE_FLAG(bool, importance);
ABSL_DECLARE_FLAG(bool, act_order);
ABSL_DECLARE_FLAG(bool, static_groups);
ABSL_DECLARE_FLAG(bool, true_sequential);
ABSL_DECLARE_FLAG(std::optional<double>, damping);
ABSL_DECLARE_FLAG(std::optional<double>, correction);
ABSL_DECLARE_FLAG(std::optional<int>, refinements);
ABSL_DECLARE_FLAG(std::optional<int>, scale_steps);
ABSL_DECLARE_FLAG(bool, clip);
ABSL_DECLARE_FLAG(std::optional<int>, iterations);
ABSL_DECLARE_FLAG(std::optional<double>, learning_rate);
ABSL_DECLARE_FLAG(std::optional<int>, batch);
ABSL_DECLARE_FLAG(bool, tune_range);
ABSL_DECLARE_FLAG(bool, start_with_gptq);
ABSL_DECLARE_FLAG(std::optional<std::string>, preset);

#endif  // NIBBLE_APPS_METHOD_FLAGS_H_
