#include "tokenizer/sentencepiece_model.h"

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/sentencepiece_model.pb.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using Ids = std::vector<int32_t>;
using ::testing::HasSubstr;

void AddPiece(sentencepiece::Model* model, const std::string& text, int type) {
  sentencepiece::Piece* piece = model->add_pieces();
  piece->set_piece(text);
  piece->set_type(type);
  piece->set_score(-static_cast<float>(model->pieces_size()));
}

// <unk> <s> </s>, 256 bytes, then from 259: ▁ a b ab ▁ab.
sentencepiece::Model SmallModel() {
  sentencepiece::Model model;
  model.mutable_trainer()->set_model_type(2);
  model.mutable_trainer()->set_byte_fallback(true);
  model.mutable_normalizer()->set_remove_extra_whitespaces(false);
  AddPiece(&model, "<unk>", 2);
  AddPiece(&model, "<s>", 3);
  AddPiece(&model, "</s>", 3);
  for (int byte = 0; byte < 256; ++byte) {
    AddPiece(&model, absl::StrFormat("<0x%02X>", byte), 6);
  }
  for (const char* piece : {"▁", "a", "b", "ab", "▁ab"}) {
    AddPiece(&model, piece, 1);
  }
  return model;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& bytes) {
  absl::StatusOr<TokenizerSpec> spec =
      ParseSentencePieceModel(bytes, "test.model");
  if (!spec.ok()) return spec.status();
  return Tokenizer::Create(*std::move(spec));
}

Ids Encode(const sentencepiece::Model& model, const std::string& text) {
  const auto tokenizer = Load(model.SerializeAsString());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return (*tokenizer)->Encode(text, {false, true});
}

void ExpectError(const std::function<void(sentencepiece::Model*)>& change,
                 const std::string& part) {
  sentencepiece::Model model = SmallModel();
  change(&model);
  const absl::Status status = Load(model.SerializeAsString()).status();
  ASSERT_FALSE(status.ok()) << part;
  EXPECT_THAT(status.message(), HasSubstr("test.model"));
  EXPECT_THAT(status.message(), HasSubstr(part));
}

TEST(SentencePieceModelTest, EncodesAndDecodes) {
  EXPECT_EQ(Encode(SmallModel(), "ab b"), Ids({263, 259, 261}));
  EXPECT_EQ(Encode(SmallModel(), "é"), Ids({259, 3 + 0xC3, 3 + 0xA9}));
  const auto tokenizer = Load(SmallModel().SerializeAsString());
  EXPECT_EQ((*tokenizer)->Encode("ab"), Ids({1, 263}));
  EXPECT_EQ((*tokenizer)->eos_id(), 2);
  EXPECT_EQ((*tokenizer)->Decode({1, 263, 263, 2}), "ab ab");
  EXPECT_EQ((*tokenizer)->Decode({1, 263}, false), "<s> ab");
}

TEST(SentencePieceModelTest, ControlPiecesNeverMatchText) {
  for (const int32_t id : Encode(SmallModel(), "<s>ab</s><unk>")) {
    EXPECT_GE(id, 3);
  }
}

TEST(SentencePieceModelTest, RemovesExtraWhiteSpaceWhenTheFileSaysSo) {
  sentencepiece::Model model = SmallModel();
  model.mutable_normalizer()->set_remove_extra_whitespaces(true);
  EXPECT_EQ(Encode(model, "  ab   ab "), Ids({263, 263}));
  EXPECT_EQ(Encode(model, "   "), Ids());
  model.mutable_normalizer()->set_add_dummy_prefix(false);
  EXPECT_EQ(Encode(model, " ab ab"), Ids({262, 263}));
}

TEST(SentencePieceModelTest, UserDefinedPiecesMatchFirstAndWhole) {
  sentencepiece::Model model = SmallModel();
  AddPiece(&model, "ba", 4);
  EXPECT_EQ(Encode(model, "abab"), Ids({259, 260, 264, 261}));
}

TEST(SentencePieceModelTest, UnknownCharactersFuseWithoutBytes) {
  sentencepiece::Model model = SmallModel();
  model.mutable_trainer()->set_byte_fallback(false);
  model.mutable_pieces()->DeleteSubrange(3, 256);
  EXPECT_EQ(Encode(model, "é漢b"), Ids({3, 0, 5}));
}

TEST(SentencePieceModelTest, MissingBosAndEosAreUnset) {
  sentencepiece::Model model = SmallModel();
  model.mutable_trainer()->set_bos_id(-1);  // ten bytes on the wire
  model.mutable_trainer()->set_eos_id(-1);
  const auto tokenizer = Load(model.SerializeAsString());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), std::nullopt);
  EXPECT_EQ((*tokenizer)->eos_id(), std::nullopt);
  EXPECT_FALSE((*tokenizer)->adds_bos());
}

TEST(SentencePieceModelTest, RefusesSettingsItDoesNotHave) {
  using Model = sentencepiece::Model;
  ExpectError([](Model* m) { m->mutable_trainer()->set_model_type(1); },
              "unigram");
  ExpectError(
      [](Model* m) {
        m->mutable_trainer()->set_treat_whitespace_as_suffix(true);
      },
      "treat_whitespace_as_suffix");
  ExpectError(
      [](Model* m) { m->mutable_normalizer()->set_escape_whitespaces(false); },
      "escape_whitespaces");
  ExpectError(
      [](Model* m) {
        m->mutable_denormalizer()->set_precompiled_charsmap("x");
      },
      "denormalizer_spec");
  ExpectError(
      [](Model* m) {
        m->mutable_normalizer()->set_precompiled_charsmap("abc");
      },
      "precompiled_charsmap");
}

TEST(SentencePieceModelTest, RejectsBadPieces) {
  using Model = sentencepiece::Model;
  ExpectError([](Model* m) { m->mutable_pieces(260)->set_type(7); },
              "piece 260 has the type 7");
  ExpectError([](Model* m) { m->mutable_pieces(260)->clear_piece(); },
              "piece 260 is empty");
  ExpectError([](Model* m) { m->mutable_pieces(260)->set_piece("\xFF"); },
              "token 260");
  ExpectError([](Model* m) { m->mutable_pieces(260)->set_piece("b"); },
              "tokens 260 and 261");
  ExpectError([](Model* m) { m->mutable_pieces(0)->set_type(3); }, "unknown");
  ExpectError([](Model* m) { m->mutable_pieces(1)->set_type(2); },
              "pieces 0 and 1");
  ExpectError([](Model* m) { m->mutable_pieces(3)->set_type(1); },
              "255 byte pieces");
  ExpectError([](Model* m) { m->clear_pieces(); }, "unknown");
  ExpectError(
      [](Model* m) {
        m->mutable_pieces(260)->set_score(
            std::numeric_limits<float>::quiet_NaN());
      },
      "token 260");
  ExpectError(
      [](Model* m) {
        m->mutable_pieces(260)->set_piece(std::string(100'000, 'a'));
      },
      "100000");
  ExpectError([](Model* m) { m->mutable_trainer()->set_bos_id(264); }, "264");
  ExpectError([](Model* m) { m->mutable_trainer()->set_eos_id(1 << 30); },
              "EOS");
}

TEST(SentencePieceModelTest, RejectsTruncatedProtobuf) {
  const std::string bytes = SmallModel().SerializeAsString();
  for (size_t size = 0; size < bytes.size(); size += 3) {
    const auto tokenizer = Load(bytes.substr(0, size));
    EXPECT_FALSE(tokenizer.ok()) << size;
  }
  // A varint that never ends, and a length past the end.
  EXPECT_THAT(Load("\x12\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF")
                  .status()
                  .message(),
              HasSubstr("protobuf"));
  EXPECT_THAT(Load("\x0A\x7Fxx").status().message(), HasSubstr("protobuf"));
}

TEST(SentencePieceModelTest, TellsTiktokenFilesApart) {
  EXPECT_THAT(Load("IQ== 0\nIg== 1\n").status().message(),
              HasSubstr("tokenizer.json"));
}

}  // namespace
}  // namespace nibble
