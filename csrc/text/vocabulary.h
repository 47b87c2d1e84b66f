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
  Vocabulary(StringList tokens, const std::vector<int64_t>& ids);

  int32_t size() const { return static_cast<int32_t>(index_of_id_.size()); }
  std::string_view Token(int32_t id) const { return tokens_[index_of_id_[static_cast<size_t>(id)]]; }
  // kNone if there is no such token.
  int32_t Find(std::string_view token) const;

 private:
  // Where `token` is in slots_, or the free place where it belongs.
  size_t SlotOf(std::string_view token) const;

  StringList tokens_;                  // in the order of the file
  std::vector<uint32_t> index_of_id_;  // into tokens_
  std::vector<int32_t> slots_;         // hash table of ids, kNone: free; at most half of it is used
};

}  // namespace dgrt
