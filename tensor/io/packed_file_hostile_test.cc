// Packed files that are broken, by accident or by intent: each is refused with
// the file and the part named.
#include <sys/stat.h>

#include <filesystem>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_test_files.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

using testing::AddFile;
using testing::AddPacked;
using testing::AddPlain;
using testing::AlignedBytes;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::MakeTestFolder;
using testing::NibBytes;
using testing::SmallNib;
using testing::WithHeader;
using testing::WriteFile;

using Code = absl::StatusCode;
using TensorEntry = PackedManifest::TensorEntry;

// What opening the bytes, and then verifying them, says.
absl::Status OpenStatus(absl::string_view bytes) {
  const AlignedBytes aligned(bytes);
  return PackedFile::Parse("x.nib", aligned.span()).status();
}
absl::Status VerifyStatus(absl::string_view bytes) {
  const AlignedBytes aligned(bytes);
  const auto file = PackedFile::Parse("x.nib", aligned.span());
  return file.ok() ? (*file)->VerifyAll() : file.status();
}

void ExpectRefused(absl::string_view bytes, Code code,
                   absl::string_view reason) {
  const absl::Status status = OpenStatus(bytes);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(status.message(), HasSubstr("x.nib: "));
  EXPECT_THAT(status.message(), HasSubstr(reason));
}

// A sound tensor 'a' of 8 bytes after `change`.
void ExpectEntryRefused(absl::FunctionRef<void(TensorEntry&)> change,
                        absl::string_view reason) {
  PackedManifest manifest;
  TensorEntry* entry = AddPlain(&manifest, "a", {2}, 4096);
  ASSERT_TRUE(OpenStatus(NibBytes(manifest, std::string(8, '\0'))).ok());
  change(*entry);
  ExpectRefused(NibBytes(manifest, std::string(8, '\0')),
                Code::kInvalidArgument, reason);
}

TEST(PackedFileHostileTest, AnyFlippedBitIsRefusedByName) {
  const std::string sound = SmallNib();
  ASSERT_TRUE(VerifyStatus(sound).ok()) << VerifyStatus(sound);
  for (size_t i = 0; i < sound.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = sound;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      const absl::Status status = VerifyStatus(bytes);
      ASSERT_THAT(status.code(),
                  i < 8 ? Code::kInvalidArgument : Code::kDataLoss)
          << "byte " << i << ": " << status;
      ASSERT_THAT(status.message(),
                  AnyOf(HasSubstr("x.nib: is not a .nib file"),
                        HasSubstr("x.nib: the header is damaged"),
                        HasSubstr("x.nib: the manifest is damaged"),
                        HasSubstr("x.nib: file 'a.json' is damaged"),
                        HasSubstr("x.nib: tensor 'norm' is damaged"),
                        HasSubstr("x.nib: tensor 'qkv' is damaged"),
                        HasSubstr("x.nib: tensor 'head' is damaged"),
                        HasSubstr("x.nib: the padding in front of ")))
          << "byte " << i;
    }
  }
}

TEST(PackedFileHostileTest, TruncationAtAnyLengthIsRefused) {
  const std::string sound = SmallNib();
  for (size_t length = 0; length < sound.size(); ++length) {
    const absl::Status status = OpenStatus(sound.substr(0, length));
    ASSERT_EQ(status.code(), Code::kInvalidArgument) << length;
    ASSERT_THAT(status.message(), HasSubstr("truncated")) << length;
  }
}

TEST(PackedFileHostileTest, BytesBehindTheEndAreRefused) {
  for (const size_t more : {1, 4096}) {
    ExpectRefused(SmallNib() + std::string(more, '\0'), Code::kInvalidArgument,
                  "it was extended");
    // Also where the header knows of them.
    ExpectRefused(WithHeader(SmallNib() + std::string(more, '\0'),
                             [&](PackedHeader& h) { h.file_bytes += more; }),
                  Code::kInvalidArgument, "belongs to nothing");
  }
}

TEST(PackedFileHostileTest, OtherVersionsAreNamed) {
  for (const uint32_t version : {0u, 2u, 0xFFFFFFFFu}) {
    ExpectRefused(
        WithHeader(SmallNib(), [&](PackedHeader& h) { h.version = version; }),
        Code::kUnimplemented,
        absl::StrCat("is version ", version,
                     " of the packed format, and this "
                     "program reads version 1"));
  }
}

TEST(PackedFileHostileTest, HeaderThatLiesIsRefused) {
  constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
  const auto refused = [](absl::FunctionRef<void(PackedHeader&)> change,
                          Code code, absl::string_view reason) {
    ExpectRefused(WithHeader(SmallNib(), change), code, reason);
  };
  const Code invalid = Code::kInvalidArgument;
  refused([](auto& h) { h.flags = 1; }, Code::kUnimplemented, "flags 1");
  refused([](auto& h) { h.reserved[3] = 1; }, invalid, "reserved");
  for (const uint64_t offset : {uint64_t{0}, uint64_t{4096}, kHuge}) {
    refused([&](auto& h) { h.manifest_offset = offset; }, invalid,
            "manifest starts at byte");
  }
  refused([](auto& h) { h.manifest_bytes = kHuge; }, invalid, "the limit of");
  refused([](auto& h) { h.manifest_bytes = 1 << 20; }, invalid, "follow");
  refused([](auto& h) { --h.manifest_bytes; }, Code::kDataLoss, "manifest");
  refused([](auto& h) { h.file_bytes = kHuge; }, invalid, "truncated");
  refused([](auto& h) { h.file_bytes = 0; }, invalid, "extended");
}

TEST(PackedFileHostileTest, OtherFilesAreNotTaken) {
  for (const char* text : {"GGUF\3\0\0\0", "{\"a\":1}", "NIBBLe\x1A\n"}) {
    ExpectRefused(text, Code::kInvalidArgument, "is not a .nib file");
  }
}

TEST(PackedFileHostileTest, WhatIsNoFileIsRefused) {
  const std::string dir = MakeTestFolder();
  WriteFile(dir + "/empty", "");
  ASSERT_EQ(mkfifo((dir + "/fifo").c_str(), 0600), 0);
  std::filesystem::create_symlink("loop", dir + "/loop");
  std::filesystem::create_directory(dir + "/folder");
  for (const char* name : {"empty", "fifo", "loop", "folder", "none"}) {
    const std::string path = absl::StrCat(dir, "/", name);
    const absl::Status status = PackedFile::Open(path).status();
    EXPECT_FALSE(status.ok()) << name;
    EXPECT_THAT(status.message(), HasSubstr(path));
  }
}

TEST(PackedFileHostileTest, ManifestThatIsNoMessageIsRefused) {
  for (const std::string& manifest :
       {std::string("\x0A"), std::string("\x0A\x7F"), std::string("\xFF\xFF"),
        std::string("\x1A\xFF\xFF\xFF\xFF\x0F"), std::string(100, '\x0B')}) {
    ExpectRefused(NibBytes(manifest, ""), Code::kInvalidArgument,
                  "the manifest cannot be parsed");
  }
}

// The shortest entries that a manifest of the largest size can hold.
TEST(PackedFileHostileTest, MillionsOfEmptyEntriesAreRefused) {
  std::string manifest;
  for (size_t i = 0; i < kMaxPackedManifestBytes / 2; ++i) {
    manifest += std::string("\x1A\0", 2);
  }
  ExpectRefused(NibBytes(manifest, ""), Code::kInvalidArgument, "tensor ''");
}

TEST(PackedFileHostileTest, RangesOutsideTheirPlaceAreRefused) {
  constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
  const auto offset = [](uint64_t value, absl::string_view reason) {
    ExpectEntryRefused(
        [&](TensorEntry& e) { e.mutable_range()->set_offset(value); }, reason);
  };
  offset(4097, "tensor 'a' starts at byte 4097, which is no multiple of 4096");
  offset(0, "starts at byte 0, but the manifest ends at");
  offset(8192, "of a file of 4104");
  offset(kHuge - 4095, "of a file of 4104");
  const auto bytes = [](uint64_t value, absl::string_view reason) {
    ExpectEntryRefused(
        [&](TensorEntry& e) { e.mutable_range()->set_bytes(value); }, reason);
  };
  bytes(0, "tensor 'a' has 0 bytes, but its format needs 8");
  bytes(7, "has 7 bytes, but its format needs 8");
  bytes(kHuge, "but its format needs 8");
  ExpectEntryRefused([](TensorEntry& e) { e.mutable_range()->clear_offset(); },
                     "has no place in the file");
  ExpectEntryRefused([](TensorEntry& e) { e.mutable_range()->clear_bytes(); },
                     "has no place in the file");
  ExpectEntryRefused(
      [](TensorEntry& e) { e.mutable_range()->clear_checksum(); },
      "or no checksum");
  ExpectEntryRefused([](TensorEntry& e) { e.clear_range(); },
                     "has no place in the file");
}

// Two tensors of 8 bytes at these offsets, in a file of four pages.
absl::Status PlacedAt(uint64_t first, uint64_t second) {
  PackedManifest manifest;
  AddPlain(&manifest, "a", {2}, first);
  AddPlain(&manifest, "b", {2}, second);
  return OpenStatus(NibBytes(manifest, std::string(4096 + 8, '\0')));
}

TEST(PackedFileHostileTest, OverlapsGapsAndReversedOrderAreRefused) {
  EXPECT_TRUE(PlacedAt(4096, 8192).ok());
  EXPECT_THAT(PlacedAt(4096, 4096).message(),
              HasSubstr("tensor 'b' starts at byte 4096, but tensor 'a' ends"));
  EXPECT_THAT(PlacedAt(8192, 4096).message(),
              HasSubstr("tensor 'a' starts at byte 8192 instead of 4096"));
}

TEST(PackedFileHostileTest, TensorOfMoreThanAPageOverlapsTheNext) {
  PackedManifest manifest;
  AddPlain(&manifest, "a", {1500}, 4096);
  AddPlain(&manifest, "b", {2}, 8192);
  ExpectRefused(NibBytes(manifest, std::string(8000, '\0')),
                Code::kInvalidArgument, "but tensor 'a' ends at 10096");
}

TEST(PackedFileHostileTest, BadNamesAreRefused) {
  const auto name = [](const std::string& name, absl::string_view reason) {
    ExpectEntryRefused([&](TensorEntry& e) { e.set_name(name); }, reason);
  };
  name("", "tensor '' the name '' is not 1 to 1000 bytes");
  name(std::string(1001, 'x'), "1 to 1000 bytes");
  name("\xC0\x80", "of UTF-8");
  ExpectEntryRefused([](TensorEntry& e) { e.clear_name(); }, "tensor ''");
}

TEST(PackedFileHostileTest, NamesThatStandTwiceAreRefused) {
  PackedManifest tensors;
  AddPlain(&tensors, "a", {2}, 4096);
  AddPlain(&tensors, "a", {2}, 8192);
  ExpectRefused(NibBytes(tensors, std::string(4096 + 8, '\0')),
                Code::kInvalidArgument, "tensor 'a' stands twice");
  PackedManifest files;
  AddFile(&files, "f", 8, 4096);
  AddFile(&files, "f", 8, 8192);
  ExpectRefused(NibBytes(files, std::string(4096 + 8, '\0')),
                Code::kInvalidArgument, "file 'f' stands twice");
}

TEST(PackedFileHostileTest, BadEmbeddedFilesAreRefused) {
  const auto refused = [](absl::string_view name, uint64_t bytes,
                          absl::string_view reason) {
    PackedManifest manifest;
    AddFile(&manifest, name, bytes, 4096);
    ExpectRefused(NibBytes(manifest, std::string(8, '\0')),
                  Code::kInvalidArgument, reason);
  };
  refused("../a", 8, "file '../a' the file name '../a' leads to a folder");
  refused("..", 8, "leads to a folder");
  refused("/etc", 8, "leads to a folder");
  refused("a\\b", 8, "leads to a folder");
  refused(absl::string_view("a\0b", 3), 8, "leads to a folder");
  refused("", 8, "1 to 1000 bytes");
  refused("f", 0, "file 'f' has no bytes");
  refused("f", 9, "file 'f' needs 9 bytes from byte 4096 of a file of 4104");
}

TEST(PackedFileHostileTest, BadShapesAreRefused) {
  const auto dims = [](const std::vector<int64_t>& dims,
                       absl::string_view reason) {
    ExpectEntryRefused(
        [&](TensorEntry& e) {
          e.mutable_plain()->clear_dims();
          for (const int64_t dim : dims) e.mutable_plain()->add_dims(dim);
        },
        absl::StrCat("tensor 'a' has ", reason));
  };
  const int64_t big = int64_t{1} << 32;
  dims({}, "shape []; 1 to 4 dimensions above 0 are needed");
  dims({0}, "shape [0]");
  dims({2, 0}, "shape [2, 0]");
  dims({1, 1, 1, 1, 2}, "a bad shape");
  dims({-2}, "a bad shape");
  dims({-1, -2}, "a bad shape");
  dims({big, big}, "a bad shape");
  dims({int64_t{1} << 62}, "a bad shape");
  dims({3}, "8 bytes, but its format needs 12");
  ExpectEntryRefused(
      [](TensorEntry& e) { e.mutable_plain()->set_dtype("f31"); },
      "tensor 'a' has dtype 'f31', which is not known");
  ExpectEntryRefused([](TensorEntry& e) { e.mutable_plain()->clear_dtype(); },
                     "dtype ''");
  ExpectEntryRefused(
      [](TensorEntry& e) { e.mutable_plain()->set_dtype("q8_0"); },
      "a bad shape");
  ExpectEntryRefused([](TensorEntry& e) { e.clear_plain(); },
                     "has neither a layout nor a shape");
}

// A sound INT4 matrix after `change`.
void ExpectLayoutRefused(
    absl::FunctionRef<void(PackedManifest::Packed&)> change,
    absl::string_view reason) {
  const PackedLayout layout =
      *PackedLayout::Create(WeightFormat::kInt4, 32, 64, 32, false);
  const std::string data(static_cast<size_t>(layout.bytes()), '\0');
  PackedManifest manifest;
  TensorEntry* entry = AddPacked(&manifest, "w", layout, 4096);
  ASSERT_TRUE(OpenStatus(NibBytes(manifest, data)).ok());
  change(*entry->mutable_packed());
  ExpectRefused(NibBytes(manifest, data), Code::kInvalidArgument,
                absl::StrCat("tensor 'w' has ", reason));
}

TEST(PackedFileHostileTest, BadLayoutsAreRefused) {
  using Packed = PackedManifest::Packed;
  const int64_t most = std::numeric_limits<int64_t>::max();
  const auto refused = ExpectLayoutRefused;
  refused([](Packed& p) { p.set_format("int3"); }, "format 'int3'");
  refused([](Packed& p) { p.set_outputs(0); }, "a bad layout");
  refused([](Packed& p) { p.set_inputs(-64); }, "a bad layout");
  refused([&](Packed& p) { p.set_outputs(most); }, "a bad layout");
  refused([&](Packed& p) { p.set_inputs(most); }, "a bad layout");
  refused(
      [](Packed& p) {
        p.set_outputs(int64_t{1} << 40);
        p.set_inputs(int64_t{1} << 40);
      },
      "a bad layout");
  for (const int64_t group : {int64_t{0}, int64_t{-32}, int64_t{33}}) {
    refused([&](Packed& p) { p.set_group_size(group); }, "a bad layout");
  }
  refused([](Packed& p) { p.set_group_size(128); }, "groups of 128 on rows");
  refused([](Packed& p) { p.set_format("int8"); }, "a bad layout");
  refused([](Packed& p) { p.set_format("f32"); }, "a bad layout");
  // Sound layouts, but not of these bytes.
  refused([](Packed& p) { p.set_symmetric(true); }, "1216 bytes, but its");
  refused([](Packed& p) { p.set_wide_scales(true); }, "1216 bytes, but its");
  refused([](Packed& p) { p.set_group_size(64); }, "1216 bytes, but its");
  refused([](Packed& p) { p.set_outputs(33); }, "1216 bytes, but its");
  refused([](Packed& p) { p.clear_format(); }, "a layout with fields missing");
  refused([](Packed& p) { p.clear_outputs(); }, "a layout with fields missing");
  refused([](Packed& p) { p.clear_inputs(); }, "a layout with fields missing");
  refused([](Packed& p) { p.clear_group_size(); }, "a layout with fields");
  refused([](Packed& p) { p.clear_symmetric(); }, "a layout with fields");
  refused([](Packed& p) { p.clear_wide_scales(); }, "a layout with fields");
}

TEST(PackedFileHostileTest, BadMinimumsAreRefused) {
  using Packed = PackedManifest::Packed;
  const auto refused = ExpectLayoutRefused;
  // The manifest of a matrix with zero points, changed.
  for (const bool symmetric : {false, true}) {
    refused(
        [&](Packed& p) {
          p.set_symmetric(symmetric);
          p.set_minimums(true);
        },
        "a layout with both minimums and \"symmetric\"");
  }
  const auto instead = [](Packed& p) {
    p.clear_symmetric();
    p.set_minimums(true);
  };
  for (const char* format : {"int8", "f32", "bf16"}) {
    refused(
        [&](Packed& p) {
          instead(p);
          p.set_format(format);
        },
        "a bad layout");
  }
  // A sound layout, but not of these bytes.
  refused(instead, "1216 bytes, but its format needs 1280");
  refused(
      [](Packed& p) {
        p.clear_symmetric();
        p.set_minimums(false);
      },
      "a layout with fields missing");
}

}  // namespace
}  // namespace nibble
