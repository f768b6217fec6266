// OpenSafetensorsFolder: one file, or shards behind one TensorSource.
#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tensor/io/error_text.h"
#include "tensor/io/name_index.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/safetensors_index.h"
#include "tensor/mapped_file.h"

namespace nibble {
namespace {

// An index is one short line per tensor: some 100 kB for the largest models.
constexpr size_t kMaxIndexBytes = 100'000'000;

class ShardedSafetensors : public TensorSource {
 public:
  // The records of `index` point into `shards`.
  ShardedSafetensors(std::string path,
                     std::vector<std::unique_ptr<TensorSource>> shards,
                     NameIndex<const TensorSource*> index)
      : path_(std::move(path)),
        shards_(std::move(shards)),
        index_(std::move(index)) {}

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override {
    return index_.names();
  }
  bool Contains(absl::string_view name) const override {
    return index_.Find(name) != nullptr;
  }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    const TensorSource* const* shard = index_.Find(name);
    if (shard == nullptr) {
      return absl::NotFoundError(
          absl::StrCat(path_, ": there is no tensor ", QuoteForMessage(name)));
    }
    return (*shard)->Find(name);
  }
  absl::Status CheckUnchanged() const override {
    for (const std::unique_ptr<TensorSource>& shard : shards_) {
      if (absl::Status s = shard->CheckUnchanged(); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  void Release(absl::Span<const std::byte> range) const override {
    // Each leaves alone what is not its own.
    for (const auto& shard : shards_) shard->Release(range);
  }

 private:
  const std::string path_;
  const std::vector<std::unique_ptr<TensorSource>> shards_;
  const NameIndex<const TensorSource*> index_;
};

// A tensor that the index leaves out might be one that the model needs, such as
// an untied output head: better refused than lost.
absl::Status CheckIndexNamesAll(
    const std::string& index_path, const TensorSource& shard,
    absl::string_view shard_name,
    const std::map<std::string, std::string>& shard_of) {
  for (const std::string& name : shard.names()) {
    const auto at = shard_of.find(name);
    if (at == shard_of.end() || at->second != shard_name) {
      return absl::InvalidArgumentError(absl::StrCat(
          shard.path(), " holds tensor ", QuoteForMessage(name), ", which ",
          index_path,
          at == shard_of.end() ? " does not name" : " says is in another"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, std::string>> ReadIndex(
    const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file =
      MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::Span<const std::byte> bytes = (*file)->bytes();
  if (bytes.size() > kMaxIndexBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": bad index of shards: ", bytes.size(),
                     " bytes is above the limit of ", kMaxIndexBytes));
  }
  // Parsed from a copy: the text must not change between two looks at it.
  return ParseSafetensorsIndex(
      path,
      std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenShards(
    const std::string& dir, const std::string& index_path) {
  absl::StatusOr<std::map<std::string, std::string>> shard_of =
      ReadIndex(index_path);
  if (!shard_of.ok()) return shard_of.status();

  std::vector<std::unique_ptr<TensorSource>> shards;
  std::map<std::string, const TensorSource*> opened;  // By shard name.
  std::vector<std::pair<std::string, const TensorSource*>> records;
  for (const auto& [name, shard_name] : *shard_of) {
    const TensorSource*& shard = opened[shard_name];
    if (shard == nullptr) {
      absl::StatusOr<std::unique_ptr<TensorSource>> source =
          OpenSafetensors(absl::StrCat(dir, "/", shard_name));
      if (!source.ok()) {
        return absl::Status(source.status().code(),
                            absl::StrCat(index_path, " names a shard: ",
                                         source.status().message()));
      }
      absl::Status status =
          CheckIndexNamesAll(index_path, **source, shard_name, *shard_of);
      if (!status.ok()) return status;
      shard = source->get();
      shards.push_back(*std::move(source));
    }
    if (!shard->Contains(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, " says that tensor ", QuoteForMessage(name),
                       " is in ", shard_name, ", but it is not"));
    }
    records.emplace_back(name, shard);
  }
  NameIndex<const TensorSource*> index;
  CHECK(!index.Build(std::move(records)).has_value());  // From a map.
  return std::make_unique<ShardedSafetensors>(index_path, std::move(shards),
                                              std::move(index));
}

bool Exists(const std::string& path) {
  struct stat info;
  // Whatever else is wrong with it, opening it gives the better message.
  return stat(path.c_str(), &info) == 0 || errno != ENOENT;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensorsFolder(
    const std::string& dir) {
  struct stat info;
  if (stat(dir.c_str(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", dir));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(dir, " is not a folder"));
  }
  const std::string single = absl::StrCat(dir, "/model.safetensors");
  if (Exists(single)) return OpenSafetensors(single);
  const std::string index = absl::StrCat(dir, "/model.safetensors.index.json");
  if (Exists(index)) return OpenShards(dir, index);
  return absl::NotFoundError(absl::StrCat(dir,
                                          " holds no model.safetensors and no "
                                          "model.safetensors.index.json"));
}

}  // namespace nibble
