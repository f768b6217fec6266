// Act-order: GPTQ quantizes the inputs in another order than they stand in, so
// that a group is any set of inputs, and stores `g_idx`, the group of each.
//
//   absl::StatusOr<std::vector<int32_t>> order = GroupOrder(g_idx, 128);
//   if (!order.ok()) return order.status();   // says what is wrong with g_idx
//   // Codes in the order (*order)[0], (*order)[1], ... have groups side by
//   side
#ifndef NIBBLE_MODELS_QUANTIZED_GROUP_ORDER_H_
#define NIBBLE_MODELS_QUANTIZED_GROUP_ORDER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nibble {

// The inputs, group by group, each group's in ascending order; empty where that
// is how they stand (g_idx[j] == j / group_size). InvalidArgument: a group that
// does not exist, or one that has other than group_size inputs (the last: what
// remains). REQUIRES: 1 <= group_size, and g_idx is not empty.
absl::StatusOr<std::vector<int32_t>> GroupOrder(absl::Span<const int32_t> g_idx,
                                                int64_t group_size);

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_GROUP_ORDER_H_
