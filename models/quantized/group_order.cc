#include "models/quantized/group_order.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {

absl::StatusOr<std::vector<int32_t>> GroupOrder(absl::Span<const int32_t> g_idx,
                                                int64_t group_size) {
  const int64_t inputs = static_cast<int64_t>(g_idx.size());
  const int64_t groups = (inputs + group_size - 1) / group_size;
  // Where the next input of each group goes: a counting sort.
  std::vector<int64_t> next(static_cast<size_t>(groups));
  for (int64_t group = 0; group < groups; ++group) {
    next[static_cast<size_t>(group)] = group * group_size;
  }
  std::vector<int32_t> order(g_idx.size());
  bool in_place = true;
  for (int64_t input = 0; input < inputs; ++input) {
    const int32_t group = g_idx[static_cast<size_t>(input)];
    if (group < 0 || group >= groups) {
      return absl::InvalidArgumentError(
          absl::StrCat("input ", input, " is in group ", group, "; there are ",
                       groups, " groups"));
    }
    int64_t& place = next[static_cast<size_t>(group)];
    if (place >= std::min((group + int64_t{1}) * group_size, inputs)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "group ", group, " has more inputs than the ",
          std::min(group_size, inputs - group * group_size),
          " of its size: not a permutation of the inputs by groups"));
    }
    in_place &= place == input;
    order[static_cast<size_t>(place++)] = static_cast<int32_t>(input);
  }
  // None has too many, so none has too few.
  if (in_place) order.clear();
  return order;
}

}  // namespace nibble
