#include "tokenizer/test_vocabularies.h"

#include <set>

#include "absl/log/check.h"
#include "absl/strings/str_format.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/scored_vocabulary.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

Json AddedJson(int id, const std::string& content) {
  return {{"id", id},        {"content", content}, {"single_word", false},
          {"lstrip", false}, {"rstrip", false},    {"normalized", false},
          {"special", true}};
}

std::vector<std::string> CharacterTokens(
    const std::vector<std::string>& alphabet, const MergePairs& merges) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(absl::StrFormat("<0x%02X>", byte));
  }
  tokens.push_back(std::string(kMetaSpace));
  for (const std::string& character : alphabet) {
    if (character != kMetaSpace) tokens.push_back(character);
  }
  for (const auto& [left, right] : merges) tokens.push_back(left + right);
  return tokens;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& bytes) {
  absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(bytes, "test.json");
  if (!spec.ok()) return spec.status();
  return Tokenizer::Create(*std::move(spec));
}

}  // namespace

Json ByteLevelJson(const MergePairs& merges) {
  Json vocab = Json::object();
  Json rules = Json::array();
  int id = 0;
  for (; id < 256; ++id) vocab[SpellByte(static_cast<uint8_t>(id))] = id;
  for (const auto& [left, right] : merges) {
    vocab[left + right] = id++;
    rules.push_back(Json::array({left, right}));
  }
  return {
      {"added_tokens", {AddedJson(id, "<|end|>")}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", rules}}}};
}

Json CharacterJson(const std::vector<std::string>& alphabet,
                   const MergePairs& merges) {
  Json vocab = Json::object();
  Json rules = Json::array();
  int id = 0;
  for (const std::string& token : CharacterTokens(alphabet, merges)) {
    vocab[token] = id++;
  }
  for (const auto& [left, right] : merges)
    rules.push_back(Json::array({left, right}));
  const std::string meta(kMetaSpace);
  return {
      {"added_tokens", {AddedJson(1, "<s>"), AddedJson(2, "</s>")}},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", meta}},
          {{"type", "Replace"},
           {"pattern", {{"String", " "}}},
           {"content", meta}}}}}},
      {"pre_tokenizer", nullptr},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"special_tokens",
         {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {{{"type", "Replace"},
           {"pattern", {{"String", meta}}},
           {"content", " "}},
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}},
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", rules}}}};
}

TokenizerSpec ScoredSpec(const std::vector<std::string>& alphabet,
                         const MergePairs& merges) {
  TokenizerSpec spec;
  spec.source = "test.model";
  float score = 0;
  for (const std::string& token : CharacterTokens(alphabet, merges)) {
    const size_t id = spec.vocabulary.size();
    const TokenKind kind = id == 0    ? TokenKind::kUnknown
                           : id < 3   ? TokenKind::kControl
                           : id < 259 ? TokenKind::kByte
                                      : TokenKind::kNormal;
    spec.vocabulary.push_back({token, kind, score--});
  }
  spec.unknown_id = 0;
  spec.bos_id = 1;
  spec.eos_id = 2;
  spec.prefix_ids = {1};
  CompleteScoredSpec(/*add_dummy_prefix=*/true, &spec);
  spec.normalizer = MetaSpaceNormalizer(/*add_dummy_prefix=*/true);
  return spec;
}

MergePairs RandomMerges(const std::vector<std::string>& alphabet, int count,
                        std::mt19937* random) {
  std::vector<std::string> tokens = alphabet;
  std::set<std::string> known(alphabet.begin(), alphabet.end());
  MergePairs merges;
  for (int tries = 0; tries < 20 * count; ++tries) {
    if (static_cast<int>(merges.size()) == count) break;
    const std::string& left = tokens[(*random)() % tokens.size()];
    const std::string& right = tokens[(*random)() % tokens.size()];
    const std::string joined = left + right;
    if (joined.size() > 24 || !known.insert(joined).second) continue;
    merges.emplace_back(left, right);
    tokens.push_back(joined);
  }
  return merges;
}

std::string RandomText(const std::vector<std::string>& alphabet, int length,
                       std::mt19937* random) {
  std::string text;
  for (int i = 0; i < length; ++i) {
    text += alphabet[(*random)() % alphabet.size()];
  }
  return text;
}

std::unique_ptr<Tokenizer> FromJson(const Json& json) {
  auto tokenizer = Load(json.dump());
  CHECK_OK(tokenizer.status());
  return *std::move(tokenizer);
}

absl::Status ErrorOf(const Json& json) { return Load(json.dump()).status(); }

absl::Status ErrorOf(const std::string& bytes) { return Load(bytes).status(); }

}  // namespace nibble
