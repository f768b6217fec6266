#include "kernels/elementwise/softmax.h"

#include <cstdint>
#include <limits>

#include "kernels/elementwise/kernel_table.h"
#include "kernels/elementwise/softmax_kernels.h"

namespace nibble {

void Softmax(absl::Span<float> x) {
  if (x.empty()) return;
  SelectKernels(SoftmaxTable())
      .softmax(x.data(), static_cast<int64_t>(x.size()));
}

double LogSumExp(absl::Span<const float> x) {
  if (x.empty()) return -std::numeric_limits<double>::infinity();
  return SelectKernels(SoftmaxTable())
      .log_sum_exp(x.data(), static_cast<int64_t>(x.size()));
}

}  // namespace nibble
