// Implementation of tokenizer_json.h: one function per part of the file, which reads it or refuses it.
#include "text/tokenizer_json.h"

#include <unordered_set>
#include <utility>

#include "common/json_reader.h"
#include "text/tokenizer_document.h"

namespace dgrt {
namespace {

using nlohmann::json;

constexpr char kFile[] = "tokenizer.json: ";

[[noreturn]] void Refuse(const std::string& path, std::string_view expected, const json& found) {
  throw Unsupported(JsonObject::Mismatch(path, expected, found));
}

// The value of a key that may be missing.
json Optional(const JsonObject& object, const char* key) { return object.Has(key) ? object.At(key) : json(); }

bool OptionalFlag(const JsonObject& object, const char* key, bool missing) {
  return Optional(object, key).is_null() ? missing : object.Boolean(key);
}

Replacement ReadReplacement(const JsonObject& object) {
  const JsonObject pattern = object.Object("pattern");
  if (!pattern.Has("String")) Refuse(object.PathOf("pattern"), "a \"String\"", pattern.raw());
  Replacement replacement{pattern.String("String"), object.String("content")};
  if (replacement.pattern.empty() || replacement.content.empty()) {
    Refuse(object.PathOf("pattern"), "a pattern and a content that are not empty", object.raw());
  }
  return replacement;
}

void ReadNormalizer(const JsonObject& root, TokenizerFacts* facts) {
  const json value = Optional(root, "normalizer");
  if (value.is_null()) return;
  const JsonObject normalizer = root.Object("normalizer");
  if (normalizer.String("type") != "Replace") Refuse(root.PathOf("normalizer"), "null or \"Replace\"", value);
  facts->normalizer = ReadReplacement(normalizer);
}

// A split at what the normalizer leaves none of.
bool SplitsNothing(const JsonObject& split, const Replacement& normalizer) {
  const json& pattern = split.Object("pattern").raw();
  return pattern.contains("String") && pattern.at("String") == json(normalizer.pattern) &&
         normalizer.pattern.size() == 1 && normalizer.content.find(normalizer.pattern) == std::string::npos &&
         !OptionalFlag(split, "invert", false);
}

void ReadPreTokenizer(const JsonObject& root, TokenizerFacts* facts) {
  const json value = Optional(root, "pre_tokenizer");
  if (value.is_null()) return;
  const JsonObject pre_tokenizer = root.Object("pre_tokenizer");
  const std::string type = pre_tokenizer.String("type");
  if (type == "ByteLevel" && !OptionalFlag(pre_tokenizer, "use_regex", true)) {
    facts->spelling = Spelling::kByteLevel;
    facts->add_prefix_space = pre_tokenizer.Boolean("add_prefix_space");
  } else if (type != "Split" || !SplitsNothing(pre_tokenizer, facts->normalizer)) {
    Refuse(root.PathOf("pre_tokenizer"),
           "null, \"ByteLevel\" with use_regex false, or \"Split\" at the one character that the normalizer replaces",
           value);
  }
}

void ReadDecoder(const JsonObject& root, TokenizerFacts* facts) {
  constexpr char kExpected[] = "\"ByteLevel\", or a \"Sequence\" of \"Replace\", \"ByteFallback\" and \"Fuse\"";
  const json value = Optional(root, "decoder");
  if (!value.is_object()) Refuse(root.PathOf("decoder"), kExpected, value);
  const JsonObject decoder = root.Object("decoder");
  const std::string type = decoder.String("type");
  if (type == "ByteLevel") {
    facts->decoder = Spelling::kByteLevel;
    return;
  }
  if (type != "Sequence") Refuse(root.PathOf("decoder"), kExpected, value);
  std::vector<JsonObject> steps;
  std::vector<std::string> types;
  for (const json& step : decoder.Array("decoders")) {
    steps.emplace_back(step, Message(decoder.PathOf("decoders"), "[", steps.size(), "]"));
    types.push_back(steps.back().String("type"));
  }
  if (types != std::vector<std::string>{"Replace", "ByteFallback", "Fuse"}) {
    Refuse(root.PathOf("decoder"), kExpected, value);
  }
  facts->decoder_replacement = ReadReplacement(steps[0]);
}

void ReadModelOptions(const JsonObject& model, TokenizerFacts* facts) {
  const json dropout = Optional(model, "dropout");
  if (!dropout.is_null() && dropout != json(0.0)) Refuse(model.PathOf("dropout"), "null", dropout);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json affix = Optional(model, key);
    if (!affix.is_null() && affix != json("")) Refuse(model.PathOf(key), "null", affix);
  }
  facts->bpe.fuse_unk = OptionalFlag(model, "fuse_unk", false);
  facts->bpe.byte_fallback = OptionalFlag(model, "byte_fallback", false);
  facts->bpe.ignore_merges = OptionalFlag(model, "ignore_merges", false);
  if (Optional(model, "unk_token").is_null()) return;
  facts->bpe.unk_id = facts->vocabulary.Find(model.String("unk_token"));
  if (facts->bpe.unk_id == Vocabulary::kNone) {
    JsonObject::Fail(model.PathOf("unk_token"), "a token of model.vocab", model.At("unk_token"));
  }
}

AddedToken ReadAddedToken(const JsonObject& object) {
  AddedToken token;
  token.content = object.String("content");
  if (token.content.empty() || token.content.size() > kMaxTokenBytes) {
    throw ContractMismatch(Message(object.PathOf("content"), ": expected 1 to ", kMaxTokenBytes, " bytes, found ",
                                   token.content.size()));
  }
  token.id = static_cast<int32_t>(object.Integer("id", 0, Vocabulary::kMaxTokens));
  token.lstrip = object.Boolean("lstrip");
  token.rstrip = object.Boolean("rstrip");
  token.normalized = object.Boolean("normalized");
  token.special = object.Boolean("special");
  if (object.Boolean("single_word")) Refuse(object.PathOf("single_word"), "false", object.raw());
  return token;
}

void ReadAddedTokens(const JsonObject& root, TokenizerFacts* facts) {
  if (Optional(root, "added_tokens").is_null()) return;
  std::unordered_set<std::string_view> seen;
  const json& tokens = root.Array("added_tokens");
  facts->added.reserve(tokens.size());  // `seen` points into it
  int32_t next_id = facts->vocabulary.size();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const JsonObject object(tokens[i], Message(root.PathOf("added_tokens"), "[", i, "]"));
    facts->added.push_back(ReadAddedToken(object));
    const AddedToken& token = facts->added.back();
    int32_t expected = facts->vocabulary.Find(token.content);
    if (expected == Vocabulary::kNone) expected = next_id++;
    if (token.id != expected) {
      JsonObject::Fail(object.PathOf("id"), Message(expected, ", its id in or behind model.vocab"), object.At("id"));
    }
    if (!seen.insert(token.content).second) {
      JsonObject::Fail(object.PathOf("content"), "each token once", object.At("content"));
    }
  }
}

}  // namespace

std::string Replacement::Apply(std::string_view text) const {
  if (pattern.empty()) return std::string(text);
  std::string result;
  size_t begin = 0;
  for (size_t at; (at = text.find(pattern, begin)) != std::string_view::npos; begin = at + pattern.size()) {
    result.append(text.substr(begin, at - begin)).append(content);
  }
  return result.append(text.substr(begin));
}

TokenizerFacts ReadTokenizerJson(const std::string& text) {
  TokenizerDocument document = ParseTokenizerDocument(text);
  const JsonObject root(document.rest, kFile);
  const JsonObject model = root.Object("model");
  // Older files do not name the type of a BPE model.
  if (const json type = Optional(model, "type"); !type.is_null() && type != json("BPE")) {
    Refuse(model.PathOf("type"), "\"BPE\"", type);
  }
  if (!document.has_vocab) model.Object("vocab");
  if (!document.has_merges) model.Array("merges");

  TokenizerFacts facts{Vocabulary(document.vocab, document.ids)};
  facts.merges = std::move(document.merges);
  ReadModelOptions(model, &facts);
  ReadAddedTokens(root, &facts);
  ReadNormalizer(root, &facts);
  ReadPreTokenizer(root, &facts);
  ReadDecoder(root, &facts);
  return facts;
}

}  // namespace dgrt
