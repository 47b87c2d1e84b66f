// Byte pair encoding: one word to ids. Called by tokenizer.cc, which decides what a word is; with a tokenizer that does
// not split (Gemma), a whole text is one.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/string_list.h"
#include "text/vocabulary.h"

namespace dgrt {

struct BpeOptions {
  int32_t unk_id = Vocabulary::kNone;  // for characters without a token; none: they are dropped
  bool fuse_unk = false;               // one unknown token for a run of unknown characters
  bool byte_fallback = false;          // unknown characters become byte tokens ("<0xE2>") where all of them exist
  bool ignore_merges = false;          // a word that is a token as a whole is that token
};

class Bpe {
 public:
  // merges: two strings each, best first. Throws ContractMismatch if one names a token that does not exist.
  // `vocabulary` must outlive this object.
  Bpe(const Vocabulary& vocabulary, const StringList& merges, const BpeOptions& options);

  // Appends the ids of `word` (valid UTF-8). O(n log n) in its length.
  void Encode(std::string_view word, std::vector<int32_t>* ids) const;

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left id and right id
    int32_t rank = 0;
    int32_t id = 0;  // of the merged token
  };
  static constexpr uint64_t kNoPair = UINT64_MAX;

  // One token of a word in the making: the neighbours are positions in the array of symbols, -1 at the ends.
  struct Symbol {
    int32_t id;  // kMerged: swallowed by the symbol before
    int32_t previous;
    int32_t next;
  };
  static constexpr int32_t kMerged = -1;

  size_t SlotOf(uint64_t pair) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;  // null: these two do not merge
  std::vector<int32_t> Characters(std::string_view word) const;
  bool AppendBytes(std::string_view character, std::vector<int32_t>* ids) const;
  void MergeAll(std::vector<Symbol>* symbols) const;

  const Vocabulary& vocabulary_;
  BpeOptions options_;
  std::vector<Merge> merges_;         // hash table; at most half of it is used
  std::vector<int32_t> byte_tokens_;  // [256] ids of "<0x00>" to "<0xFF>", kNone where there is none
};

}  // namespace dgrt
