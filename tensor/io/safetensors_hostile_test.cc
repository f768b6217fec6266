// Safetensors files that are broken or built to break readers. Each must give
// one error that names the file and what is wrong with it.
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/io/test_files.h"
#include "tensor/view.h"

namespace nibble {
namespace {

using testing::AlignedBytes;
using ::testing::HasSubstr;
using testing::LittleEndian;
using testing::MakeTestFolder;
using testing::SafetensorsBytes;
using testing::WriteFile;

// The message of the error, which names the file; "accepted" when there is
// none.
std::string ErrorOf(const std::string& text) {
  const AlignedBytes bytes(text);
  const auto source = ParseSafetensors("t.safetensors", bytes.span());
  if (source.ok()) return "accepted";
  EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StartsWith(source.status().message(), "t.safetensors"));
  EXPECT_LT(source.status().message().size(), 1000u);
  return std::string(source.status().message());
}

std::string ErrorOfJson(absl::string_view json, absl::string_view data = "") {
  return ErrorOf(SafetensorsBytes(json, data));
}

// One tensor "a" with the given fields, over `data`.
std::string ErrorOfTensor(absl::string_view fields, absl::string_view data) {
  return ErrorOfJson(absl::StrCat("{\"a\":{", fields, "}}"), data);
}

std::string SoundFile() {
  return SafetensorsBytes(
      R"({"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}})",
      "12345678abc");
}

TEST(SafetensorsHostileTest, TheSoundFileIsSound) {
  EXPECT_EQ(ErrorOf(SoundFile()), "accepted");
}

TEST(SafetensorsHostileTest, RejectsEveryTruncation) {
  const std::string whole = SoundFile();
  for (size_t length = 0; length < whole.size(); ++length) {
    ASSERT_NE(ErrorOf(whole.substr(0, length)), "accepted") << length;
  }
}

TEST(SafetensorsHostileTest, SurvivesEveryChangedByte) {
  const std::string whole = SoundFile();
  int accepted = 0, sum = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int change : {0x01, 0x80, 0xFF}) {
      std::string broken = whole;
      broken[at] = static_cast<char>(broken[at] ^ change);
      const AlignedBytes bytes(broken);
      const auto source = ParseSafetensors("t.safetensors", bytes.span());
      if (!source.ok()) continue;
      ++accepted;
      for (const std::string& name : (*source)->names()) {
        const absl::StatusOr<TensorView> view = (*source)->Find(name);
        if (!view.ok()) continue;
        for (size_t i = 0; i < view->bytes; ++i) {
          sum += static_cast<int>(view->data[i]);
        }
      }
    }
  }
  EXPECT_GT(accepted, 0);  // Changes of values and names are not errors.
  EXPECT_GT(sum, 0);
}

TEST(SafetensorsHostileTest, RejectsBadHeaderLength) {
  const auto with_length = [](uint64_t length) {
    return ErrorOf(LittleEndian(length) + "{}");
  };
  EXPECT_THAT(with_length(0), HasSubstr("its length is 0"));
  EXPECT_THAT(with_length(3), HasSubstr("the file ends after 2"));
  EXPECT_THAT(with_length(100'000'000), HasSubstr("the file ends after 2"));
  EXPECT_THAT(with_length(100'000'001), HasSubstr("above the limit"));
  EXPECT_THAT(with_length(~uint64_t{0}), HasSubstr("above the limit"));
  EXPECT_THAT(with_length(~uint64_t{0} - 7), HasSubstr("above the limit"));
}

TEST(SafetensorsHostileTest, RejectsFilesTooShortForALength) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("too few"));
  EXPECT_THAT(ErrorOf("1234567"), HasSubstr("has 7 bytes"));
}

TEST(SafetensorsHostileTest, RejectsHeaderThatIsNotJson) {
  using namespace std::string_literals;
  for (const std::string& json :
       {"{"s, "{]"s, "nonsense"s, "{\"a\":}"s, "{}{}"s, "{} x"s,
        "{\"a\xff\":{}}"s, "{'a':1}"s, "\0\0"s, "{}\0"s, "{}\0{"s}) {
    EXPECT_THAT(ErrorOfJson(json), HasSubstr("not valid JSON at byte")) << json;
  }
}

TEST(SafetensorsHostileTest, MessagesAboutHugeTokensAreShort) {
  const std::string huge(1'000'000, 'x');
  // ErrorOf checks the length.
  EXPECT_NE(ErrorOfJson("{\"" + huge + "\xff"), "accepted");
  EXPECT_NE(ErrorOfJson("{" + huge), "accepted");
  EXPECT_NE(ErrorOfJson("{\"" + huge + "\":7}"), "accepted");
  EXPECT_NE(ErrorOfTensor("\"" + huge + "\":7", ""), "accepted");
}

TEST(SafetensorsHostileTest, RejectsHugeShapes) {
  std::string shape = "1";
  for (int i = 0; i < 1'000'000; ++i) shape += ",1";
  EXPECT_THAT(ErrorOfTensor("\"shape\":[" + shape + "]", ""),
              HasSubstr("more than 64 numbers"));
}

TEST(SafetensorsHostileTest, RejectsHeaderThatIsNotAnObject) {
  for (const char* json : {"[]", "1", "-1", "1.5", "\"a\"", "null", "true"}) {
    EXPECT_THAT(ErrorOfJson(json), HasSubstr("where an object should stand"))
        << json;
  }
}

// A reader that recurses would run out of stack.
TEST(SafetensorsHostileTest, RejectsDeepNesting) {
  constexpr int kDepth = 1'000'000;
  const std::string arrays(kDepth, '[');
  std::string objects;
  for (int i = 0; i < kDepth; ++i) objects += "{\"a\":";
  EXPECT_NE(ErrorOfJson(arrays), "accepted");
  EXPECT_NE(ErrorOfJson(objects), "accepted");
  EXPECT_NE(ErrorOfTensor("\"shape\":" + arrays, ""), "accepted");
  EXPECT_NE(ErrorOfJson("{\"__metadata__\":" + objects), "accepted");
}

TEST(SafetensorsHostileTest, RejectsMetadataThatIsNotStrings) {
  for (const char* value :
       {"1", "null", "true", "1.5", "-1", "[\"a\"]", "{\"a\":\"b\"}"}) {
    EXPECT_THAT(
        ErrorOfJson(absl::StrCat(R"({"__metadata__":{"k":)", value, "}}")),
        HasSubstr("__metadata__ holds"))
        << value;
  }
  for (const char* value : {"1", "\"text\"", "[]", "null"}) {
    EXPECT_THAT(ErrorOfJson(absl::StrCat(R"({"__metadata__":)", value, "}")),
                HasSubstr("__metadata__ holds"))
        << value;
  }
}

TEST(SafetensorsHostileTest, RejectsNamesAndFieldsThatStandTwice) {
  const std::string tensor =
      R"({"dtype":"I8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_THAT(
      ErrorOfJson(absl::StrCat("{\"a\":", tensor, ",\"a\":", tensor, "}"), "x"),
      HasSubstr("names tensor 'a' twice"));
  // The same name in another spelling.
  EXPECT_THAT(
      ErrorOfJson(absl::StrCat("{\"a\":", tensor, ",\"\\u0061\":", tensor, "}"),
                  "x"),
      HasSubstr("names tensor 'a' twice"));
  EXPECT_THAT(ErrorOfJson(R"({"__metadata__":{},"__metadata__":{}})"),
              HasSubstr("__metadata__ twice"));
  EXPECT_THAT(ErrorOfJson(R"({"__metadata__":{"k":"1","k":"2"}})"),
              HasSubstr("'k' twice"));
  EXPECT_THAT(ErrorOfTensor(R"("dtype":"I8","dtype":"F32")", ""),
              HasSubstr("tensor 'a' has dtype twice"));
  EXPECT_THAT(ErrorOfTensor(R"("shape":[1],"shape":[2])", ""),
              HasSubstr("has shape twice"));
  EXPECT_THAT(ErrorOfTensor(R"("data_offsets":[0,1],"data_offsets":[0,1])", ""),
              HasSubstr("has data_offsets twice"));
}

TEST(SafetensorsHostileTest, RejectsMissingAndUnknownFields) {
  EXPECT_THAT(ErrorOfTensor(R"("shape":[1],"data_offsets":[0,1])", "x"),
              HasSubstr("tensor 'a' has no dtype"));
  EXPECT_THAT(ErrorOfTensor(R"("dtype":"I8","data_offsets":[0,1])", "x"),
              HasSubstr("tensor 'a' has no shape"));
  EXPECT_THAT(ErrorOfTensor(R"("dtype":"I8","shape":[1])", "x"),
              HasSubstr("tensor 'a' has no data_offsets"));
  EXPECT_THAT(ErrorOfTensor(R"("strides":[1])", "x"),
              HasSubstr("unknown field 'strides'"));
  EXPECT_THAT(ErrorOfJson(R"({"a":[1]})"), HasSubstr("holds an array"));
  EXPECT_THAT(ErrorOfJson(R"({"a":"b"})"), HasSubstr("holds the string"));
}

TEST(SafetensorsHostileTest, RejectsFieldsOfTheWrongKind) {
  EXPECT_THAT(ErrorOfTensor(R"("dtype":7)", ""),
              HasSubstr("dtype as a string"));
  EXPECT_THAT(ErrorOfTensor(R"("dtype":["F32"])", ""),
              HasSubstr("dtype as a string"));
  for (const char* value :
       {"3", "\"[3]\"", "[-1]", "[1.0]", "[1e3]", "[\"3\"]", "[null]", "[[3]]",
        "[{}]", "{}", "null", "[18446744073709551616]"}) {
    EXPECT_THAT(ErrorOfTensor(absl::StrCat("\"shape\":", value), ""),
                HasSubstr("tensor 'a' holds"))
        << value;
    EXPECT_THAT(ErrorOfTensor(absl::StrCat("\"data_offsets\":", value), ""),
                HasSubstr("tensor 'a' holds"))
        << value;
  }
  EXPECT_THAT(ErrorOfTensor("\"shape\":[9223372036854775808]", ""),
              HasSubstr("too large"));
  for (const char* value : {"[]", "[0]", "[0,1,2]"}) {
    EXPECT_THAT(ErrorOfTensor(absl::StrCat("\"data_offsets\":", value), ""),
                HasSubstr("an array of two whole numbers"))
        << value;
  }
}

TEST(SafetensorsHostileTest, RejectsReversedOffsets) {
  EXPECT_THAT(
      ErrorOfTensor(R"("dtype":"I8","shape":[1],"data_offsets":[1,0])", "x"),
      HasSubstr("tensor 'a' has reversed data_offsets [1, 0]"));
}

TEST(SafetensorsHostileTest, RejectsNegativeOffsets) {
  EXPECT_THAT(
      ErrorOfTensor(R"("dtype":"I8","shape":[1],"data_offsets":[-1,0])", "x"),
      HasSubstr("holds the number -1"));
}

TEST(SafetensorsHostileTest, RejectsTensorPastEndOfFile) {
  for (const char* end : {"2", "4096", "9223372036854775807"}) {
    EXPECT_THAT(
        ErrorOfTensor(absl::StrCat(R"("dtype":"I8","shape":[)", end,
                                   R"(],"data_offsets":[0,)", end, "]"),
                      "x"),
        HasSubstr(absl::StrCat("tensor 'a' ends at byte ", end, " of 1 ")));
  }
}

TEST(SafetensorsHostileTest, RejectsBytesThatDoNotMatchDtypeAndShape) {
  EXPECT_THAT(ErrorOfTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])",
                            "1234"),
              HasSubstr("tensor 'a' has 4 bytes, but F32 [2] needs 2 times 4"));
  EXPECT_THAT(ErrorOfTensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,5])",
                            "12345"),
              HasSubstr("has 5 bytes"));
  EXPECT_THAT(ErrorOfTensor(R"("dtype":"U64","shape":[2],"data_offsets":[0,8])",
                            "12345678"),
              HasSubstr("has 8 bytes, but U64"));
  EXPECT_THAT(
      ErrorOfTensor(R"("dtype":"I8","shape":[],"data_offsets":[0,0])", ""),
      HasSubstr("has 0 bytes"));
}

TEST(SafetensorsHostileTest, RejectsShapeProductThatWraps) {
  // The product is 2^64, which wraps to 0 elements.
  EXPECT_THAT(ErrorOfTensor(R"("dtype":"I8","shape":[4294967296,4294967296],)"
                            R"("data_offsets":[0,0])",
                            ""),
              HasSubstr("more elements than 64 bits"));
  // 2^62 elements fit, but four bytes each wrap to 0.
  EXPECT_THAT(
      ErrorOfTensor(
          R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])",
          ""),
      HasSubstr("has 0 bytes"));
}

TEST(SafetensorsHostileTest, RejectsFiveDimensions) {
  EXPECT_THAT(
      ErrorOfTensor(R"("dtype":"I8","shape":[1,1,1,1,1],"data_offsets":[0,1])",
                    "x"),
      HasSubstr("tensor 'a' is bad: a tensor of 5 dimensions"));
}

std::string TwoTensors(const char* a, const char* b) {
  return absl::StrCat(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":)", a,
                      R"(},"b":{"dtype":"I8","shape":[4],"data_offsets":)", b,
                      "}}");
}

TEST(SafetensorsHostileTest, RejectsOverlaps) {
  EXPECT_THAT(ErrorOfJson(TwoTensors("[0,4]", "[3,7]"), "1234567"),
              HasSubstr("tensor 'b' overlaps tensor 'a'"));
  EXPECT_THAT(ErrorOfJson(TwoTensors("[0,4]", "[0,4]"), "1234"),
              HasSubstr("overlaps"));
  EXPECT_THAT(ErrorOfJson(TwoTensors("[3,7]", "[0,4]"), "1234567"),
              HasSubstr("tensor 'a' overlaps tensor 'b'"));
}

TEST(SafetensorsHostileTest, RejectsGaps) {
  EXPECT_THAT(ErrorOfJson(TwoTensors("[0,4]", "[5,9]"), "123456789"),
              HasSubstr("tensor 'b' starts at byte 5, but the data before it "
                        "ends at 4"));
  EXPECT_THAT(ErrorOfJson(TwoTensors("[1,5]", "[5,9]"), "123456789"),
              HasSubstr("tensor 'a' starts at byte 1"));
  EXPECT_THAT(ErrorOfJson(TwoTensors("[0,4]", "[4,8]"), "123456789"),
              HasSubstr("1 bytes at the end belong to no tensor"));
  EXPECT_THAT(ErrorOfJson("{}", "x"), HasSubstr("belong to no tensor"));
}

TEST(SafetensorsHostileTest, OpenRefusesWhatIsNoRegularFile) {
  const std::string dir = MakeTestFolder();
  EXPECT_THAT(std::string(OpenSafetensors(dir).status().message()),
              HasSubstr("is a directory"));
  WriteFile(dir + "/empty", "");
  EXPECT_THAT(std::string(OpenSafetensors(dir + "/empty").status().message()),
              HasSubstr("is empty"));
}

}  // namespace
}  // namespace nibble
