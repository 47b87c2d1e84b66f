// Implementation of heap.h.
#include "text/jinja/values/heap.h"

#include <algorithm>

#include "text/jinja/limits.h"

namespace dgrt::jinja {
namespace {

// Of what contains the values that have been added.
class ExtentSum {
 public:
  void Add(const Value& value) {
    const Extent extent = ExtentOf(value);
    sum_.depth = std::max(sum_.depth, extent.depth + 1);
    sum_.weight += extent.weight;
    if (sum_.depth > kMaxValueDepth) NotSupported("values nested more than ", kMaxValueDepth, " levels deep");
    if (sum_.weight > kMaxSteps) NotSupported("a value of more than ", kMaxSteps, " elements");
  }
  Extent sum() const { return sum_; }

 private:
  Extent sum_{1, 1};
};

}  // namespace

void DictBuilder::Set(const Value& key, Value value) {
  const auto [place, is_new] = dict.places.try_emplace(key, dict.entries.size());
  if (is_new) {
    dict.entries.emplace_back(key, std::move(value));
  } else {
    dict.entries[place->second].second = std::move(value);
  }
}

void Heap::Spend(size_t steps) {
  steps_ += steps;
  if (steps_ > kMaxSteps) NotSupported("the rendering takes more than ", kMaxSteps, " steps");
}

void Heap::Grow(size_t num_bytes) {
  live_ += num_bytes;
  if (live_ > kMaxLiveBytes) NotSupported("the rendering needs more than ", kMaxLiveBytes, " bytes");
}

Value Heap::MakeString(std::string bytes, bool is_markup) {
  if (bytes.size() > kMaxTextBytes) NotSupported("a text of more than ", kMaxTextBytes, " bytes");
  Spend(1 + bytes.size() / kTextBytesPerStep);
  String text = std::make_shared<const Text>(std::move(bytes), is_markup, &live_);
  Grow(0);
  return text;
}

Value Heap::MakeSequence(std::vector<Value> items, SequenceKind kind) {
  Spend(1 + items.size());
  Grow(sizeof(Sequence) + items.size() * sizeof(Value));
  ExtentSum extent;
  for (const Value& item : items) extent.Add(item);
  sequences_.push_back({kind, std::move(items), extent.sum()});
  return static_cast<const Sequence*>(&sequences_.back());
}

Value Heap::MakePair(const Value& first, const Value& second) {
  return MakeSequence({first, second}, SequenceKind::kTuple);
}

Value Heap::MakeUndefined(std::string reason) {
  return Undefined{std::make_shared<const Text>(std::move(reason), false, &live_)};
}

Value Heap::MakeRange(std::vector<Value> items, std::string printed) {
  const Value range = MakeSequence(std::move(items), SequenceKind::kRange);
  sequences_.back().range = std::move(printed);
  return range;
}

Value Heap::MakeDict(DictBuilder builder) {
  constexpr size_t kEntryBytes = 4 * sizeof(Value) + 4 * sizeof(void*);
  Spend(1 + builder.dict.entries.size());
  Grow(sizeof(Dict) + builder.dict.entries.size() * kEntryBytes);
  ExtentSum extent;
  for (const auto& [key, value] : builder.dict.entries) {
    extent.Add(key);
    extent.Add(value);
  }
  builder.dict.extent = extent.sum();
  dicts_.push_back(std::move(builder.dict));
  return static_cast<const Dict*>(&dicts_.back());
}

}  // namespace dgrt::jinja
