// Implementation of vocabulary.h.
#include "text/vocabulary.h"

#include <bit>
#include <functional>

#include "common/check.h"

namespace dgrt {

Vocabulary::Vocabulary(const StringList& tokens, const std::vector<int64_t>& ids) {
  constexpr char kWhere[] = "tokenizer.json: model.vocab: ";
  constexpr size_t kUnset = SIZE_MAX;
  const size_t count = ids.size();
  DGRT_CHECK(count == tokens.size());
  if (count > static_cast<size_t>(kMaxTokens)) {
    throw ContractMismatch(Message(kWhere, "expected at most ", kMaxTokens, " tokens, found ", count));
  }
  std::vector<size_t> index_of_id(count, kUnset);
  for (size_t i = 0; i < count; ++i) {
    if (ids[i] < 0 || ids[i] >= static_cast<int64_t>(count) || index_of_id[static_cast<size_t>(ids[i])] != kUnset) {
      throw ContractMismatch(Message(kWhere, "expected ids 0 to ", count - 1, ", each once, found ", ids[i], " for '",
                                     tokens[i], "'"));
    }
    index_of_id[static_cast<size_t>(ids[i])] = i;
  }
  slots_.resize(std::bit_ceil(2 * count + 1));
  for (size_t id = 0; id < count; ++id) {
    const std::string_view token = tokens[index_of_id[id]];
    const uint64_t hash = Hash(token);
    Slot& slot = slots_[SlotOf(token, hash)];
    if (slot.id != kNone) {
      throw ContractMismatch(Message(kWhere, "expected each token once, found '", token, "' twice"));
    }
    slot = {static_cast<uint32_t>(hash), static_cast<int32_t>(id)};
    tokens_.Add(token);
  }
}

int32_t Vocabulary::Find(std::string_view token) const { return slots_[SlotOf(token, Hash(token))].id; }

uint64_t Vocabulary::Hash(std::string_view token) { return std::hash<std::string_view>()(token); }

size_t Vocabulary::SlotOf(std::string_view token, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = (hash >> 32) & mask;  // the other half of the hash is in the slot
  const auto holds_another = [&](const Slot& found) {
    return found.id != kNone && (found.hash != static_cast<uint32_t>(hash) || Token(found.id) != token);
  };
  while (holds_another(slots_[slot])) slot = (slot + 1) & mask;
  return slot;
}

}  // namespace dgrt
