// What is said about a few repeated measurements: their median and their
// range.
//
//   const Summary ms = Summarize({12.1, 11.9, 40.2});   // median 12.1
#ifndef NIBBLE_APPS_BENCHMARK_STATISTICS_H_
#define NIBBLE_APPS_BENCHMARK_STATISTICS_H_

#include <vector>

namespace nibble {

struct Summary {
  double median = 0;  // of an even number of values: between the middle two
  double min = 0;
  double max = 0;
};

// All 0 for no values.
Summary Summarize(std::vector<double> values);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_STATISTICS_H_
