// Every graph that a decoder's configuration can describe, small.
//
//   INSTANTIATE_TEST_SUITE_P(Graphs, MyTest,
//                            ::testing::ValuesIn(DecoderGraphs()), GraphName);
#ifndef NIBBLE_TESTING_DECODER_GRAPHS_H_
#define NIBBLE_TESTING_DECODER_GRAPHS_H_

#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/decoder_config.h"

namespace nibble::testing {

struct DecoderGraph {
  std::string name;
  DecoderConfig config;
};

void PrintTo(const DecoderGraph& graph, std::ostream* out);

std::string GraphName(const ::testing::TestParamInfo<DecoderGraph>& info);

std::vector<DecoderGraph> DecoderGraphs();

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_DECODER_GRAPHS_H_
