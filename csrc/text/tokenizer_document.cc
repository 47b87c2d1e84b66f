// Implementation of tokenizer_document.h: a handler for the events of the JSON parser.
#include "text/tokenizer_document.h"

#include <string_view>
#include <utility>

#include "text/vocabulary.h"

namespace dgrt {
namespace {

using nlohmann::json;

constexpr char kFile[] = "tokenizer.json: ";
constexpr size_t kMaxDepth = 64;

// Receives the parser's events.
class Events {
 public:
  explicit Events(TokenizerDocument* result) : result_(*result) {}

  bool null() { return Value(nullptr); }
  bool boolean(bool value) { return Value(value); }
  bool number_integer(int64_t value) { return Value(value); }
  bool number_unsigned(uint64_t value) {
    if (part_ != Part::kVocab || value > static_cast<uint64_t>(Vocabulary::kMaxTokens)) return Value(value);
    result_.vocab.Add(token_);
    result_.ids.push_back(static_cast<int64_t>(value));
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
    if (part_ == Part::kRest && IsModelKey("vocab")) {
      part_ = Part::kVocab;
      result_.has_vocab = true;
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
    if (part_ == Part::kRest && IsModelKey("merges")) {
      part_ = Part::kMerges;
      result_.has_merges = true;
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
  enum class Part { kRest, kVocab, kMerges, kMerge };

  struct Level {
    json* container;
    std::string key;  // the one being read
  };

  bool IsModelKey(const char* name) const {
    return open_.size() == 2 && open_[0].key == "model" && open_[1].container->is_object() && open_[1].key == name;
  }

  json* Add(json value) {
    if (open_.empty()) {
      result_.rest = std::move(value);
      return &result_.rest;
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
    if (part_ != Part::kRest) FailMerge("another value");
    Add(std::move(value));
    return true;
  }

  bool Open(json container) {
    if (part_ != Part::kRest) return Value(std::move(container));
    if (open_.size() == kMaxDepth) {
      throw ContractMismatch(Message(kFile, "nested more than ", kMaxDepth, " levels deep"));
    }
    open_.push_back({Add(std::move(container)), ""});
    return true;
  }

  bool Close() {
    if (part_ != Part::kRest) {
      part_ = Part::kRest;
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
    result_.merges.Add(part);
    ++merge_parts_;
  }

  [[noreturn]] void FailMerge(std::string_view found) const {
    throw ContractMismatch(Message(kFile, "model.merges[", result_.merges.size() / 2, "]: expected two tokens, found ",
                                   found));
  }

  TokenizerDocument& result_;
  Part part_ = Part::kRest;
  std::vector<Level> open_;
  std::string token_;    // the key being read in kVocab
  int merge_parts_ = 0;  // strings of the pair being read in kMerge
};

}  // namespace

TokenizerDocument ParseTokenizerDocument(const std::string& text) {
  TokenizerDocument document;
  Events events(&document);
  json::sax_parse(text, &events);
  return document;
}

}  // namespace dgrt
