// Token texts and ids, both ways. Read by bpe.cc (which pieces exist), tokenizer.cc and detokenizer.cc (texts of ids).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/string_list.h"

namespace dgrt {

class Vocabulary {
 public:
  static constexpr int32_t kNone = -1;
  static constexpr int64_t kMaxTokens = 1 << 24;

  // tokens[i] has ids[i]. Throws ContractMismatch unless the ids are 0 to n - 1, each once, and no token occurs twice.
  Vocabulary(const StringList& tokens, const std::vector<int64_t>& ids);

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  std::string_view Token(int32_t id) const { return tokens_[static_cast<size_t>(id)]; }
  // kNone if there is no such token.
  int32_t Find(std::string_view token) const;

 private:
  // The hash is there to pass most other tokens without a look at their text, which would be a cache miss each.
  struct Slot {
    uint32_t hash = 0;
    int32_t id = kNone;  // kNone: free
  };

  static uint64_t Hash(std::string_view token);
  // Where `token` is in slots_, or the free place where it belongs.
  size_t SlotOf(std::string_view token, uint64_t hash) const;

  StringList tokens_;        // by id
  std::vector<Slot> slots_;  // hash table; at most half of it is used
};

}  // namespace dgrt
