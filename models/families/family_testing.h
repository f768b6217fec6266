// For the tests of families: their readers fed with settings and the names and
// shapes of tensors.
//
//   const FamilyFixture gptj = {ReadGptJ, R"({"vocab_size": 320, ...})"};
//   DecoderConfig config = gptj.Config(R"({"rotary_dim": 8})");
//   EXPECT_THAT(gptj.Error(R"({"n_head": 0})"), HasSubstr("n_head"));
#ifndef NIBBLE_MODELS_FAMILIES_FAMILY_TESTING_H_
#define NIBBLE_MODELS_FAMILIES_FAMILY_TESTING_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/checkpoint.h"
#include "models/config_reader.h"
#include "models/decoder_config.h"
#include "models/families/family.h"
#include "nlohmann/json.hpp"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/matchers.h"

namespace nibble::testing {

// Tensors without data.
class StoredShapes : public TensorSource {
 public:
  explicit StoredShapes(std::map<std::string, Shape> shapes = {})
      : shapes_(std::move(shapes)) {
    for (const auto& [name, shape] : shapes_) names_.push_back(name);
  }
  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override {
    return shapes_.count(std::string(name)) > 0;
  }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    const auto found = shapes_.find(std::string(name));
    if (found == shapes_.end()) {
      return absl::NotFoundError(absl::StrCat("no tensor ", name));
    }
    TensorView view;
    view.dtype = DType::kF32;
    view.shape = found->second;
    return view;
  }

 private:
  std::string path_ = "model.safetensors";
  std::map<std::string, Shape> shapes_;
  std::vector<std::string> names_;
};

struct FamilyFixture {
  absl::StatusOr<FamilyModel> (*read)(ConfigReader&, const TensorSource&);
  std::string base;  // config.json
  std::map<std::string, Shape> tensors;

  // `changes` replaces or adds members; `removed` takes one away.
  absl::StatusOr<FamilyModel> Read(const std::string& changes = "{}",
                                   const std::string& removed = "") const {
    nlohmann::json json = nlohmann::json::parse(base);
    json.update(nlohmann::json::parse(changes));
    json.erase(removed);
    absl::StatusOr<ConfigReader> reader =
        ConfigReader::Parse(json.dump(), "config.json");
    if (!reader.ok()) return reader.status();
    return read(*reader, StoredShapes(tensors));
  }

  FamilyModel Model(const std::string& changes = "{}") const {
    absl::StatusOr<FamilyModel> model = Read(changes);
    EXPECT_THAT(model, IsOk()) << changes;
    return model.ok() ? *std::move(model) : FamilyModel();
  }

  DecoderConfig Config(const std::string& changes = "{}") const {
    return Model(changes).config;
  }

  // The message of a refusal, which names the file.
  std::string Error(const std::string& changes,
                    const std::string& removed = "") const {
    const absl::StatusOr<FamilyModel> model = Read(changes, removed);
    EXPECT_THAT(model, StatusIs(absl::StatusCode::kInvalidArgument,
                                ::testing::HasSubstr("config.json")))
        << changes;
    return std::string(model.status().message());
  }

  FamilyFixture With(std::map<std::string, Shape> more) const {
    FamilyFixture result = *this;
    result.tensors.merge(more);
    return result;
  }

  // Every size of `keys` is refused by name when it is missing, and when it is
  // no whole number in its range.
  void ExpectRefusesBadSizes(const std::vector<std::string>& keys) const {
    for (const std::string& key : keys) {
      const std::string quoted = absl::StrCat("\"", key, "\"");
      EXPECT_THAT(Error("{}", key),
                  ::testing::HasSubstr(absl::StrCat(quoted, " is missing")));
      for (const char* value :
           {"0", "-1", "2.5", "64.0", "\"64\"", "1e9", "9223372036854775807",
            "99999999999999999999", "true", "[64]", "{}"}) {
        EXPECT_THAT(Error(absl::StrCat("{", quoted, ": ", value, "}")),
                    ::testing::HasSubstr(quoted))
            << value;
      }
    }
  }

  // A setting is refused by name with each of `values`.
  void ExpectRefuses(const std::string& key,
                     const std::vector<std::string>& values) const {
    const std::string quoted = absl::StrCat("\"", key, "\"");
    for (const std::string& value : values) {
      EXPECT_THAT(Error(absl::StrCat("{", quoted, ": ", value, "}")),
                  ::testing::HasSubstr(quoted))
          << value;
    }
  }
};

// "name[first, first + rows)" of each range.
inline std::vector<std::string> RangesOf(const std::vector<RowRange>& ranges) {
  std::vector<std::string> result;
  for (const RowRange& range : ranges) {
    result.push_back(absl::StrCat(range.tensor, "[", range.first_row, ", ",
                                  range.first_row + range.rows, ")"));
  }
  return result;
}

}  // namespace nibble::testing

#endif  // NIBBLE_MODELS_FAMILIES_FAMILY_TESTING_H_
