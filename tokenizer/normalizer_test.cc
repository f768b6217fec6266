#include "tokenizer/normalizer.h"

#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tokenizer/charsmap.h"

namespace nibble {
namespace {

using Kind = NormalizerStep::Kind;

std::string Apply(const NormalizerSpec& spec, const std::string& text) {
  const absl::StatusOr<Normalizer> normalizer = Normalizer::Create(spec);
  EXPECT_TRUE(normalizer.ok()) << normalizer.status();
  std::string buffer;
  return std::string(normalizer->Apply(text, &buffer));
}

std::string Nfc(const std::string& text) {
  NormalizerSpec spec;
  spec.steps.push_back({Kind::kNfc, "", ""});
  return Apply(spec, text);
}

TEST(NfcTest, ComposesAndReorders) {
  EXPECT_EQ(Nfc("plain é"), "plain é");
  EXPECT_EQ(Nfc("cafe\u0301s"), "cafés");
  EXPECT_EQ(Nfc("a\u0301\u0323b"), "ạ\u0301b");
  EXPECT_EQ(Nfc("\u0301a"), "\u0301a");
  EXPECT_EQ(Nfc("\u1112\u1161\u11ab"), "한");
  EXPECT_EQ(Nfc("\u212B\u2126"), "ÅΩ");
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093C");  // excluded from composition
}

TEST(NfcTest, IsThatOfUnicode9) {
  // U+0898 is a mark since Unicode 14: neither sorted nor passed over.
  EXPECT_EQ(Nfc("a\u0898\u0323"), "a\u0898\u0323");
  EXPECT_EQ(Nfc("a\u0345\u0898\u0323"), "a\u0345\u0898\u0323");
  // U+11935 U+11930 compose since Unicode 13.
  EXPECT_EQ(Nfc("\U00011935\U00011930"), "\U00011935\U00011930");
}

TEST(NfcTest, KeepsBytesThatAreNotUtf8) {
  EXPECT_EQ(Nfc("\xFF\u0301 e\u0301\xE2\x82"), "\xFF\u0301 é\xE2\x82");
  EXPECT_EQ(Nfc(std::string("\0e\u0301\0", 5)), std::string("\0é\0", 4));
}

TEST(StepsTest, PrependSkipsEmptyText) {
  NormalizerSpec spec;
  spec.steps.push_back({Kind::kPrepend, "", "▁"});
  spec.steps.push_back({Kind::kReplace, " ", "▁"});
  EXPECT_EQ(Apply(spec, ""), "");
  EXPECT_EQ(Apply(spec, " a  b "), "▁▁a▁▁b▁");
}

// Writes a precompiled_charsmap.  Every unit of its double array is placed by
// trial, which is slow and plain.
class CharsmapWriter {
 public:
  std::string Write(const std::map<std::string, std::string>& rules) {
    std::string replacements;
    std::map<std::string, uint32_t> values;
    for (const auto& [from, to] : rules) {
      values[from] = replacements.size();
      replacements += to + '\0';
    }
    units_.assign(1 << 14, 0);
    used_.assign(units_.size(), false);
    used_[0] = true;
    Place(0, "", values);
    std::string out;
    Append(units_.size() * 4, &out);
    for (const uint32_t unit : units_) Append(unit, &out);
    return out + replacements;
  }

 private:
  static void Append(uint32_t value, std::string* out) {
    for (int i = 0; i < 4; ++i) out->push_back(value >> (8 * i) & 0xFF);
  }

  void Place(uint32_t node, const std::string& prefix,
             const std::map<std::string, uint32_t>& values) {
    std::vector<uint8_t> labels;  // 0: a value ends here
    if (values.count(prefix)) labels.push_back(0);
    for (int byte = 1; byte < 256; ++byte) {
      const std::string child = prefix + static_cast<char>(byte);
      const auto it = values.lower_bound(child);
      if (it != values.end() &&
          it->first.compare(0, child.size(), child) == 0) {
        labels.push_back(byte);
      }
    }
    uint32_t offset = 1;
    const auto fits = [&] {
      for (const uint8_t label : labels) {
        if (used_[node ^ offset ^ label]) return false;
      }
      return true;
    };
    while (!fits()) ++offset;
    units_[node] |= offset << 10;
    const uint32_t base = node ^ offset;
    for (const uint8_t label : labels) used_[base ^ label] = true;
    for (const uint8_t label : labels) {
      if (label == 0) {
        units_[node] |= 1 << 8;
        units_[base] = values.at(prefix) | 1u << 31;
      } else {
        units_[base ^ label] |= label;
        Place(base ^ label, prefix + static_cast<char>(label), values);
      }
    }
  }

  std::vector<uint32_t> units_;
  std::vector<bool> used_;
};

NormalizerSpec SentencePieceSpec(const std::map<std::string, std::string>& map,
                                 bool dummy_prefix, bool remove_extra) {
  NormalizerSpec spec;
  spec.steps.push_back({Kind::kSentencePiece, "", ""});
  if (!map.empty()) spec.rules.charsmap = CharsmapWriter().Write(map);
  spec.rules.add_dummy_prefix = dummy_prefix;
  spec.rules.remove_extra_whitespaces = remove_extra;
  return spec;
}

TEST(SentencePieceTest, RemovesExtraWhiteSpace) {
  const NormalizerSpec spec = SentencePieceSpec({}, true, true);
  EXPECT_EQ(Apply(spec, "  a   b  "), "▁a▁b");
  EXPECT_EQ(Apply(spec, "   "), "");
  EXPECT_EQ(Apply(spec, ""), "");
  EXPECT_EQ(Apply(SentencePieceSpec({}, false, true), " a  b"), "a▁b");
  EXPECT_EQ(Apply(SentencePieceSpec({}, true, false), " a  b "), "▁▁a▁▁b▁");
}

TEST(SentencePieceTest, MapsTheLongestRule) {
  const NormalizerSpec spec = SentencePieceSpec({{"a", "1"},
                                                 {"ab", "2"},
                                                 {"abcd", "3"},
                                                 {"\t", " "},
                                                 {"é", "e"},
                                                 {"\u200B", ""}},
                                                true, true);
  EXPECT_EQ(Apply(spec, "a abc abcd"), "▁1▁2c▁3");
  EXPECT_EQ(Apply(spec, "\t é\t\tx\u200By"), "▁e▁xy");
  EXPECT_EQ(Apply(spec, "\xC3z"), "▁\xC3z");
}

TEST(SentencePieceTest, UserDefinedPiecesAreNotMapped) {
  NormalizerSpec spec = SentencePieceSpec({{"a", "1"}}, false, false);
  AddedToken token;
  token.content = "aa";
  spec.rules.protected_tokens.push_back(token);
  EXPECT_EQ(Apply(spec, "aaa"), "aa1");
}

TEST(CharsmapTest, RejectsBytesThatLie) {
  const std::string good = CharsmapWriter().Write({{"a", "b"}});
  EXPECT_TRUE(Charsmap::Create(good).ok());
  EXPECT_FALSE(Charsmap::Create("abc").ok());
  EXPECT_FALSE(Charsmap::Create(std::string(4, '\0')).ok());
  EXPECT_FALSE(Charsmap::Create(good.substr(0, 100)).ok());
  EXPECT_FALSE(Charsmap::Create("\xFF\xFF\xFF\xFF" + good.substr(4)).ok());
  EXPECT_FALSE(Charsmap::Create(good.substr(0, good.size() - 1)).ok());
  EXPECT_FALSE(Charsmap::Create(good + std::string(200, 'x') + '\0').ok());
}

TEST(CharsmapTest, SurvivesATrieThatPointsAnywhere) {
  std::string bytes = CharsmapWriter().Write({{"a", "b"}, {"ab", "c"}});
  const std::string text(1000, 'a');
  for (uint32_t seed = 1; seed < 2000; ++seed) {
    std::string damaged = bytes;
    for (uint32_t i = 0; i < 40; ++i) {
      const uint32_t r = seed * 2654435761u + i * 40503u;
      damaged[4 + r % 4096] = static_cast<char>(r >> 13);
    }
    const absl::StatusOr<Charsmap> map = Charsmap::Create(damaged);
    ASSERT_TRUE(map.ok());
    absl::string_view replacement;
    EXPECT_LE(map->Find(text, &replacement), text.size());
  }
}

}  // namespace
}  // namespace nibble
