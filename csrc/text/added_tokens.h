// Tokens that are found in a text before anything else is done to it, such as "<|turn>": splits a text at them. Called
// by tokenizer.cc, once for the tokens to find in the text as given and once for those to find in normalized text.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dgrt {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool lstrip = false;      // takes the white space before it along
  bool rstrip = false;      // and behind it
  bool normalized = false;  // to be found in normalized text
  bool special = false;     // no text: decoding can skip it
};

class AddedTokenFinder {
 public:
  static constexpr int32_t kText = -1;  // instead of an id: a piece between added tokens
  // A piece of the text and the id of the added token that it is, or kText.
  using Emit = std::function<void(std::string_view piece, int32_t id)>;

  // Finds `pattern` as `token`. Of two tokens that are the same once they are normalized, the first counts; Hugging
  // Face takes either, from one run to the next.
  void Add(std::string_view pattern, const AddedToken& token);

  // Emits the pieces of `text` (valid UTF-8) in order. The leftmost token is found first, of several the longest.
  void Split(std::string_view text, const Emit& emit) const;

 private:
  static constexpr int32_t kNone = -1;

  struct Match {
    int32_t token = kNone;  // index into tokens_
    size_t size = 0;        // bytes
  };

  struct Flags {
    int32_t id;
    bool lstrip;
    bool rstrip;
  };

  Match LongestAt(std::string_view text) const;

  // A tree of bytes: the child of a node, by node << 8 | byte. Node 0 is the root.
  std::unordered_map<uint32_t, uint32_t> children_;
  std::vector<int32_t> token_of_node_{kNone};
  std::array<bool, 256> starts_{};  // bytes that begin a pattern: most do not, so most places are passed at once
  std::vector<Flags> tokens_;
};

}  // namespace dgrt
