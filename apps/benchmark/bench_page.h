// A report as one HTML page that needs nothing else: the roofline, and the
// table behind it.
//
//   std::string html = BenchPage(report);      // report.rows is not empty
//
// The page is well-formed XML too, follows the reader's light or dark scheme,
// and tells phases apart by form as well as by colour (Okabe and Ito's, which
// hold for colour-blind eyes).
#ifndef NIBBLE_APPS_BENCHMARK_BENCH_PAGE_H_
#define NIBBLE_APPS_BENCHMARK_BENCH_PAGE_H_

#include <string>

#include "apps/benchmark/report.h"

namespace nibble {

// REQUIRES: at least one row, and positive figures in all of them.
std::string BenchPage(const BenchReport& report);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_BENCH_PAGE_H_
