#include "kernels/elementwise/topk.h"

#include <algorithm>
#include <cmath>

#include "absl/log/check.h"
#include "kernels/elementwise/kernel_table.h"
#include "kernels/elementwise/topk_kernels.h"

namespace nibble {
namespace {

bool Better(const ScoredIndex& a, const ScoredIndex& b) {
  return a.score > b.score || (a.score == b.score && a.index < b.index);
}

}  // namespace

int64_t ArgMax(absl::Span<const float> scores) {
  const SearchKernels& kernels = SelectKernels(SearchTable());
  const int64_t n = static_cast<int64_t>(scores.size());
  const float max = kernels.max(scores.data(), n);
  const int64_t index = kernels.find_equal(scores.data(), 0, n, max);
  return index < n ? index : -1;
}

int64_t TopK(absl::Span<const float> scores, absl::Span<ScoredIndex> best) {
  CHECK_LT(scores.size(), size_t{1} << 31);
  if (best.empty()) return 0;
  const SearchKernels& kernels = SelectKernels(SearchTable());
  const int64_t n = static_cast<int64_t>(scores.size());
  // A heap with the worst kept score in front. An equal score that comes later
  // loses, so from a full heap on only strictly larger ones matter, and the
  // search for them runs at vector speed.
  size_t kept = 0;
  int64_t i = 0;
  for (; i < n && kept < best.size(); ++i) {
    if (std::isnan(scores[i])) continue;
    best[kept++] = {scores[i], static_cast<int32_t>(i)};
  }
  const auto heap = best.subspan(0, kept);
  std::make_heap(heap.begin(), heap.end(), Better);
  while (kept == best.size()) {
    i = kernels.find_above(scores.data(), i, n, heap.front().score);
    if (i >= n) break;
    std::pop_heap(heap.begin(), heap.end(), Better);
    heap.back() = {scores[i], static_cast<int32_t>(i)};
    std::push_heap(heap.begin(), heap.end(), Better);
    ++i;
  }
  std::sort_heap(heap.begin(), heap.end(), Better);
  return static_cast<int64_t>(kept);
}

}  // namespace nibble
