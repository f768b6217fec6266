#include "kernels/attention/alibi.h"

#include <cmath>

#include "absl/log/check.h"

namespace nibble {

std::vector<float> AlibiSlopes(int64_t heads) {
  CHECK_GE(heads, 1);
  int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<float> slopes(heads);
  for (int64_t h = 0; h < heads; ++h) {
    const double exponent =
        h < power ? -8.0 * static_cast<double>(h + 1) / power
                  : -4.0 * static_cast<double>(2 * (h - power) + 1) / power;
    slopes[h] = static_cast<float>(std::exp2(exponent));
  }
  return slopes;
}

}  // namespace nibble
