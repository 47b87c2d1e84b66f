// tokenizer.json from outside: the good case, and one test per kind of damage and of tokenizer that is refused. What
// the facts mean for texts is in tokenizer_test.cc and tests/parity/test_tokenizer.py.
#include "text/tokenizer_json.h"

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "common/check.h"
#include "test.h"
#include "text/tokenizer.h"

namespace dgrt {
namespace {

using nlohmann::json;

json Good() {
  return json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null, "post_processor": {"type": "TemplateProcessing"},
    "added_tokens": [
      {"id": 0, "content": "<bos>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
       "special": true},
      {"id": 5, "content": "<extra>", "single_word": false, "lstrip": true, "rstrip": false, "normalized": true,
       "special": false}],
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
    "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<bos>", "continuing_subword_prefix": null,
              "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
              "vocab": {"<bos>": 0, "a": 2, "b": 1, "ab": 3, "aba": 4}, "merges": [["a", "b"], "ab a"]}})");
}

void Load(const std::string& text) { Tokenizer tokenizer(ReadTokenizerJson(text)); }

TEST(ATokenizerOfAKnownKindIsReadInWhole) {
  const TokenizerFacts facts = ReadTokenizerJson(Good().dump());
  CHECK_EQ(facts.vocabulary.size(), 5);
  CHECK_EQ(facts.vocabulary.Token(1), "b");
  CHECK_EQ(facts.vocabulary.Find("aba"), 4);
  CHECK_EQ(facts.vocabulary.Find("<extra>"), Vocabulary::kNone);
  CHECK_EQ(facts.merges.size(), size_t{4});
  CHECK_EQ(facts.merges[2], "ab");
  CHECK_EQ(facts.added.size(), size_t{2});
  CHECK(facts.added[0].special && !facts.added[0].normalized);
  CHECK(facts.added[1].lstrip && facts.added[1].normalized);
  CHECK_EQ(facts.normalizer.Apply(" a "), "_a_");
  CHECK_EQ(facts.bpe.unk_id, 0);
  CHECK(facts.bpe.fuse_unk && facts.bpe.byte_fallback && !facts.bpe.ignore_merges);
  Load(Good().dump());
}

TEST(KeysThatHuggingFaceMayLeaveOutMayBeMissing) {
  json file = Good();
  for (const char* key : {"version", "truncation", "padding", "post_processor", "added_tokens", "normalizer",
                          "pre_tokenizer"}) {
    file.erase(key);
  }
  for (const char* key : {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                          "byte_fallback", "ignore_merges"}) {
    file["model"].erase(key);
  }
  Load(file.dump());
}

TEST(EveryTruncationIsRefused) {
  const std::string text = Good().dump();
  for (size_t size = 0; size < text.size(); ++size) {
    CHECK_THROWS(ContractMismatch, "tokenizer.json: expected JSON, found an error at byte", Load(text.substr(0, size)));
  }
}

TEST(TextThatIsNoTokenizerIsRefused) {
  CHECK_THROWS(ContractMismatch, "document: expected an object", Load("[]"));
  CHECK_THROWS(ContractMismatch, "document: expected an object", Load("null"));
  CHECK_THROWS(ContractMismatch, "model: missing key", Load("{}"));
  CHECK_THROWS(ContractMismatch, "64 levels", Load(std::string(1'000'000, '[')));
  CHECK_THROWS(ContractMismatch, "expected JSON", Load("{\"model\": \"\xff\"}"));
}

// A good file with one change.
template <typename Expected>
void CheckRefused(const std::string& message_part, const std::function<void(json&)>& damage) {
  json file = Good();
  damage(file);
  CHECK_THROWS(Expected, message_part, Load(file.dump()));
}

TEST(EveryPartMustHaveItsType) {
  for (const json& wrong : {json(1), json("x"), json(true), json::array({1})}) {
    for (const char* key : {"model", "normalizer", "pre_tokenizer"}) {
      CheckRefused<ContractMismatch>(Message(key, ": expected an object"), [&](json& f) { f[key] = wrong; });
    }
    for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) {
      if (wrong.is_boolean()) continue;
      CheckRefused<ContractMismatch>(key, [&](json& f) { f["model"][key] = wrong; });
    }
    CheckRefused<ContractMismatch>("model.vocab: expected an object", [&](json& f) { f["model"]["vocab"] = wrong; });
    if (wrong.is_array()) continue;
    CheckRefused<ContractMismatch>("model.merges: expected an array", [&](json& f) { f["model"]["merges"] = wrong; });
    CheckRefused<ContractMismatch>("added_tokens: expected an array", [&](json& f) { f["added_tokens"] = wrong; });
  }
  for (const char* key : {"vocab", "merges"}) {
    CheckRefused<ContractMismatch>(Message("model.", key, ": missing"), [&](json& f) { f["model"].erase(key); });
  }
  for (const char* key : {"id", "content", "lstrip", "rstrip", "single_word", "normalized", "special"}) {
    const std::string name = Message("added_tokens[1].", key);
    CheckRefused<ContractMismatch>(name + ": missing", [&](json& f) { f["added_tokens"][1].erase(key); });
    CheckRefused<ContractMismatch>(name + ": expected", [&](json& f) { f["added_tokens"][1][key] = json::object(); });
  }
}

TEST(VocabularyIdsAreZeroToTheirNumberEachOnce) {
  for (const json& wrong : {json(5), json(1), json(1 << 24)}) {  // a hole, a duplicate, a hole again
    CheckRefused<ContractMismatch>("model.vocab: expected ids 0 to 4, each once, found",
                                   [&](json& f) { f["model"]["vocab"]["aba"] = wrong; });
  }
  for (const json& wrong : {json(-1), json(UINT64_MAX), json(1e300), json(1.0), json("4"), json(nullptr), json::array(),
                            json::object()}) {
    CheckRefused<ContractMismatch>("model.vocab: expected an id from 0 to",
                                   [&](json& f) { f["model"]["vocab"]["aba"] = wrong; });
  }
  std::string text = Good().dump();
  text.replace(text.find("\"aba\":"), 6, "\"ab\": ");
  CHECK_THROWS(ContractMismatch, "expected each token once, found 'ab' twice", Load(text));
  CheckRefused<ContractMismatch>("at most 4096 bytes",
                                 [](json& f) { f["model"]["vocab"][std::string(5000, 'x')] = 5; });
}

TEST(MergesAreTwoTokensOfTheVocabulary) {
  for (const json& wrong : {json("a"), json("a  b"), json("a b c"), json(7), json(nullptr), json::object(),
                            json::array(), json::array({"a"}), json::array({"a", "b", "a"}), json::array({"a", 1}),
                            json::array({json::array(), "a"})}) {
    CheckRefused<ContractMismatch>("expected two tokens", [&](json& f) { f["model"]["merges"][1] = wrong; });
  }
  for (const json& wrong : {json("x a"), json("a x"), json("b b")}) {
    CheckRefused<ContractMismatch>("model.merges[1]: expected tokens of model.vocab",
                                   [&](json& f) { f["model"]["merges"][1] = wrong; });
  }
}

TEST(AddedTokensHaveTheIdsThatHuggingFaceGivesThem) {
  CheckRefused<ContractMismatch>("added_tokens[0].id: expected 0", [](json& f) { f["added_tokens"][0]["id"] = 1; });
  for (const json& wrong : {json(0), json(6), json(-1), json(1 << 25), json(UINT64_MAX)}) {
    CheckRefused<ContractMismatch>("added_tokens[1].id", [&](json& f) { f["added_tokens"][1]["id"] = wrong; });
  }
  CheckRefused<ContractMismatch>("added_tokens[1].content: expected each token once", [](json& f) {
    f["added_tokens"][1] = f["added_tokens"][0];
  });
  CheckRefused<ContractMismatch>("expected 1 to 4096 bytes", [](json& f) { f["added_tokens"][1]["content"] = ""; });
  CheckRefused<ContractMismatch>("model.unk_token: expected a token", [](json& f) { f["model"]["unk_token"] = "?"; });
}

TEST(TokenizersOfOtherKindsAreRefusedByName) {
  CheckRefused<Unsupported>("model.type: expected \"BPE\", found \"Unigram\"",
                            [](json& f) { f["model"] = {{"type", "Unigram"}, {"vocab", json::array()}}; });
  CheckRefused<Unsupported>("model.dropout", [](json& f) { f["model"]["dropout"] = 0.1; });
  CheckRefused<Unsupported>("model.end_of_word_suffix", [](json& f) { f["model"]["end_of_word_suffix"] = "</w>"; });
  CheckRefused<Unsupported>("model.continuing_subword_prefix",
                            [](json& f) { f["model"]["continuing_subword_prefix"] = "##"; });
  CheckRefused<Unsupported>("normalizer: expected null or \"Replace\"",
                            [](json& f) { f["normalizer"] = {{"type", "NFC"}}; });
  CheckRefused<Unsupported>("normalizer.pattern: expected a \"String\"",
                            [](json& f) { f["normalizer"]["pattern"] = {{"Regex", " +"}}; });
  CheckRefused<Unsupported>("normalizer.pattern", [](json& f) { f["normalizer"]["pattern"]["String"] = ""; });
  CheckRefused<Unsupported>("pre_tokenizer", [](json& f) { f["normalizer"] = nullptr; });  // the split would split
  CheckRefused<Unsupported>("pre_tokenizer", [](json& f) { f["normalizer"]["content"] = " _"; });
  CheckRefused<Unsupported>("pre_tokenizer", [](json& f) { f["pre_tokenizer"] = {{"type", "Whitespace"}}; });
  CheckRefused<Unsupported>("pre_tokenizer: expected null, \"ByteLevel\" with use_regex false", [](json& f) {
    f["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  });
  CheckRefused<Unsupported>("decoder: expected \"ByteLevel\"", [](json& f) { f["decoder"] = nullptr; });
  CheckRefused<Unsupported>("decoder: expected \"ByteLevel\"", [](json& f) { f["decoder"]["type"] = "WordPiece"; });
  CheckRefused<Unsupported>("decoder", [](json& f) { f["decoder"]["decoders"].erase(2); });
  CheckRefused<Unsupported>("added_tokens[1].single_word", [](json& f) { f["added_tokens"][1]["single_word"] = true; });
}

// Damage that nobody thought of: it may load or be refused, but only by one of the two named errors.
TEST(RandomDamageNeverGivesAnotherErrorThanTheNamedOnes) {
  const std::string good = Good().dump();
  uint32_t state = 1;
  const auto random = [&](size_t bound) {
    state = state * 1664525 + 1013904223;
    return static_cast<size_t>(state >> 8) % bound;
  };
  const std::string bytes = "{}[]\",:0-e9nt\\u\xff ";
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (size_t i = random(4) + 1; i > 0; --i) {
      const size_t at = random(text.size());
      if (random(2) == 0) {
        text[at] = bytes[random(bytes.size())];
      } else {
        text.erase(at, random(9));
      }
    }
    try {
      Load(text);
    } catch (const ContractMismatch&) {
      ++refused;
    } catch (const Unsupported&) {
      ++refused;
    }
  }
  CHECK(refused > 1000);
}

}  // namespace
}  // namespace dgrt
