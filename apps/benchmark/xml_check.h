// Whether a text is well-formed XML, for tests of pages that mean to be: tags
// nested and closed, attributes quoted and not repeated, only entities that XML
// knows. Elements, attributes, text and a doctype; no comments, no CDATA.
//
//   EXPECT_EQ(XmlProblem(page), "");
#ifndef NIBBLE_APPS_BENCHMARK_XML_CHECK_H_
#define NIBBLE_APPS_BENCHMARK_XML_CHECK_H_

#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

// What is wrong, where; empty for well-formed XML.
std::string XmlProblem(absl::string_view text);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_XML_CHECK_H_
