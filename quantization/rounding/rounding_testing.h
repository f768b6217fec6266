// What the tests of this package share.
#ifndef NIBBLE_QUANTIZATION_ROUNDING_ROUNDING_TESTING_H_
#define NIBBLE_QUANTIZATION_ROUNDING_ROUNDING_TESTING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "quantization/rounding/grid.h"
#include "tensor/coded_matrix.h"

namespace nibble {

// Every kind of grid that there is, for groups of `size`.
inline std::vector<GridSpec> AllSpecs(int64_t size) {
  std::vector<GridSpec> specs = {{8, size, CodeOffset::kSymmetric}};
  for (const int bits : {2, 3, 4}) {
    for (const CodeOffset offset :
         {CodeOffset::kSymmetric, CodeOffset::kZeros, CodeOffset::kMinimums}) {
      specs.push_back({bits, size, offset});
    }
  }
  return specs;
}

inline std::string NameOf(const GridSpec& spec) {
  const char* offsets[] = {"symmetric", "zeros", "minimums"};
  return std::to_string(spec.bits) + " bits, " +
         offsets[static_cast<int>(spec.offset)] + ", groups of " +
         std::to_string(spec.group_size);
}

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_ROUNDING_ROUNDING_TESTING_H_
