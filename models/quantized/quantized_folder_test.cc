// Layers packed by an independent writer, in every layout, width and grouping,
// read back as the weights that they were made of.

#include "models/quantized/quantized_folder.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/config_reader.h"
#include "models/quantized/quantized_summary.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "testing/coded_tensors.h"
#include "testing/matchers.h"
#include "testing/quantized_layers.h"
#include "testing/random_tensor.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::MemoryCodes;
using testing::PackOptions;
using testing::RandomCodes;
using testing::RandomValues;
using ::testing::SizeIs;
using testing::StatusIs;
using testing::StoredTensors;

absl::StatusOr<std::unique_ptr<QuantizedTensors>> Open(
    const StoredTensors& tensors, absl::string_view json) {
  absl::StatusOr<ConfigReader> reader = ConfigReader::Parse(json, "config");
  if (!reader.ok()) return reader.status();
  auto stored = std::make_unique<StoredTensors>();
  stored->Add(tensors);
  return OpenQuantizedTensors(std::move(stored), *reader);
}

std::string Gptq(int bits, int64_t group_size, bool symmetric,
                 absl::string_view format = "gptq") {
  return absl::StrCat(R"({"quant_method": "gptq", "bits": )", bits,
                      R"(, "group_size": )", group_size, R"(, "sym": )",
                      symmetric ? "true" : "false", R"(, "format": ")", format,
                      "\"}");
}

std::string Awq(int64_t group_size, absl::string_view version) {
  return absl::StrCat(
      R"({"quant_method": "awq", "bits": 4, "zero_point": true, )",
      R"("group_size": )", group_size, R"(, "version": ")", version, "\"}");
}

std::string Compressed(int bits, int64_t group_size, bool symmetric) {
  return absl::StrCat(
      R"({"quant_method": "compressed-tensors", "config_groups": {"a": {)",
      R"("targets": ["Linear"], "weights": {"num_bits": )", bits,
      R"(, "symmetric": )", symmetric ? "true" : "false",
      group_size < 0 ? R"(, "strategy": "channel")"
                     : absl::StrCat(R"(, "strategy": "group", "group_size": )",
                                    group_size),
      "}}}}");
}

// Reads module "m" in blocks of several sizes and compares each weight.
void ExpectWeights(const QuantizedTensors& tensors, const MemoryCodes& made) {
  const CodedMatrix* matrix = tensors.FindCoded("m.weight");
  ASSERT_NE(matrix, nullptr);
  EXPECT_EQ(matrix->form().outputs, made.form().outputs);
  EXPECT_EQ(matrix->form().inputs, made.form().inputs);
  EXPECT_EQ(matrix->form().group_size, made.form().group_size);
  EXPECT_EQ(matrix->form().offset, made.form().offset);
  EXPECT_GT(matrix->stored_bytes(), 0);
  const std::vector<float> expected = testing::Dequantize(made, 7);
  for (const int64_t rows :
       {int64_t{1}, int64_t{5}, int64_t{64}, made.form().outputs}) {
    EXPECT_EQ(testing::Dequantize(*matrix, rows), expected) << rows;
  }
}

TEST(QuantizedFolderTest, GptqIsReadAsPackedAtEveryWidthAndGrouping) {
  RandomValues random(1);
  for (const int bits : {2, 3, 4, 8}) {
    for (const int64_t group : {32, 48, 96}) {
      for (const bool symmetric : {false, true}) {
        for (const bool act_order : {false, true}) {
          for (const char* format : {"gptq", "gptq_v2"}) {
            SCOPED_TRACE(absl::StrCat(bits, " bits, groups of ", group,
                                      symmetric ? ", symmetric" : "",
                                      act_order ? ", ordered, " : ", ",
                                      format));
            auto made = RandomCodes(
                {72,
                 96,
                 bits,
                 group,
                 symmetric ? CodeOffset::kSymmetric : CodeOffset::kZeros,
                 {}},
                random);
            if (act_order) made->Shuffle(random);
            StoredTensors stored;
            PackOptions options;
            options.zeros_less_one = std::string(format) == "gptq";
            PackGptq(*made, "m", options, stored);
            NIBBLE_ASSERT_OK_AND_ASSIGN(
                const auto tensors,
                Open(stored, Gptq(bits, group, symmetric, format)));
            ExpectWeights(*tensors, *made);
            EXPECT_EQ(tensors->summary().act_order, act_order && group < 96);
            EXPECT_EQ(tensors->summary().symmetric, symmetric);
          }
        }
      }
    }
  }
}

TEST(QuantizedFolderTest, AwqIsReadAsPackedInBothLayouts) {
  RandomValues random(2);
  for (const int64_t group : {16, 32, 64, 128, 384}) {
    const auto made =
        RandomCodes({72, 384, 4, group, CodeOffset::kZeros, {}}, random);
    StoredTensors gemm, gemv;
    PackAwqGemm(*made, "m", {}, gemm);
    PackAwqGemv(*made, "m", {}, gemv);
    NIBBLE_ASSERT_OK_AND_ASSIGN(const auto first,
                                Open(gemm, Awq(group, "gemm")));
    ExpectWeights(*first, *made);
    NIBBLE_ASSERT_OK_AND_ASSIGN(const auto second,
                                Open(gemv, Awq(group, "gemv")));
    ExpectWeights(*second, *made);
  }
}

TEST(QuantizedFolderTest, CompressedTensorsAreReadAsPackedAtEveryWidth) {
  RandomValues random(3);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t group : {32, 96, 100}) {
      for (const bool symmetric : {false, true}) {
        for (const bool act_order : {false, true}) {
          SCOPED_TRACE(absl::StrCat(bits, " bits, groups of ", group));
          // Sizes that leave the last words half empty.
          auto made = RandomCodes(
              {75,
               100,
               bits,
               group,
               symmetric ? CodeOffset::kSymmetric : CodeOffset::kZeros,
               {}},
              random);
          if (act_order) made->Shuffle(random);
          StoredTensors stored;
          PackOptions options;
          options.scales = DType::kF32;
          PackCompressedTensors(*made, "m", options, stored);
          NIBBLE_ASSERT_OK_AND_ASSIGN(
              const auto tensors,
              Open(stored,
                   Compressed(bits, group == 100 ? -1 : group, symmetric)));
          ExpectWeights(*tensors, *made);
        }
      }
    }
  }
}

TEST(QuantizedFolderTest, ALastGroupMayBeShort) {
  RandomValues random(4);
  auto made = RandomCodes({64, 80, 4, 32, CodeOffset::kZeros, {}}, random);
  StoredTensors plain, ordered;
  PackOptions options;
  options.g_idx = true;
  PackGptq(*made, "m", options, plain);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto tensors,
                              Open(plain, Gptq(4, 32, false, "gptq_v2")));
  ExpectWeights(*tensors, *made);
  EXPECT_FALSE(tensors->summary().act_order);
  made->Shuffle(random);
  PackGptq(*made, "m", options, ordered);
  NIBBLE_ASSERT_OK_AND_ASSIGN(tensors,
                              Open(ordered, Gptq(4, 32, false, "gptq_v2")));
  ExpectWeights(*tensors, *made);
  EXPECT_TRUE(tensors->summary().act_order);
}

TEST(QuantizedFolderTest, AGroupSizeAboveTheRowIsTheRow) {
  RandomValues random(5);
  const auto made =
      RandomCodes({32, 64, 4, 64, CodeOffset::kZeros, {}}, random);
  StoredTensors stored;
  PackGptq(*made, "m", {}, stored);
  for (const int64_t group : {-1, 64, 128}) {
    NIBBLE_ASSERT_OK_AND_ASSIGN(const auto tensors,
                                Open(stored, Gptq(4, group, false, "gptq_v2")));
    ExpectWeights(*tensors, *made);
  }
}

TEST(QuantizedFolderTest, ShowsLogicalNamesAndHidesTheRest) {
  RandomValues random(6);
  const auto made =
      RandomCodes({32, 64, 4, 32, CodeOffset::kSymmetric, {}}, random);
  StoredTensors stored;
  PackOptions options;
  options.g_idx = true;
  PackGptq(*made, "m", options, stored);
  stored.Set("m.bias", {32}, std::vector<float>(32));
  stored.Set("n.bias", {2}, std::vector<float>(2));
  stored.Set("a.weight", {2, 3}, std::vector<float>(6, 1.0f));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto tensors,
                              Open(stored, Gptq(4, 32, true, "gptq_v2")));
  EXPECT_THAT(tensors->names(),
              ElementsAre("a.weight", "m.bias", "m.weight", "n.bias"));
  EXPECT_TRUE(tensors->Contains("m.weight"));
  EXPECT_FALSE(tensors->Contains("m.qweight"));
  EXPECT_THAT(
      tensors->Find("m.weight"),
      StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("m.weight")));
  EXPECT_THAT(tensors->Find("m.qweight"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("m.qweight")));
  EXPECT_THAT(tensors->Find("a.weight"), IsOk());
  EXPECT_EQ(tensors->FindCoded("a.weight"), nullptr);
  EXPECT_THAT(tensors->zero_biases(), ElementsAre("m.bias"));
  EXPECT_EQ(tensors->summary().coded_matrices, 1);
  EXPECT_EQ(tensors->summary().float_matrices, 1);
  EXPECT_THAT(tensors->summary().warnings, IsEmpty());
  tensors->FindCoded("m.weight")->Release();
  EXPECT_THAT(tensors->CheckUnchanged(), IsOk());
}

TEST(QuantizedFolderTest, SymmetricZerosOfTheOtherVersionAreSeen) {
  RandomValues random(7);
  for (const int bits : {2, 3, 4, 8}) {
    const auto made =
        RandomCodes({32, 64, bits, 32, CodeOffset::kSymmetric, {}}, random);
    for (const bool less_one : {false, true}) {
      StoredTensors stored;
      PackOptions options;
      options.zeros_less_one = less_one;
      PackGptq(*made, "m", options, stored);
      NIBBLE_ASSERT_OK_AND_ASSIGN(
          const auto tensors,
          Open(stored, Gptq(bits, 32, true, less_one ? "gptq_v2" : "gptq")));
      ExpectWeights(*tensors, *made);
      ASSERT_THAT(tensors->summary().warnings, SizeIs(1));
      EXPECT_THAT(tensors->summary().warnings[0],
                  AllOf(HasSubstr("m.weight"), HasSubstr("labelled")));
      EXPECT_TRUE(tensors->summary().symmetric);
    }
  }
}

TEST(QuantizedFolderTest, DeclaredSymmetryIsNotTakenOnTrust) {
  RandomValues random(8);
  const auto made =
      RandomCodes({32, 64, 4, 32, CodeOffset::kZeros, {}}, random);
  StoredTensors stored;
  PackGptq(*made, "m", {}, stored);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto tensors,
                              Open(stored, Gptq(4, 32, true, "gptq_v2")));
  ExpectWeights(*tensors, *made);
  ASSERT_THAT(tensors->summary().warnings, SizeIs(1));
  EXPECT_THAT(tensors->summary().warnings[0], HasSubstr("not the middle"));
}

TEST(QuantizedFolderTest, WarnsOfZerosThatTheFirstFormatCannotTell) {
  RandomValues random(9);
  for (const int bits : {3, 4}) {
    auto made = RandomCodes({32, 64, bits, 32, CodeOffset::kZeros, {}}, random);
    for (const float least : {0.0f, 1.0f}) {
      for (float& zero : made->offsets) zero = std::max(zero, 1.0f);
      made->offsets[40] = least;
      StoredTensors stored;
      PackOptions options;
      options.zeros_less_one = true;
      PackGptq(*made, "m", options, stored);
      NIBBLE_ASSERT_OK_AND_ASSIGN(const auto tensors,
                                  Open(stored, Gptq(bits, 32, false)));
      ExpectWeights(*tensors, *made);
      EXPECT_THAT(tensors->summary().warnings, SizeIs(least == 0 ? 1 : 0));
    }
  }
}

TEST(QuantizedFolderTest, ShapesDecideBetweenRulesThatMatch) {
  RandomValues random(10);
  const auto made =
      RandomCodes({32, 64, 8, 16, CodeOffset::kZeros, {}}, random);
  StoredTensors stored;
  PackGptq(*made, "m", {}, stored);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const auto tensors,
      Open(stored, R"({"quant_method": "gptq", "format": "gptq_v2", "bits": 4,
                       "group_size": 32, "sym": false, "dynamic": {
                         "-:.*": {}, "m": {"bits": 8},
                         "+:.": {"bits": 8, "group_size": 16}}})"));
  ExpectWeights(*tensors, *made);
  ASSERT_THAT(tensors->summary().exceptions, SizeIs(1));
  EXPECT_THAT(tensors->summary().exceptions[0],
              AllOf(HasSubstr("m.weight"), HasSubstr("8 bits, groups of 16")));
}

TEST(QuantizedFolderTest, WhatIsStoredStandsAboveAListOfWhatIsNot) {
  RandomValues random(11);
  const auto made =
      RandomCodes({32, 64, 4, 32, CodeOffset::kZeros, {}}, random);
  StoredTensors stored;
  PackAwqGemm(*made, "m", {}, stored);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const auto tensors,
      Open(stored, R"({"quant_method": "awq", "bits": 4, "group_size": 32,
                       "modules_to_not_convert": ["m"]})"));
  ExpectWeights(*tensors, *made);
  ASSERT_THAT(tensors->summary().warnings, SizeIs(1));
  EXPECT_THAT(tensors->summary().warnings[0], HasSubstr("floating point"));
}

TEST(QuantizedFolderTest, SettingsAreInConfigJsonOrBesideIt) {
  const std::string dir = ::testing::TempDir() + "/quantized_folder_settings";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  NIBBLE_ASSERT_OK_AND_ASSIGN(ConfigReader none,
                              ConfigReader::Parse("{}", "config.json"));
  auto found = FindQuantizationConfig(dir, none);
  ASSERT_THAT(found, IsOk());
  EXPECT_FALSE(found->has_value());
  for (const char* name : {"quantization_config.json", "quant_config.json",
                           "quantize_config.json"}) {
    const std::string path = absl::StrCat(dir, "/", name);
    testing::WriteText(path, R"({"bits": 4})");
    found = FindQuantizationConfig(dir, none);
    ASSERT_THAT(found, IsOk());
    ASSERT_TRUE(found->has_value());
    EXPECT_THAT((*found)->source(), HasSubstr(name));
  }
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      ConfigReader inside,
      ConfigReader::Parse(R"({"quantization_config": {"bits": 8}})",
                          "config.json"));
  found = FindQuantizationConfig(dir, inside);
  ASSERT_THAT(found, IsOk());
  EXPECT_EQ((*found)->Int("bits", {1, 9}), 8);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      ConfigReader wrong,
      ConfigReader::Parse(R"({"quantization_config": [8]})", "config.json"));
  EXPECT_THAT(FindQuantizationConfig(dir, wrong),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("quantization_config")));
  testing::WriteText(dir + "/quantize_config.json", "{");
  EXPECT_THAT(FindQuantizationConfig(dir, none),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("quantize_config.json")));
}

}  // namespace
}  // namespace nibble
