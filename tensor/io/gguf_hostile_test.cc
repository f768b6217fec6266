// GGUF files that are broken or built to break readers. Each must give one
// error that names the file and what is wrong with it.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/buffer.h"
#include "tensor/io/gguf.h"
#include "tensor/io/gguf_value.h"
#include "tensor/io/test_files.h"
#include "tensor/view.h"

namespace nibble {
namespace {

using testing::AlignedBytes;
using ::testing::HasSubstr;
using testing::LittleEndian;
using testing::RawGguf;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();

// The message of the error, which names the file; "accepted" when there is
// none.
std::string ErrorOf(const std::string& text) {
  const AlignedBytes bytes(text);
  const auto file = GgufFile::Parse("test.gguf", bytes.span());
  if (file.ok()) return "accepted";
  EXPECT_TRUE(absl::StartsWith(file.status().message(), "test.gguf: "));
  EXPECT_LT(file.status().message().size(), 500u);
  return std::string(file.status().message());
}

std::string ErrorOf(const RawGguf& builder) { return ErrorOf(builder.Build()); }

// A sound file that has a bit of everything.
std::string SoundFile() {
  return RawGguf()
      .String("general.architecture", "llama")
      .U32("llama.block_count", 2)
      .Strings("tokens", {"<unk>", "<s>", "a"})
      .Numbers<float>("scores", 6, {0.0f, -1.0f, -2.0f})
      .Tensor("a", {2, 2}, 0, std::string(16, '\1'))
      .Tensor("b", {32, 2}, 8, std::string(68, '\2'))
      .Build();
}

// Reads all that there is, so that a sanitizer sees every byte.
int TouchAll(const GgufFile& file) {
  int sum = 0;
  for (const std::string& name : file.names()) {
    const absl::StatusOr<TensorView> view = file.Find(name);
    if (!view.ok()) continue;
    for (size_t i = 0; i < view->bytes; ++i) {
      sum += static_cast<int>(view->data[i]);
    }
  }
  for (const std::string& key : file.keys()) {
    sum += static_cast<int>(file.ValueSummary(key).size());
    sum += file.GetString(key).ok() + file.GetUint(key).ok() +
           file.GetFloat(key).ok() + file.GetBool(key).ok() +
           file.GetStringArray(key).ok() + file.GetFloatArray(key).ok() +
           file.GetIntArray(key).ok();
  }
  return sum;
}

TEST(GgufHostileTest, TheSoundFileIsSound) {
  EXPECT_EQ(ErrorOf(SoundFile()), "accepted");
}

TEST(GgufHostileTest, RejectsEveryTruncation) {
  const std::string whole = SoundFile();
  for (size_t length = 0; length < whole.size(); ++length) {
    ASSERT_NE(ErrorOf(whole.substr(0, length)), "accepted") << length;
  }
}

TEST(GgufHostileTest, SurvivesEveryChangedByte) {
  const std::string whole = SoundFile();
  int accepted = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int change : {0x01, 0x80, 0xFF}) {
      std::string broken = whole;
      broken[at] = static_cast<char>(broken[at] ^ change);
      const AlignedBytes bytes(broken);
      const auto file = GgufFile::Parse("test.gguf", bytes.span());
      if (file.ok()) {
        EXPECT_GE(TouchAll(**file), 0);
        ++accepted;
      }
    }
  }
  EXPECT_GT(accepted, 0);  // Changes of values are not errors.
}

TEST(GgufHostileTest, RejectsWrongMagic) {
  EXPECT_THAT(ErrorOf("GGUX" + SoundFile().substr(4)),
              HasSubstr("not a GGUF file: it starts with 'GGUX'"));
  EXPECT_THAT(ErrorOf("PK\3\4" + SoundFile().substr(4)),
              HasSubstr("not a GGUF file"));
  EXPECT_THAT(ErrorOf("GG"), HasSubstr("not a GGUF file"));
}

TEST(GgufHostileTest, NamesTheFormatsBeforeGguf) {
  for (const char* magic : {"tjgg", "lmgg", "algg", "fmgg"}) {
    EXPECT_THAT(ErrorOf(magic + SoundFile().substr(4)),
                HasSubstr("from before GGUF"));
  }
}

TEST(GgufHostileTest, RejectsOtherVersions) {
  EXPECT_THAT(ErrorOf(RawGguf(0)), HasSubstr("GGUF version 0"));
  EXPECT_THAT(ErrorOf(RawGguf(1)), HasSubstr("GGUF version 1; 2 and 3"));
  EXPECT_THAT(ErrorOf(RawGguf(4)), HasSubstr("GGUF version 4"));
}

TEST(GgufHostileTest, NamesBigEndianFiles) {
  EXPECT_THAT(ErrorOf(RawGguf(0x03000000)), HasSubstr("big-endian"));
}

TEST(GgufHostileTest, RejectsHugeCounts) {
  for (uint64_t count : {kHuge, kHuge / 2, uint64_t{1} << 61, uint64_t{1000}}) {
    EXPECT_THAT(ErrorOf(RawGguf().U32("a", 1).ClaimTensors(count)),
                HasSubstr(absl::StrCat(count, " tensors")));
    EXPECT_THAT(ErrorOf(RawGguf().U32("a", 1).ClaimPairs(count)),
                HasSubstr(absl::StrCat(count, " metadata keys")));
  }
}

// Sound in every other way, so that only the limit speaks against them.
TEST(GgufHostileTest, RejectsCountsAboveTheLimits) {
  RawGguf pairs, tensors;
  for (int i = 0; i <= 100'000; ++i) pairs.U32(absl::StrCat(i), 1);
  EXPECT_THAT(ErrorOf(pairs), HasSubstr("above the limit of 100000"));
  for (int i = 0; i <= 1'000'000; ++i) {
    tensors.TensorAt(absl::StrCat(i), {0}, 24, 0);
  }
  EXPECT_THAT(ErrorOf(tensors), HasSubstr("above the limit of 1000000"));
}

TEST(GgufHostileTest, RejectsFileThatEndsBeforeTheData) {
  // An empty tensor needs no data, but there is no place for it to be.
  const std::string whole = RawGguf().Tensor("a", {0}, 0, "").Build();
  EXPECT_EQ(ErrorOf(whole), "accepted");
  EXPECT_THAT(ErrorOf(whole.substr(0, whole.size() - 1)),
              HasSubstr("ends before the tensors' data"));
}

TEST(GgufHostileTest, RejectsHugeArrayCounts) {
  for (uint32_t type : {0u, 4u, 6u, 7u, 8u, 10u}) {
    for (uint64_t count :
         {kHuge, kHuge / 2 + 1, uint64_t{1} << 61, uint64_t{1} << 32}) {
      const std::string payload = LittleEndian(type) + LittleEndian(count);
      const std::string error = ErrorOf(RawGguf().Pair("big", 9, payload));
      EXPECT_THAT(error, HasSubstr("'big'"));
      EXPECT_THAT(error, HasSubstr("past the end"));
    }
  }
}

TEST(GgufHostileTest, RejectsStringPastTheEnd) {
  for (uint64_t length : {kHuge, kHuge - 7, uint64_t{1} << 40, uint64_t{9}}) {
    const std::string payload = LittleEndian(length) + "12345678";
    EXPECT_THAT(ErrorOf(RawGguf().Pair("text", 8, payload)),
                HasSubstr("'text' its string of"));
    // The same inside an array.
    const std::string array =
        LittleEndian<uint32_t>(8) + LittleEndian<uint64_t>(1) + payload;
    EXPECT_THAT(ErrorOf(RawGguf().Pair("texts", 9, array)),
                HasSubstr("past the end"));
  }
}

TEST(GgufHostileTest, RejectsStringAboveTheLimit) {
  const std::string text(kMaxGgufStringBytes + 1, 'x');
  EXPECT_THAT(ErrorOf(RawGguf().String("text", text)),
              HasSubstr("above the limit of 16777216"));
  EXPECT_THAT(ErrorOf(RawGguf().Strings("texts", {text})),
              HasSubstr("above 16777216 bytes"));
}

TEST(GgufHostileTest, RejectsKeyOrNamePastTheEndOrTooLong) {
  const std::string head = "GGUF" + LittleEndian<uint32_t>(3);
  const std::string zeros(100, '\0');
  EXPECT_THAT(ErrorOf(head + LittleEndian<uint64_t>(0) +
                      LittleEndian<uint64_t>(1) + LittleEndian(kHuge) + zeros),
              HasSubstr("metadata key 0 of 1"));
  EXPECT_THAT(ErrorOf(head + LittleEndian<uint64_t>(1) +
                      LittleEndian<uint64_t>(0) + LittleEndian(kHuge) + zeros),
              HasSubstr("tensor 0 of 1"));
  const std::string name(65536, 'n');
  EXPECT_THAT(ErrorOf(RawGguf().U32(name, 1)), HasSubstr("above 65535"));
  EXPECT_THAT(ErrorOf(RawGguf().Tensor(name, {1}, 24, "x")),
              HasSubstr("above 65535"));
}

TEST(GgufHostileTest, RejectsUnknownValueTypes) {
  for (uint32_t type : {13u, 100u, 0xFFFFFFFFu}) {
    EXPECT_THAT(ErrorOf(RawGguf().Pair("odd", type, std::string(64, 'x'))),
                HasSubstr(absl::StrCat("'odd' is of unknown type ", type)));
    const std::string array =
        LittleEndian(type) + LittleEndian<uint64_t>(1) + std::string(64, 'x');
    EXPECT_THAT(ErrorOf(RawGguf().Pair("odd", 9, array)),
                HasSubstr("unknown type"));
  }
}

TEST(GgufHostileTest, RejectsNestedArrays) {
  // As deep as the file is long, for readers that recurse.
  std::string payload;
  for (int i = 0; i < 100000; ++i) {
    payload += LittleEndian<uint32_t>(9) + LittleEndian<uint64_t>(1);
  }
  EXPECT_THAT(ErrorOf(RawGguf().Pair("deep", 9, payload)),
              HasSubstr("'deep' is an array of arrays"));
}

TEST(GgufHostileTest, RejectsKeysAndTensorsThatStandTwice) {
  EXPECT_THAT(ErrorOf(RawGguf().U32("k", 1).U32("k", 1)),
              HasSubstr("metadata 'k' stands twice"));
  EXPECT_THAT(
      ErrorOf(RawGguf().Tensor("t", {1}, 24, "x").Tensor("t", {1}, 24, "y")),
      HasSubstr("tensor 't' stands twice"));
}

TEST(GgufHostileTest, RejectsBadAlignment) {
  for (uint32_t alignment :
       {0u, 1u, 4u, 7u, 33u, 96u, 131072u, 0x80000000u, 0xFFFFFFFFu}) {
    const std::string error = ErrorOf(RawGguf()
                                          .U32("general.alignment", alignment)
                                          .Tensor("a", {1}, 24, "x"));
    EXPECT_THAT(error,
                HasSubstr(absl::StrCat("'general.alignment' is ", alignment)));
    EXPECT_THAT(error, HasSubstr("power of two"));
  }
  EXPECT_THAT(ErrorOf(RawGguf().String("general.alignment", "32")),
              HasSubstr("'general.alignment' is '32'"));
  EXPECT_THAT(ErrorOf(RawGguf().Pair("general.alignment", 5,
                                     LittleEndian<int32_t>(-32))),
              HasSubstr("'general.alignment' is -32"));
}

TEST(GgufHostileTest, RejectsTensorOffTheAlignment) {
  EXPECT_THAT(ErrorOf(RawGguf()
                          .Tensor("a", {64}, 24, std::string(64, 'x'))
                          .TensorAt("b", {1}, 24, 33)),
              HasSubstr("'b' starts at 33, which is no multiple"));
}

TEST(GgufHostileTest, RejectsTensorPastEndOfFile) {
  for (uint64_t offset :
       {uint64_t{64}, uint64_t{1} << 40, kHuge - 31, (kHuge >> 1) - 31}) {
    EXPECT_THAT(ErrorOf(RawGguf()
                            .Tensor("a", {32}, 24, std::string(32, 'x'))
                            .TensorAt("b", {1}, 24, offset)),
                HasSubstr("tensor 'b' starts at byte"));
  }
  EXPECT_THAT(ErrorOf(RawGguf().Tensor("a", {33}, 0, std::string(64, 'x'))),
              HasSubstr("tensor 'a' needs 132 bytes"));
  // For a type of unknown size, the start is still checked.
  EXPECT_THAT(ErrorOf(RawGguf().TensorAt("c", {1}, 999, 1 << 20)),
              HasSubstr("tensor 'c' starts at byte"));
}

TEST(GgufHostileTest, RejectsShapeProductThatWraps) {
  const uint64_t half = uint64_t{1} << 32;
  EXPECT_THAT(ErrorOf(RawGguf().Tensor("a", {half, half}, 0, "")),
              HasSubstr("'a' is bad: shape"));
  // 2^62 elements of four bytes: the count fits, the bytes wrap to zero.
  EXPECT_THAT(ErrorOf(RawGguf().Tensor("a", {uint64_t{1} << 62}, 0, "")),
              HasSubstr("more bytes than 64 bits"));
  EXPECT_THAT(ErrorOf(RawGguf().Tensor("a", {kHuge}, 0, "")),
              HasSubstr(absl::StrCat("'a' has a dimension of ", kHuge)));
  EXPECT_THAT(ErrorOf(RawGguf().Tensor("a", {0, half, half}, 0, "")),
              HasSubstr("'a' is bad"));
}

TEST(GgufHostileTest, RejectsZeroOrFiveDimensions) {
  EXPECT_THAT(ErrorOf(RawGguf().Tensor("a", {}, 24, "12345678")),
              HasSubstr("'a' has 0 dimensions"));
  EXPECT_THAT(ErrorOf(RawGguf().Tensor("a", {1, 1, 1, 1, 1}, 24, "x")),
              HasSubstr("'a' has 5 dimensions"));
}

TEST(GgufHostileTest, RejectsBlockSizeThatDoesNotDivideTheRow) {
  EXPECT_THAT(ErrorOf(RawGguf().Tensor("a", {48, 2}, 2, std::string(54, 'x'))),
              HasSubstr("rows of 48 elements do not divide into q4_0"));
  EXPECT_THAT(
      ErrorOf(RawGguf().Tensor("a", {128, 2}, 12, std::string(144, 'x'))),
      HasSubstr("rows of 128 elements do not divide into q4_k"));
}

TEST(GgufHostileTest, RejectsOverlappingTensors) {
  EXPECT_THAT(ErrorOf(RawGguf()
                          .Tensor("a", {64}, 24, std::string(64, 'x'))
                          .TensorAt("b", {1}, 24, 32)),
              HasSubstr("tensor 'b' overlaps tensor 'a'"));
  EXPECT_THAT(ErrorOf(RawGguf()
                          .Tensor("a", {64}, 24, std::string(64, 'x'))
                          .TensorAt("b", {64}, 24, 0)),
              HasSubstr("overlaps"));
}

TEST(GgufHostileTest, EscapesAndCutsHostileNamesInMessages) {
  const std::string name = "\x1b[2J\n\xff" + std::string(3000, 'n');
  const std::string error =
      ErrorOf(RawGguf().Tensor(name, {1, 1, 1, 1, 1}, 24, "x"));
  EXPECT_THAT(error, HasSubstr("\\x1b[2J\\n\\xff"));
  EXPECT_THAT(error, HasSubstr("(3006 bytes)"));
}

TEST(GgufHostileTest, OpenRefusesWhatIsNoRegularFile) {
  const std::string dir = testing::MakeTestFolder();
  EXPECT_THAT(std::string(GgufFile::Open(dir).status().message()),
              HasSubstr("is a directory"));
  EXPECT_EQ(GgufFile::Open(dir + "/none").status().code(),
            absl::StatusCode::kNotFound);
}

// Strings of an array stay in the mapped file. When the file is overwritten
// while it is open, the getter may fail but must not leave the file.
TEST(GgufHostileTest, OverwrittenStringsGiveAnError) {
  const std::string whole = RawGguf().Strings("t", {"abc", "def"}).Build();
  AlignedBuffer bytes(whole.size());
  std::memcpy(bytes.data(), whole.data(), whole.size());
  const auto file = GgufFile::Parse("test.gguf", {bytes.data(), bytes.size()});
  ASSERT_TRUE(file.ok()) << file.status();
  // The length of the first string.
  const size_t at = whole.find("abc") - 8;
  std::memset(bytes.data() + at, 0x7F, 8);
  EXPECT_FALSE((*file)->GetStringArray("t").ok());
  EXPECT_THAT((*file)->ValueSummary("t"), HasSubstr("[2 string]"));
}

}  // namespace
}  // namespace nibble
