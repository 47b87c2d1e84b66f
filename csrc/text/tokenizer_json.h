// Reads tokenizer.json: what this library can do comes out as facts, everything else is refused by name. Called by
// tokenizer.cc; knows nothing of how the facts are used.
#pragma once

#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/string_list.h"
#include "text/vocabulary.h"

namespace dgrt {

// Every `pattern` in a text becomes `content`; an empty pattern changes nothing.
struct Replacement {
  std::string pattern;
  std::string content;

  std::string Apply(std::string_view text) const;
};

// How a word's text is spelled in the vocabulary.
enum class Spelling {
  kPlain,       // as it is
  kByteLevel,   // one printable character per byte (GPT-2)
};

struct TokenizerFacts {
  explicit TokenizerFacts(Vocabulary model_vocabulary) : vocabulary(std::move(model_vocabulary)) {}

  Vocabulary vocabulary;            // of the model
  std::vector<AddedToken> added;    // those that the vocabulary lacks have the ids behind it, in this order
  StringList merges;                // two strings each, best first
  BpeOptions bpe;
  Replacement normalizer;
  Spelling spelling = Spelling::kPlain;
  bool add_prefix_space = false;    // kByteLevel only: a word begins with a space
  Spelling decoder = Spelling::kPlain;  // kPlain: byte tokens ("<0xE2>") become bytes
  Replacement decoder_replacement;  // kPlain only: in each token, before that
};

// Throws ContractMismatch for a damaged file and Unsupported for a tokenizer of another kind.
TokenizerFacts ReadTokenizerJson(const std::string& text);

}  // namespace dgrt
