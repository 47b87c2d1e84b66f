// The suffix automaton of a growing text (Blumer et al., "The smallest automaton recognizing the subwords of a text",
// 1985): after each token it knows the longest suffix that occurred before, and where. O(1) amortised per token;
// at most 2n states and 3n edges. Used by suffix_drafter.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dgrt {

class SuffixAutomaton {
 public:
  SuffixAutomaton();

  void Extend(int32_t token);

  // The longest suffix of the text that occurred earlier: its length (0: none) and the index behind its first
  // occurrence, where the text went on differently or as it will again.
  struct Match {
    int64_t length = 0;
    int64_t end = 0;
  };
  Match LongestEarlierSuffix() const;

 private:
  static constexpr int32_t kNone = -1;
  // A set of substrings that end at the same places: those with lengths in (length of link, length].
  struct State {
    int32_t length = 0;
    int32_t link = kNone;
    int32_t first_end = 0;     // index behind the first occurrence
    int32_t first_edge = kNone;
  };
  struct Edge {
    int32_t state = 0, token = 0;
    int32_t target = 0;
    int32_t next = kNone;      // of the same state
  };

  int32_t FindEdge(int32_t state, int32_t token) const;
  void AddEdge(int32_t state, int32_t token, int32_t target);
  size_t SlotOf(int32_t state, int32_t token) const;
  void Grow();

  std::vector<State> states_;
  std::vector<Edge> edges_;
  std::vector<int32_t> slots_;  // open addressing over edges_ by (state, token); a power of two, at most half full
  int32_t last_ = 0;            // the state of the whole text
};

}  // namespace dgrt
