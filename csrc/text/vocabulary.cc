// Implementation of vocabulary.h.
#include "text/vocabulary.h"

#include <bit>
#include <functional>
#include <utility>

#include "common/check.h"

namespace dgrt {
namespace {
constexpr uint32_t kUnset = UINT32_MAX;
}  // namespace

Vocabulary::Vocabulary(StringList tokens, const std::vector<int64_t>& ids) : tokens_(std::move(tokens)) {
  constexpr char kWhere[] = "tokenizer.json: model.vocab: ";
  const size_t count = ids.size();
  DGRT_CHECK(count == tokens_.size());
  if (count > static_cast<size_t>(kMaxTokens)) {
    throw ContractMismatch(Message(kWhere, "expected at most ", kMaxTokens, " tokens, found ", count));
  }
  index_of_id_.assign(count, kUnset);
  slots_.assign(std::bit_ceil(2 * count + 1), kNone);
  for (size_t i = 0; i < count; ++i) {
    const std::string_view token = tokens_[i];
    if (ids[i] < 0 || ids[i] >= static_cast<int64_t>(count) || index_of_id_[static_cast<size_t>(ids[i])] != kUnset) {
      throw ContractMismatch(Message(kWhere, "expected ids 0 to ", count - 1, ", each once, found ", ids[i],
                                     " for '", token, "'"));
    }
    index_of_id_[static_cast<size_t>(ids[i])] = static_cast<uint32_t>(i);
    int32_t& slot = slots_[SlotOf(token)];
    if (slot != kNone) {
      throw ContractMismatch(Message(kWhere, "expected each token once, found '", token, "' twice"));
    }
    slot = static_cast<int32_t>(ids[i]);
  }
}

int32_t Vocabulary::Find(std::string_view token) const { return slots_[SlotOf(token)]; }

size_t Vocabulary::SlotOf(std::string_view token) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = std::hash<std::string_view>()(token) & mask;
  while (slots_[slot] != kNone && Token(slots_[slot]) != token) slot = (slot + 1) & mask;
  return slot;
}

}  // namespace dgrt
