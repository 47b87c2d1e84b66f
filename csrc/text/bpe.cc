// Merges with a queue of candidates, lowest rank first, then leftmost: the order in which Hugging Face merges.
#include "text/bpe.h"

#include <bit>
#include <cstdio>
#include <functional>
#include <queue>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/utf8.h"

namespace dgrt {
namespace {

uint64_t PairOf(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

int32_t FindMergeToken(const Vocabulary& vocabulary, std::string_view token, size_t rank) {
  const int32_t id = vocabulary.Find(token);
  if (id == Vocabulary::kNone) {
    throw ContractMismatch(Message("tokenizer.json: model.merges[", rank, "]: expected tokens of model.vocab, found '",
                                   token, "'"));
  }
  return id;
}

std::vector<int32_t> FindByteTokens(const Vocabulary& vocabulary) {
  std::vector<int32_t> ids;
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
    ids.push_back(vocabulary.Find(name));
  }
  return ids;
}

// Two neighbours that merge, as the rank of their merge and the position of the left one: sorted like that, they are in
// the order of merging. A candidate is stale if one of the two has merged with another symbol before its turn comes;
// then the pair at its place gives a longer token, so that its rank differs.
using Candidate = std::pair<int32_t, int32_t>;

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary, const StringList& merges, const BpeOptions& options)
    : vocabulary_(vocabulary), options_(options), byte_tokens_(FindByteTokens(vocabulary)) {
  const size_t count = merges.size() / 2;
  merges_.resize(std::bit_ceil(2 * count + 1));
  std::string merged;
  for (size_t rank = 0; rank < count; ++rank) {
    const std::string_view left = merges[2 * rank], right = merges[2 * rank + 1];
    merged.assign(left).append(right);
    const uint64_t pair = PairOf(FindMergeToken(vocabulary, left, rank), FindMergeToken(vocabulary, right, rank));
    // A pair that is listed twice has its last rank, as with Hugging Face.
    merges_[SlotOf(pair)] = {pair, static_cast<int32_t>(rank), FindMergeToken(vocabulary, merged, rank)};
  }
}

size_t Bpe::SlotOf(uint64_t pair) const {
  const size_t mask = merges_.size() - 1;
  size_t slot = (pair * 0x9E3779B97F4A7C15u >> 32) & mask;  // Fibonacci hashing: ids of a vocabulary are consecutive
  while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & mask;
  return slot;
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const Merge& merge = merges_[SlotOf(PairOf(left, right))];
  return merge.pair == kNoPair ? nullptr : &merge;
}

void Bpe::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (word.empty()) return;
  if (options_.ignore_merges) {
    if (const int32_t id = vocabulary_.Find(word); id != Vocabulary::kNone) {
      ids->push_back(id);
      return;
    }
  }
  const std::vector<int32_t> characters = Characters(word);
  const auto count = static_cast<int32_t>(characters.size());
  std::vector<Symbol> symbols;
  symbols.reserve(characters.size());
  for (int32_t i = 0; i < count; ++i) symbols.push_back({characters[static_cast<size_t>(i)], i - 1, i + 1});
  if (count > 0) symbols.back().next = -1;
  MergeAll(&symbols);
  for (const Symbol& symbol : symbols) {
    if (symbol.id != kMerged) ids->push_back(symbol.id);
  }
}

std::vector<int32_t> Bpe::Characters(std::string_view word) const {
  std::vector<int32_t> ids;
  ids.reserve(word.size());
  // An unknown token waits for the next known character and so stands behind byte tokens that come between. That is
  // Hugging Face's order, and it shows only in vocabularies that lack some byte tokens.
  bool unknown_waits = false;
  for (size_t i = 0; i < word.size();) {
    const std::string_view character = word.substr(i, utf8::CharacterSize(word.substr(i)));
    i += character.size();
    if (const int32_t id = vocabulary_.Find(character); id != Vocabulary::kNone) {
      if (unknown_waits) ids.push_back(options_.unk_id);
      unknown_waits = false;
      ids.push_back(id);
    } else if (!(options_.byte_fallback && AppendBytes(character, &ids)) && options_.unk_id != Vocabulary::kNone) {
      if (unknown_waits && !options_.fuse_unk) ids.push_back(options_.unk_id);
      unknown_waits = true;
    }
  }
  if (unknown_waits) ids.push_back(options_.unk_id);
  return ids;
}

bool Bpe::AppendBytes(std::string_view character, std::vector<int32_t>* ids) const {
  const size_t before = ids->size();
  for (const char byte : character) {
    const int32_t id = byte_tokens_[static_cast<unsigned char>(byte)];
    if (id == Vocabulary::kNone) {
      ids->resize(before);
      return false;
    }
    ids->push_back(id);
  }
  return true;
}

void Bpe::MergeAll(std::vector<Symbol>* symbols) const {
  const auto at = [&](int32_t position) -> Symbol& { return (*symbols)[static_cast<size_t>(position)]; };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int32_t left) {
    if (left < 0 || at(left).next < 0) return;
    const Merge* merge = FindMerge(at(left).id, at(at(left).next).id);
    if (merge != nullptr) queue.emplace(merge->rank, left);
  };
  for (int32_t i = 0; i < static_cast<int32_t>(symbols->size()); ++i) offer(i);
  while (!queue.empty()) {
    const auto [rank, position] = queue.top();
    queue.pop();
    Symbol& left = at(position);
    if (left.id == kMerged || left.next < 0) continue;
    Symbol& right = at(left.next);
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->rank != rank) continue;  // stale
    left.id = merge->id;
    left.next = right.next;
    right.id = kMerged;
    if (left.next >= 0) at(left.next).previous = position;
    offer(left.previous);
    offer(position);
  }
}

}  // namespace dgrt
