// The JSON of tokenizer.json. Vocabulary and merges are most of the file (a million strings for Gemma) and go straight
// into compact lists; the rest becomes an ordinary document. Called by tokenizer_json.cc, which says what it all means.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/json_reader.h"
#include "text/string_list.h"

namespace dgrt {

inline constexpr size_t kMaxTokenBytes = 4096;  // far above any token; keeps error texts and searches short

struct TokenizerDocument {
  nlohmann::json rest;       // without model.vocab and model.merges
  bool has_vocab = false;    // model.vocab was an object
  StringList vocab;          // tokens in the order of the file
  std::vector<int64_t> ids;  // of each
  bool has_merges = false;   // model.merges was an array
  StringList merges;         // two strings each
};

// Throws ContractMismatch if `text` is no JSON, or vocabulary or merges hold anything else than tokens.
TokenizerDocument ParseTokenizerDocument(const std::string& text);

}  // namespace dgrt
