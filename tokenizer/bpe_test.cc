#include "tokenizer/bpe.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tokenizer/bpe_tables.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/test_vocabularies.h"
#include "tokenizer/tokenizer_spec.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

std::vector<std::string> Characters(const std::string& text) {
  std::vector<std::string> out;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const uint32_t size = DecodeUtf8(p, end).size;
    out.emplace_back(p, size);
    p += size;
  }
  return out;
}

// BPE as its papers describe it: look for the best pair, merge it, start over.
// rank(left, right) gives the order; the leftmost of equals goes first.
template <class Rank>
std::vector<std::string> SlowMerge(std::vector<std::string> symbols,
                                   const Rank& rank) {
  while (true) {
    size_t best = symbols.size();
    double best_rank = 1e30;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const double r = rank(symbols[i], symbols[i + 1]);
      if (r < best_rank) {
        best_rank = r;
        best = i;
      }
    }
    if (best == symbols.size()) return symbols;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + best + 1);
  }
}

std::vector<int32_t> Encode(const TokenizerSpec& spec,
                            const std::string& word) {
  const absl::StatusOr<BpeTables> tables = BuildBpeTables(spec);
  EXPECT_TRUE(tables.ok()) << tables.status();
  std::vector<int32_t> ids;
  BpeEncoder(*tables).Encode(word, &ids);
  return ids;
}

std::map<std::string, int32_t> IdsOf(const TokenizerSpec& spec) {
  std::map<std::string, int32_t> ids;
  for (size_t id = 0; id < spec.vocabulary.size(); ++id) {
    ids[spec.vocabulary[id].text] = static_cast<int32_t>(id);
  }
  return ids;
}

TokenizerSpec ByteLevelSpec(const MergePairs& merges) {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    spec.vocabulary.push_back(
        {SpellByte(static_cast<uint8_t>(byte)), TokenKind::kNormal});
  }
  for (const auto& [left, right] : merges) {
    spec.vocabulary.push_back({left + right, TokenKind::kNormal});
    spec.merges.push_back({left, right});
  }
  return spec;
}

// Words of both sides of the limit between scanning and buckets.
const int kLengths[] = {0, 1, 2, 3, 7, 20, 95, 96, 97, 98, 300, 1500};

TEST(BpeTest, MergesByRankLikeTheSlowReference) {
  const std::vector<std::string> alphabet = {"a", "b", "c", "d"};
  for (int seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    MergePairs merges = RandomMerges(alphabet, 60, &random);
    // A merge may come before those that make its parts.
    if (seed % 2 == 1) std::shuffle(merges.begin(), merges.end(), random);
    const TokenizerSpec spec = ByteLevelSpec(merges);
    const auto ids = IdsOf(spec);
    std::map<std::pair<std::string, std::string>, double> ranks;
    for (size_t i = 0; i < merges.size(); ++i) ranks[merges[i]] = i;
    for (const int length : kLengths) {
      const std::string word = RandomText(alphabet, length, &random);
      std::vector<int32_t> expected;
      for (const std::string& symbol :
           SlowMerge(Characters(word), [&](const auto&left, const auto&right) {
             const auto it = ranks.find({left, right});
             return it == ranks.end() ? 1e30 : it->second;
           })) {
        expected.push_back(ids.at(symbol));
      }
      EXPECT_EQ(Encode(spec, word), expected) << seed << " " << word;
    }
  }
}

TEST(BpeTest, MergesByScoreLikeTheSlowReference) {
  const std::vector<std::string> alphabet = {"a", "é", "▁", "x", "漢"};
  for (int seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    TokenizerSpec spec =
        ScoredSpec(alphabet, RandomMerges(alphabet, 60, &random));
    for (VocabularyEntry& entry : spec.vocabulary) {
      // Few distinct scores: many ties, which go to the leftmost.
      entry.score = static_cast<float>(random() % (seed % 2 == 0 ? 5 : 1000));
      // A character that is no token may still be part of one.
      if (seed % 3 == 0 && entry.text == "é") entry.kind = TokenKind::kControl;
    }
    std::map<std::string, int32_t> ids;
    for (size_t id = 259; id < spec.vocabulary.size(); ++id) {
      const VocabularyEntry& entry = spec.vocabulary[id];
      if (entry.kind == TokenKind::kNormal) ids[entry.text] = id;
    }
    for (const int length : kLengths) {
      const std::string word = RandomText(alphabet, length, &random);
      std::vector<int32_t> expected;
      for (const std::string& symbol :
           SlowMerge(Characters(word), [&](const auto&left, const auto&right) {
             const auto it = ids.find(left + right);
             return it == ids.end()
                        ? 1e30
                        : -double{spec.vocabulary[it->second].score};
           })) {
        if (ids.count(symbol)) {
          expected.push_back(ids[symbol]);
          continue;
        }
        for (const char c : symbol) {
          expected.push_back(3 + static_cast<uint8_t>(c));
        }
      }
      EXPECT_EQ(Encode(spec, word), expected) << seed << " " << word;
    }
  }
}

TEST(BpeTest, BytesWithoutTokensVanish) {
  TokenizerSpec spec = ByteLevelSpec({{"a", "b"}});
  spec.vocabulary[0x1C].kind = TokenKind::kHole;
  EXPECT_EQ(Encode(spec, "a\x1C"), std::vector<int32_t>({'a'}));
  // Within one word its neighbours meet, as in the tokenizers library.
  EXPECT_EQ(Encode(spec,
                   "a\x1C"
                   "b"),
            std::vector<int32_t>({256}));
}

TEST(BpeTest, UnknownCharactersFuseOnlyWhenAsked) {
  TokenizerSpec spec;
  spec.algorithm = BpeAlgorithm::kCharacterMerges;
  spec.vocabulary = {{"<unk>", TokenKind::kNormal}, {"a", TokenKind::kNormal}};
  spec.unknown_id = 0;
  EXPECT_EQ(Encode(spec, "aéza"), std::vector<int32_t>({1, 0, 0, 1}));
  spec.fuse_unknown = true;
  EXPECT_EQ(Encode(spec, "aéza"), std::vector<int32_t>({1, 0, 1}));
  EXPECT_EQ(Encode(spec, "éaz"), std::vector<int32_t>({0, 1, 0}));
  spec.unknown_id.reset();
  EXPECT_EQ(Encode(spec, "aéza"), std::vector<int32_t>({1, 1}));
}

TEST(BpeTest, UnusedPiecesAreSplitAgain) {
  TokenizerSpec spec = ScoredSpec({"a", "b", "c"}, {{"a", "b"}, {"ab", "c"}});
  const auto ids = IdsOf(spec);
  EXPECT_EQ(Encode(spec, "abcab"),
            std::vector<int32_t>({ids.at("abc"), ids.at("ab")}));
  spec.vocabulary[ids.at("ab")].kind = TokenKind::kUnused;
  EXPECT_EQ(Encode(spec, "abcab"),
            std::vector<int32_t>({ids.at("abc"), ids.at("a"), ids.at("b")}));
}

TEST(BpeTest, WholeWordsBypassMergesOnlyWhenAsked) {
  TokenizerSpec spec = ByteLevelSpec({{"a", "b"}});
  spec.vocabulary.push_back({"Ġabc", TokenKind::kNormal});
  EXPECT_EQ(Encode(spec, " abc"), std::vector<int32_t>({' ', 256, 'c'}));
  spec.ignore_merges = true;
  EXPECT_EQ(Encode(spec, " abc"), std::vector<int32_t>({257}));
  EXPECT_EQ(Encode(spec, " abcd"), std::vector<int32_t>({' ', 256, 'c', 'd'}));
}

TEST(BpeTest, KnowsWhetherTextMayBeCutBeforeSpaces) {
  const auto only_leads = [](const MergePairs& merges) {
    return BuildBpeTables(ScoredSpec({"a", "b"}, merges))
        ->meta_space_only_leads;
  };
  EXPECT_TRUE(only_leads({{"▁", "a"}, {"▁", "▁"}, {"▁▁", "a"}}));
  EXPECT_FALSE(only_leads({{"a", "▁"}}));
  EXPECT_FALSE(only_leads({{"a", "b"}, {"▁", "a"}, {"▁a", "▁"}}));
}

TEST(BpeTest, CutBeforeSpacesChangesNothing) {
  const std::vector<std::string> alphabet = {"▁", "a", "b"};
  for (int seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    MergePairs merges;
    for (const auto& merge : RandomMerges(alphabet, 80, &random)) {
      // Keep those that leave U+2581 in front.
      const std::string joined = merge.first + merge.second;
      const size_t letter = joined.find_first_of("ab");
      if (letter == std::string::npos ||
          joined.find("▁", letter) == std::string::npos) {
        merges.push_back(merge);
      }
    }
    const auto whole = Tokenizer::Create(ScoredSpec(alphabet, merges));
    ASSERT_TRUE(whole.ok()) << whole.status();
    const TokenizerSpec spec = ScoredSpec(alphabet, merges);
    const std::string text = RandomText({" ", "a", "b"}, 200, &random);
    std::string normalized = "▁";
    for (const char c : text) normalized += c == ' ' ? "▁" : std::string(1, c);
    EXPECT_EQ((*whole)->Encode(text, {false, true}), Encode(spec, normalized));
  }
}

}  // namespace
}  // namespace nibble
