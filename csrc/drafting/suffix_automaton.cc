// Implementation of suffix_automaton.h. All edges lie in one array with one hash table over it: a map per state would
// cost an allocation for each, and most states have one edge.
#include "drafting/suffix_automaton.h"

namespace dgrt {
namespace {

constexpr size_t kFirstSlots = 1024;

uint64_t Mix(uint64_t x) {  // the finaliser of SplitMix64
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

SuffixAutomaton::SuffixAutomaton() : states_(1), slots_(kFirstSlots, kNone) {}

size_t SuffixAutomaton::SlotOf(int32_t state, int32_t token) const {
  const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(state)) << 32 | static_cast<uint32_t>(token);
  const size_t mask = slots_.size() - 1;
  size_t slot = Mix(key) & mask;
  while (slots_[slot] != kNone) {
    const Edge& edge = edges_[static_cast<size_t>(slots_[slot])];
    if (edge.state == state && edge.token == token) break;
    slot = (slot + 1) & mask;
  }
  return slot;
}

int32_t SuffixAutomaton::FindEdge(int32_t state, int32_t token) const { return slots_[SlotOf(state, token)]; }

void SuffixAutomaton::AddEdge(int32_t state, int32_t token, int32_t target) {
  if (2 * (edges_.size() + 1) > slots_.size()) Grow();
  State& from = states_[static_cast<size_t>(state)];
  edges_.push_back({state, token, target, from.first_edge});
  const int32_t edge = static_cast<int32_t>(edges_.size()) - 1;
  slots_[SlotOf(state, token)] = edge;
  from.first_edge = edge;
}

void SuffixAutomaton::Grow() {
  slots_.assign(2 * slots_.size(), kNone);
  for (size_t i = 0; i < edges_.size(); ++i) slots_[SlotOf(edges_[i].state, edges_[i].token)] = static_cast<int32_t>(i);
}

void SuffixAutomaton::Extend(int32_t token) {
  const int32_t length = states_[static_cast<size_t>(last_)].length + 1;
  const int32_t whole = static_cast<int32_t>(states_.size());
  states_.push_back({length, 0, length, kNone});

  int32_t state = last_;
  int32_t edge = kNone;
  while (state != kNone && (edge = FindEdge(state, token)) == kNone) {
    AddEdge(state, token, whole);
    state = states_[static_cast<size_t>(state)].link;
  }
  last_ = whole;
  if (state == kNone) return;  // the token is new: nothing of it occurred before

  const int32_t next = edges_[static_cast<size_t>(edge)].target;
  if (states_[static_cast<size_t>(next)].length == states_[static_cast<size_t>(state)].length + 1) {
    states_[static_cast<size_t>(whole)].link = next;
    return;
  }
  // `next` also holds longer strings, which do not end here: the shorter ones become a state of their own.
  const int32_t clone = static_cast<int32_t>(states_.size());
  State copy = states_[static_cast<size_t>(next)];
  copy.length = states_[static_cast<size_t>(state)].length + 1;
  copy.first_edge = kNone;
  states_.push_back(copy);
  for (int32_t e = states_[static_cast<size_t>(next)].first_edge; e != kNone; e = edges_[static_cast<size_t>(e)].next) {
    AddEdge(clone, edges_[static_cast<size_t>(e)].token, edges_[static_cast<size_t>(e)].target);
  }
  while (state != kNone && (edge = FindEdge(state, token)) != kNone && edges_[static_cast<size_t>(edge)].target == next) {
    edges_[static_cast<size_t>(edge)].target = clone;
    state = states_[static_cast<size_t>(state)].link;
  }
  states_[static_cast<size_t>(next)].link = clone;
  states_[static_cast<size_t>(whole)].link = clone;
}

SuffixAutomaton::Match SuffixAutomaton::LongestEarlierSuffix() const {
  const int32_t link = states_[static_cast<size_t>(last_)].link;
  if (link <= 0) return {};  // no text, or only the empty suffix
  const State& state = states_[static_cast<size_t>(link)];
  return {state.length, state.first_end};
}

}  // namespace dgrt
