#include "apps/benchmark/statistics.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace nibble {

Summary Summarize(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t upper = values.size() / 2;
  const size_t lower = (values.size() - 1) / 2;
  Summary summary;
  summary.median = (values[lower] + values[upper]) / 2;
  summary.min = values.front();
  summary.max = values.back();
  return summary;
}

}  // namespace nibble
