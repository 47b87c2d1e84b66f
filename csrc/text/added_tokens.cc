// Implementation of added_tokens.h.
#include "text/added_tokens.h"

#include <algorithm>

#include "common/utf8.h"

namespace dgrt {
namespace {

size_t LeadingSpace(std::string_view text) {
  size_t end = 0;
  while (end < text.size() && utf8::IsWhiteSpace(utf8::FirstCodePoint(text.substr(end)))) {
    end += utf8::CharacterSize(text.substr(end));
  }
  return end;
}

// Where the white space at the end of `text` begins.
size_t TrailingSpace(std::string_view text) {
  while (!text.empty()) {
    const size_t last = utf8::LastCharacter(text);
    if (!utf8::IsWhiteSpace(utf8::FirstCodePoint(text.substr(last)))) break;
    text = text.substr(0, last);
  }
  return text.size();
}

}  // namespace

void AddedTokenFinder::Add(std::string_view pattern, const AddedToken& token) {
  uint32_t node = 0;
  for (const char c : pattern) {
    const uint32_t key = node << 8 | static_cast<unsigned char>(c);
    const auto [child, is_new] = children_.try_emplace(key, static_cast<uint32_t>(token_of_node_.size()));
    if (is_new) token_of_node_.push_back(kNone);
    node = child->second;
  }
  if (token_of_node_[node] != kNone) return;
  token_of_node_[node] = static_cast<int32_t>(tokens_.size());
  starts_[static_cast<unsigned char>(pattern[0])] = true;
  tokens_.push_back({token.id, token.lstrip, token.rstrip});
}

AddedTokenFinder::Match AddedTokenFinder::LongestAt(std::string_view text) const {
  Match longest;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto child = children_.find(node << 8 | static_cast<unsigned char>(text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (token_of_node_[node] != kNone) longest = {token_of_node_[node], i + 1};
  }
  return longest;
}

void AddedTokenFinder::Split(std::string_view text, const Emit& emit) const {
  size_t done = 0;  // end of what has been emitted
  for (size_t i = 0; i < text.size();) {
    Match match;
    if (starts_[static_cast<unsigned char>(text[i])]) match = LongestAt(text.substr(i));
    if (match.token == kNone) {
      ++i;
      continue;
    }
    const Flags& token = tokens_[static_cast<size_t>(match.token)];
    size_t begin = i, end = i + match.size;
    i = end;
    if (token.lstrip) begin = std::max(TrailingSpace(text.substr(0, begin)), done);
    if (token.rstrip) end += LeadingSpace(text.substr(end));
    if (done < begin) emit(text.substr(done, begin - done), AddedTokenFinder::kText);
    emit(text.substr(begin, end - begin), token.id);
    // Not the larger one of both: a token that begins in the white space that the token before took along gives its id
    // too, and what follows it counts from its own end. Hugging Face does the same.
    done = end;
  }
  if (done < text.size()) emit(text.substr(done), kText);
}

}  // namespace dgrt
