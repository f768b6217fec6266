#include "runtime/stop_matcher.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

uint64_t EdgeKey(int32_t node, uint8_t byte) {
  return static_cast<uint64_t>(node) << 8 | byte;
}

}  // namespace

absl::StatusOr<StopMatcher> StopMatcher::Create(
    absl::Span<const std::string> strings) {
  int64_t bytes = 0;
  for (const std::string& string : strings) {
    if (string.empty()) {
      return absl::InvalidArgumentError(
          "stop: a stop string is empty; leave it out or give it text");
    }
    bytes += static_cast<int64_t>(string.size());
  }
  if (bytes > kMaxStopBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "stop: the stop strings have ", bytes, " bytes in all; at most ",
        kMaxStopBytes, " may be given"));
  }
  StopMatcher matcher;
  matcher.nodes_.emplace_back();
  for (const std::string& string : strings) matcher.Insert(string);
  matcher.Link();
  return matcher;
}

void StopMatcher::Insert(absl::string_view string) {
  int32_t node = 0;
  for (char c : string) {
    const uint64_t key = EdgeKey(node, static_cast<uint8_t>(c));
    const int32_t fresh = static_cast<int32_t>(nodes_.size());
    const auto [edge, inserted] = edges_.emplace(key, fresh);
    if (inserted) {
      Node child;
      child.parent = node;
      child.byte = static_cast<uint8_t>(c);
      child.depth = nodes_[node].depth + 1;
      nodes_.push_back(child);
    }
    node = edge->second;
  }
  nodes_[node].longest = nodes_[node].depth;
}

// Sets the fail links, nearest to the root first, since each follows those of
// shorter nodes.
void StopMatcher::Link() {
  std::vector<int32_t> order(nodes_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return nodes_[a].depth < nodes_[b].depth;
  });
  for (int32_t i : order) {
    Node& node = nodes_[i];
    if (node.depth <= 1) continue;
    node.fail = Step(nodes_[node.parent].fail, node.byte);
    if (node.longest == 0) node.longest = nodes_[node.fail].longest;
  }
}

// The child of `node`, or -1.
int32_t StopMatcher::Child(int32_t node, uint8_t byte) const {
  const auto edge = edges_.find(EdgeKey(node, byte));
  return edge == edges_.end() ? -1 : edge->second;
}

// The longest node that the text ends with after `byte`.
int32_t StopMatcher::Step(int32_t node, uint8_t byte) const {
  for (;;) {
    const int32_t child = Child(node, byte);
    if (child >= 0) return child;
    if (node == 0) return 0;
    node = nodes_[node].fail;
  }
}

bool StopMatcher::Push(absl::string_view text, std::string* out) {
  if (stopped_) return true;
  for (char c : text) {
    held_.push_back(c);
    node_ = Step(node_, static_cast<uint8_t>(c));
    const Node& node = nodes_[node_];
    // All of held_ but the node's own bytes is free; of those, a string that
    // ends here is cut off with everything behind its start.
    const int64_t kept = node.longest > 0 ? node.longest : node.depth;
    const size_t free = held_.size() - static_cast<size_t>(kept);
    out->append(held_, 0, free);
    held_.erase(0, free);
    if (node.longest > 0) {
      stopped_ = true;
      held_.clear();
      return true;
    }
  }
  return false;
}

void StopMatcher::Flush(std::string* out) {
  if (stopped_) return;
  out->append(held_);
  held_.clear();
  node_ = 0;
}

}  // namespace nibble
