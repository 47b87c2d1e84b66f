// Encoding and decoding with tokenizers of a few tokens, so that every expectation can be worked out by hand. Equality
// with Hugging Face on large ones is in tests/parity/test_tokenizer.py.
#include "text/tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/check.h"
#include "common/utf8.h"
#include "test.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"

namespace dgrt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Ids = std::vector<int32_t>;

json AddedTokenEntry(int id, const char* content, bool special) {
  return {{"id", id},         {"content", content}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false},  {"normalized", false}, {"special", special}};
}

// Ids 0 to 9 are the tokens below; 10 to 265 the byte tokens.
json GemmaFile() {
  json file = json::parse(R"({"added_tokens": [],
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": {"<unk>": 0, "<turn>": 1, "a": 2, "b": 3, "▁": 4, "ab": 5, "▁ab": 6, "▁▁": 7, "é": 8, "ba": 9},
      "merges": [["a", "b"], ["▁", "ab"], ["▁", "▁"], ["b", "a"]]}})");
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
    file["model"]["vocab"][name] = 10 + byte;
  }
  file["added_tokens"].push_back(AddedTokenEntry(1, "<turn>", true));
  file["added_tokens"].push_back(AddedTokenEntry(266, "<image>", false));
  return file;
}

// Ids 0 to 255 are the bytes in the order of their characters; 256 is special.
json ByteLevelFile() {
  json file = json::parse(R"({"added_tokens": [], "decoder": {"type": "ByteLevel"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    "model": {"type": "BPE", "vocab": {}, "merges": []}})");
  json& vocab = file["model"]["vocab"];
  int other = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    const int character = printable ? byte : other++;
    std::string name;
    if (character >= 0x80) name.push_back(static_cast<char>(0xC0 | character >> 6));
    name.push_back(static_cast<char>(character >= 0x80 ? 0x80 | (character & 0x3F) : character));
    vocab[name] = byte;
  }
  file["added_tokens"].push_back(AddedTokenEntry(256, "<turn>", true));
  return file;
}

Tokenizer Make(const json& file) { return Tokenizer(ReadTokenizerJson(file.dump())); }

void CheckIds(const Tokenizer& tokenizer, std::string_view text, const Ids& expected) {
  const Ids found = tokenizer.Encode(text);
  CHECK_EQ(json(found).dump(), json(expected).dump());
}

TEST(InvalidUtf8IsFoundAtItsFirstByte) {
  CHECK_EQ(utf8::FindInvalid(""), size_t{0});
  CHECK_EQ(utf8::FindInvalid("aé€😀"), std::string_view("aé€😀").size());
  // Continuation alone, overlong forms, a surrogate, beyond U+10FFFF, bytes that never occur, a character cut short.
  for (const char* broken : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xED\xA0\x80",
                             "\xF4\x90\x80\x80", "\xF5", "\xFF", "\xE2\x82", "\xF0\x9F\x98"}) {
    CHECK_EQ(utf8::FindInvalid(std::string("é") + broken), size_t{2});
    CHECK_EQ(utf8::FindInvalid(std::string("é") + broken + "a"), size_t{2});
  }
  const Tokenizer tokenizer = Make(GemmaFile());
  CHECK_THROWS(InvalidArgument, "found an invalid or incomplete character at byte 3", tokenizer.Encode("aé\xE2\x82"));
}

TEST(MergesAreMadeBestFirstAndLeftToRight) {
  const Tokenizer tokenizer = Make(GemmaFile());
  CheckIds(tokenizer, "", {});
  CheckIds(tokenizer, "ab", {5});
  CheckIds(tokenizer, "bab", {3, 5});  // "ab" is better than "ba"
  CheckIds(tokenizer, "bba", {3, 9});
  CheckIds(tokenizer, "a ab", {2, 6});
  CheckIds(tokenizer, "   ab", {7, 6});
  CheckIds(tokenizer, "     ", {7, 7, 4});
}

TEST(CharactersWithoutATokenBecomeBytes) {
  const Tokenizer tokenizer = Make(GemmaFile());
  CheckIds(tokenizer, "é€", {8, 10 + 0xE2, 10 + 0x82, 10 + 0xAC});
  CheckIds(tokenizer, std::string_view("\0\n", 2), {10, 20});
  json file = GemmaFile();
  file["model"]["byte_fallback"] = false;
  CheckIds(Make(file), "a€$b", {2, 0, 3});
  file["model"]["fuse_unk"] = false;
  CheckIds(Make(file), "a€$b", {2, 0, 0, 3});
  file["model"]["unk_token"] = nullptr;
  CheckIds(Make(file), "a€$b", {5});
}

TEST(SpecialTokensInATextBecomeTheirIds) {
  const Tokenizer tokenizer = Make(GemmaFile());
  CheckIds(tokenizer, "<turn>a<turn><image> b", {1, 2, 1, 266, 4, 3});
  CHECK_EQ(tokenizer.Decode(Ids{1, 2, 266, 4, 3}, SpecialTokens::kSkip), "a<image> b");
  CHECK_EQ(tokenizer.Decode(Ids{1, 2, 266}, SpecialTokens::kKeep), "<turn>a<image>");
}

TEST(DecodingTakesAnyIdsThatAreNotNegative) {
  const Tokenizer tokenizer = Make(GemmaFile());
  CHECK_EQ(tokenizer.Decode(Ids{2, 267, INT32_MAX, 3}, SpecialTokens::kSkip), "ab");
  CHECK_THROWS(InvalidArgument, "expected 0 or more, found -1 at position 1",
               tokenizer.Decode(Ids{2, -1}, SpecialTokens::kSkip));
}

TEST(ByteTokensAreTextOnlyIfTheirWholeRunIs) {
  const Tokenizer tokenizer = Make(GemmaFile());
  const Ids euro{10 + 0xE2, 10 + 0x82, 10 + 0xAC};
  CHECK_EQ(tokenizer.Decode(euro, SpecialTokens::kSkip), "€");
  CHECK_EQ(tokenizer.Decode(Ids{10 + 0xE2, 1, 10 + 0x82, 10 + 0xAC}, SpecialTokens::kSkip), "€");  // 1 is no text
  CHECK_EQ(tokenizer.Decode(Ids{10 + 'a', 10 + 0xE2}, SpecialTokens::kSkip), "\uFFFD\uFFFD");
  Detokenizer detokenizer(tokenizer, SpecialTokens::kSkip);
  CHECK_EQ(detokenizer.Push(euro), "");  // one more byte could break it
  CHECK_EQ(detokenizer.Push(Ids{2}), "€a");
  CHECK_EQ(detokenizer.Finish(), "");
}

TEST(ByteLevelTextIsHeldBackInsideACharacterOnly) {
  const Tokenizer tokenizer = Make(ByteLevelFile());
  CheckIds(tokenizer, "a €<turn>\xC2\xAD", {'a', ' ', 0xE2, 0x82, 0xAC, 256, 0xC2, 0xAD});
  Detokenizer detokenizer(tokenizer, SpecialTokens::kSkip);
  CHECK_EQ(detokenizer.Push(Ids{'a', 0xE2}), "a");
  CHECK_EQ(detokenizer.Push(Ids{0x82}), "");
  CHECK_EQ(detokenizer.Push(Ids{0xAC}), "€");
  CHECK_EQ(detokenizer.Push(Ids{0xE2, 0x82, 'b', 0xFF}), "\uFFFD" "b\uFFFD");  // one for each broken sequence
  CHECK_EQ(detokenizer.Push(Ids{0xF0, 0x9F}), "");
  CHECK_THROWS(InvalidArgument, "found -5", detokenizer.Push(Ids{'x', -5}));
  CHECK_EQ(detokenizer.Finish(), "\uFFFD");
  CHECK_EQ(detokenizer.Push(Ids{'c'}), "c");
}

TEST(PiecesJoinToTheWholeTextWhereverThePortionsEnd) {
  uint32_t state = 7;
  const auto random = [&](size_t bound) {
    state = state * 1664525 + 1013904223;
    return static_cast<size_t>(state >> 8) % bound;
  };
  for (const json& file : {GemmaFile(), ByteLevelFile()}) {
    const Tokenizer tokenizer = Make(file);
    for (int round = 0; round < 500; ++round) {
      Ids ids(random(30));
      for (int32_t& id : ids) id = static_cast<int32_t>(random(static_cast<size_t>(tokenizer.size()) + 3));
      Detokenizer detokenizer(tokenizer, SpecialTokens::kKeep);
      std::string text;
      for (std::span<const int32_t> rest(ids); !rest.empty();) {
        const auto portion = rest.first(1 + random(std::min<size_t>(rest.size(), 3)));
        text += detokenizer.Push(portion);
        rest = rest.subspan(portion.size());
      }
      text += detokenizer.Finish();
      CHECK_EQ(text, tokenizer.Decode(ids, SpecialTokens::kKeep));
      CHECK_EQ(utf8::FindInvalid(text), text.size());
    }
  }
}

TEST(AWordThatIsATokenIsThatTokenWhereMergesAreIgnored) {
  json file = GemmaFile();
  file["model"]["vocab"]["bb"] = 266;
  file["added_tokens"].erase(1);
  CheckIds(Make(file), "bb", {3, 3});
  file["model"]["ignore_merges"] = true;
  CheckIds(Make(file), "bb", {266});
  CheckIds(Make(file), "bbb", {3, 3, 3});
}

// A folder that is gone at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "dgrt-text-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void Write(const char* name, const std::string& text) const { std::ofstream(path_ / name, std::ios::binary) << text; }
  std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

TEST(ATokenizerIsLoadedFromAFolderThatHasOne) {
  const Folder folder;
  CHECK_THROWS(InvalidArgument, "expected a folder with tokenizer.json, found none", Tokenizer::Load(folder.path()));
  CHECK_THROWS(InvalidArgument, "found none", Tokenizer::Load(folder.path() + "/nowhere"));
  folder.Write("tokenizer.json", "");
  CHECK_THROWS(ContractMismatch, "expected JSON", Tokenizer::Load(folder.path()));
  folder.Write("tokenizer.json", ByteLevelFile().dump());
  CHECK_EQ(Tokenizer::Load(folder.path())->size(), 257);
}

TEST(AChatTemplateIsReadFromItsFileOrTheConfig) {
  const ChatMessage messages[] = {{"user", "Hi"}, {"assistant", "Yes?"}};
  const Folder folder;
  CHECK_THROWS(InvalidArgument, "expected a chat template, found none", ChatTemplate::Load(folder.path()));
  folder.Write("tokenizer_config.json",
               R"({"bos_token": "<s>", "chat_template": [{"name": "tool_use", "template": "tools"},
                   {"name": "default", "template": "{{ bos_token }}!"}]})");
  CHECK_EQ(ChatTemplate::Load(folder.path()).Format(messages), "<s>!");
  CHECK_EQ(ChatTemplate::Load(folder.path()).Render(R"({"messages": [{}], "tools": []})"), "tools");
  folder.Write("chat_template.jinja",
               "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
               "{{ add_generation_prompt }}");
  CHECK_EQ(ChatTemplate::Load(folder.path()).Format(messages), "<s>user:Hi;assistant:Yes?;True");
  CHECK_THROWS(InvalidArgument, "expected at least one", ChatTemplate::Load(folder.path()).Format({}));
  const ChatMessage no_text[] = {{"user", "\xFF"}};
  CHECK_THROWS(InvalidArgument, "content: expected UTF-8", ChatTemplate::Load(folder.path()).Format(no_text));
  folder.Write("chat_template.jinja", "\n{% if %}");
  CHECK_THROWS(ContractMismatch, "chat_template.jinja line 2: ", ChatTemplate::Load(folder.path()));
  folder.Write("tokenizer_config.json", "[]");
  CHECK_THROWS(ContractMismatch, "tokenizer_config.json: document: expected", ChatTemplate::Load(folder.path()));
  folder.Write("tokenizer_config.json", "{");
  CHECK_THROWS(ContractMismatch, "tokenizer_config.json: expected JSON", ChatTemplate::Load(folder.path()));
}

}  // namespace
}  // namespace dgrt
