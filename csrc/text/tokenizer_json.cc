// Implementation of tokenizer_json.h. Vocabulary and merges are most of the file (a million strings for Gemma) and go
// straight into compact lists; the rest becomes an ordinary JSON document.
#include "text/tokenizer_json.h"

#include <unordered_set>
#include <utility>

#include "common/json_reader.h"

namespace dgrt {
namespace {

using nlohmann::json;

constexpr char kFile[] = "tokenizer.json: ";
constexpr size_t kMaxTokenBytes = 4096;  // far above any token; keeps error texts and searches short
constexpr size_t kMaxDepth = 64;

// Receives the parser's events.
class TokenizerFile {
 public:
  json document;  // without model.vocab and model.merges
  StringList vocab;
  std::vector<int64_t> ids;
  StringList merges;
  bool has_vocab = false, has_merges = false;

  bool null() { return Value(nullptr); }
  bool boolean(bool value) { return Value(value); }
  bool number_integer(int64_t value) { return Value(value); }
  bool number_unsigned(uint64_t value) {
    if (part_ != Part::kVocab) return Value(value);
    if (value > static_cast<uint64_t>(Vocabulary::kMaxTokens)) return Value(value);
    vocab.Add(token_);
    ids.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool number_float(double value, const std::string&) { return Value(value); }
  bool string(std::string& value) {
    if (part_ == Part::kMerges) {
      AddMergeLine(value);
    } else if (part_ == Part::kMerge) {
      AddMergePart(value);
    } else {
      Value(std::move(value));
    }
    return true;
  }
  bool binary(std::vector<uint8_t>&) { return false; }  // does not occur in JSON text

  bool start_object(size_t) {
    if (part_ == Part::kDocument && IsModelKey("vocab")) {
      part_ = Part::kVocab;
      has_vocab = true;
      return true;
    }
    return Open(json::object());
  }
  bool key(std::string& name) {
    if (part_ == Part::kVocab) {
      CheckSize(name, "model.vocab");
      token_ = name;
    } else {
      open_.back().key = name;
    }
    return true;
  }
  bool end_object() { return Close(); }

  bool start_array(size_t) {
    if (part_ == Part::kMerges) {
      part_ = Part::kMerge;
      merge_parts_ = 0;
      return true;
    }
    if (part_ == Part::kDocument && IsModelKey("merges")) {
      part_ = Part::kMerges;
      has_merges = true;
      return true;
    }
    return Open(json::array());
  }
  bool end_array() {
    if (part_ == Part::kMerge) {
      if (merge_parts_ != 2) FailMerge(Message(merge_parts_, " strings"));
      part_ = Part::kMerges;
      return true;
    }
    return Close();
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) {
    throw ContractMismatch(Message(kFile, "expected JSON, found an error at byte ", position));
  }

 private:
  enum class Part { kDocument, kVocab, kMerges, kMerge };

  struct Level {
    json* container;
    std::string key;  // the one being read
  };

  bool IsModelKey(const char* name) const {
    return open_.size() == 2 && open_[0].key == "model" && open_[1].container->is_object() && open_[1].key == name;
  }

  json* Add(json value) {
    if (open_.empty()) {
      document = std::move(value);
      return &document;
    }
    const Level& level = open_.back();
    if (level.container->is_array()) {
      level.container->push_back(std::move(value));
      return &level.container->back();
    }
    json& place = (*level.container)[level.key];
    place = std::move(value);
    return &place;
  }

  bool Value(json value) {
    if (part_ == Part::kVocab) {
      JsonObject::Fail(Message(kFile, "model.vocab"), Message("an id from 0 to ", Vocabulary::kMaxTokens), value);
    }
    if (part_ != Part::kDocument) FailMerge("another value");
    Add(std::move(value));
    return true;
  }

  bool Open(json container) {
    if (part_ != Part::kDocument) return Value(std::move(container));
    if (open_.size() == kMaxDepth) {
      throw ContractMismatch(Message(kFile, "nested more than ", kMaxDepth, " levels deep"));
    }
    open_.push_back({Add(std::move(container)), ""});
    return true;
  }

  bool Close() {
    if (part_ != Part::kDocument) {
      part_ = Part::kDocument;
    } else {
      open_.pop_back();
    }
    return true;
  }

  static void CheckSize(std::string_view text, const char* where) {
    if (text.size() <= kMaxTokenBytes) return;
    throw ContractMismatch(Message(kFile, where, ": expected tokens of at most ", kMaxTokenBytes, " bytes, found ",
                                   text.size()));
  }

  // The older spelling: "left right".
  void AddMergeLine(std::string_view line) {
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      FailMerge("a string without exactly one space");
    }
    AddMergePart(line.substr(0, space));
    AddMergePart(line.substr(space + 1));
  }

  void AddMergePart(std::string_view part) {
    CheckSize(part, "model.merges");
    merges.Add(part);
    ++merge_parts_;
  }

  [[noreturn]] void FailMerge(std::string_view found) const {
    throw ContractMismatch(Message(kFile, "model.merges[", merges.size() / 2, "]: expected two tokens, found ", found));
  }

  Part part_ = Part::kDocument;
  std::vector<Level> open_;
  std::string token_;    // the key being read in kVocab
  int merge_parts_ = 0;  // strings of the pair being read in kMerge
};

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
  TokenizerFile file;
  json::sax_parse(text, &file);
  const JsonObject root(file.document, kFile);
  const JsonObject model = root.Object("model");
  // Older files do not name the type of a BPE model.
  if (const json type = Optional(model, "type"); !type.is_null() && type != json("BPE")) {
    Refuse(model.PathOf("type"), "\"BPE\"", type);
  }
  if (!file.has_vocab) model.Object("vocab");
  if (!file.has_merges) model.Array("merges");

  TokenizerFacts facts{Vocabulary(file.vocab, file.ids)};
  facts.merges = std::move(file.merges);
  ReadModelOptions(model, &facts);
  ReadAddedTokens(root, &facts);
  ReadNormalizer(root, &facts);
  ReadPreTokenizer(root, &facts);
  ReadDecoder(root, &facts);
  return facts;
}

}  // namespace dgrt
