// A sorted list of distinct names and their records, found by binary search.
//
//   NameIndex<Entry> index;
//   std::string twice = index.Build(std::move(entries));  // {name, entry}
//   pairs if (const Entry* entry = index.Find("a")) ...
#ifndef NIBBLE_TENSOR_IO_NAME_INDEX_H_
#define NIBBLE_TENSOR_IO_NAME_INDEX_H_

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

template <class Record>
class NameIndex {
 public:
  // Takes the records. When a name stands there twice, returns that name and
  // leaves the index unfit for use.
  std::optional<std::string> Build(
      std::vector<std::pair<std::string, Record>> records) {
    std::sort(records.begin(), records.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    names_.reserve(records.size());
    records_.reserve(records.size());
    for (auto& [name, record] : records) {
      if (!names_.empty() && names_.back() == name) return name;
      names_.push_back(std::move(name));
      records_.push_back(std::move(record));
    }
    return std::nullopt;
  }

  // Sorted.
  const std::vector<std::string>& names() const { return names_; }

  // In the order of names().
  const std::vector<Record>& records() const { return records_; }

  // Null when there is no such name.
  const Record* Find(absl::string_view name) const {
    const auto at = std::lower_bound(names_.begin(), names_.end(), name);
    if (at == names_.end() || *at != name) return nullptr;
    return &records_[at - names_.begin()];
  }

 private:
  std::vector<std::string> names_;
  std::vector<Record> records_;
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_NAME_INDEX_H_
