#ifndef NIBBLE_RUNTIME_STOP_MATCHER_H_
#define NIBBLE_RUNTIME_STOP_MATCHER_H_

// Finds the first of many strings in text that comes in pieces, and holds back
// whatever may be the beginning of one.
//
//   absl::StatusOr<StopMatcher> matcher = StopMatcher::Create({"\nUser:"});
//   std::string out;
//   bool stopped = matcher->Push("Hello\nUs", &out);   // out: "Hello"
//   stopped = matcher->Push("ual", &out);              // out: "Hello\nUsual"
//
// The text ends as soon as any of the strings is complete; of several that end
// at the same byte the longest counts. Time is proportional to the text however
// many strings there are (Aho and Corasick, 1975).

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble {

// Bytes of all stop strings together. The automaton takes some 60 bytes of
// memory per byte; no honest request has a MiB of stop strings.
inline constexpr int64_t kMaxStopBytes = int64_t{1} << 20;

class StopMatcher {
 public:
  // InvalidArgument: an empty string, or more than kMaxStopBytes in all.
  static absl::StatusOr<StopMatcher> Create(
      absl::Span<const std::string> strings);

  // Appends to `out` what is certain not to belong to a stop string. Returns
  // true once a stop string is complete; it and what follows is dropped.
  bool Push(absl::string_view text, std::string* out);

  // Appends what was held back: the text has ended without a stop string.
  void Flush(std::string* out);

  bool stopped() const { return stopped_; }

 private:
  struct Node {
    int32_t parent = 0;
    int32_t fail = 0;     // the longest proper suffix that is also a node
    int32_t depth = 0;    // bytes from the root
    int32_t longest = 0;  // length of the longest string that ends here, or 0
    uint8_t byte = 0;     // from the parent to here
  };

  StopMatcher() = default;
  int32_t Child(int32_t node, uint8_t byte) const;
  int32_t Step(int32_t node, uint8_t byte) const;
  void Insert(absl::string_view string);
  void Link();

  std::vector<Node> nodes_;
  absl::flat_hash_map<uint64_t, int32_t> edges_;  // node << 8 | byte
  int32_t node_ = 0;
  bool stopped_ = false;
  std::string held_;  // nodes_[node_].depth bytes
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_STOP_MATCHER_H_
