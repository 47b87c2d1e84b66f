// Implementation of operations.h: iteration, access and membership. calculation.cc has the arithmetic.
#include "text/jinja/evaluation/operations.h"

#include <algorithm>
#include <limits>

#include "text/jinja/builtins/methods.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja {
namespace {

class FunctionIterator : public Iterator {
 public:
  FunctionIterator(Heap& heap, const Iterator* source, std::function<bool(Value*)> next)
      : Iterator(source), heap_(heap), next_(std::move(next)) {}

  bool Next(Value* value) override {
    heap_.Spend(1);
    return next_(value);
  }

 private:
  Heap& heap_;
  std::function<bool(Value*)> next_;
};

bool IsList(const Sequence& sequence) { return sequence.kind < SequenceKind::kKeys; }

// What Python's getattr finds.
std::optional<Value> OwnAttribute(Heap& heap, const Value& subject, std::string_view name) {
  if (name.size() > 4 && name.starts_with("__") && name.ends_with("__")) {
    NotSupported("attribute \"", name, "\" is not supported");
  }
  if (auto* space = subject.AsObject<Namespace>()) {
    const Value* found = space->Find(name);
    return found == nullptr ? std::nullopt : std::optional(*found);
  }
  if (auto* object = subject.AsObject<HasAttributes>()) return object->Attribute(heap, name);
  if (subject.AsObject<Callable>()) NotSupported("attributes of a ", TypeName(subject), " are not supported");
  return FindMethod(heap, subject, name);
}

Value Missing(Heap& heap, const Value& subject, const Value& key) {
  std::string name = key.IsString() ? Message("'", key.text(), "'") : std::string(TypeName(key));
  if (const auto* index = key.As<int64_t>()) name = std::to_string(*index);
  return heap.MakeUndefined(Message("a ", TypeName(subject), " has no element or attribute ", name));
}

std::optional<Value> FindItem(Heap& heap, const Value& subject, const Value& key) {
  if (const Dict* dict = subject.dict()) {
    if (!HasHash(key)) return std::nullopt;
    const Value* found = dict->Find(key);
    return found == nullptr ? std::nullopt : std::optional(*found);
  }
  auto index = AsInteger(key);
  if (!index) return std::nullopt;
  const Sequence* sequence = subject.sequence();
  if (!subject.IsString() && (sequence == nullptr || !IsList(*sequence))) return std::nullopt;
  const int64_t length = Length(subject);
  if (*index < 0) *index += length;
  if (*index < 0 || *index >= length) return std::nullopt;
  if (sequence != nullptr) return sequence->items[static_cast<size_t>(*index)];
  return Slice(heap, subject, *index, *index + 1, None{});
}

// The elements of a slice as Python's slice.indices says: first, step and how many.
struct Indices {
  int64_t first, step, count;
};
Indices IndicesOf(const Value& begin, const Value& end, const Value& step, int64_t length) {
  const auto part = [](const Value& value) -> std::optional<int64_t> {
    if (value.IsNone()) return std::nullopt;
    if (!AsInteger(value)) Refuse("a slice needs integers or none, found a ", TypeName(value));
    return AsInteger(value);
  };
  constexpr int64_t kFar = std::numeric_limits<int64_t>::max() / 4;
  const int64_t stride = std::clamp(part(step).value_or(1), -kFar, kFar);
  if (stride == 0) Refuse("a slice with step 0");
  const int64_t lowest = stride > 0 ? 0 : -1, highest = stride > 0 ? length : length - 1;
  const auto place = [&](const Value& value, int64_t otherwise) {
    const auto given = part(value);
    if (!given) return otherwise;
    return std::clamp(*given < 0 ? *given + length : *given, lowest, highest);
  };
  const int64_t first = place(begin, stride > 0 ? lowest : highest);
  const int64_t last = place(end, stride > 0 ? highest : lowest);
  const int64_t distance = stride > 0 ? last - first : first - last;
  const int64_t size = stride > 0 ? stride : -stride;
  return {first, stride, distance <= 0 ? 0 : (distance - 1) / size + 1};
}

bool IsInText(Heap& heap, const Value& item, const Value& container) {
  if (!item.IsString()) Refuse("\"in\" a text needs a text, found a ", TypeName(item));
  heap.SpendOn(container);
  return container.text().find(item.text()) != std::string::npos;
}

}  // namespace

Iterator* MakeIterator(Heap& heap, const Iterator* source, std::function<bool(Value*)> next) {
  return heap.MakeObject<FunctionIterator>(heap, source, std::move(next));
}

void RefuseUndefined(const Value& value) {
  const String& reason = value.As<Undefined>()->reason;
  Refuse(reason == nullptr ? "the value is undefined" : reason->bytes());
}

int64_t Length(const Value& value) {
  if (value.IsUndefined()) return 0;
  if (value.IsString()) return static_cast<int64_t>(CountCharacters(value.text()));
  if (value.sequence()) return static_cast<int64_t>(value.sequence()->items.size());
  if (value.dict()) return static_cast<int64_t>(value.dict()->entries.size());
  Refuse("a ", TypeName(value), " has no length");
}

Iterator* Iterate(Heap& heap, const Value& value) {
  if (auto* iterator = value.AsObject<Iterator>()) return iterator;
  if (value.IsUndefined()) return MakeIterator(heap, nullptr, [](Value*) { return false; });
  if (const Sequence* sequence = value.sequence()) {
    return MakeIterator(heap, nullptr, [sequence, i = size_t{0}](Value* next) mutable {
      if (i == sequence->items.size()) return false;
      *next = sequence->items[i++];
      return true;
    });
  }
  if (const Dict* dict = value.dict()) {
    return MakeIterator(heap, nullptr, [dict, i = size_t{0}](Value* next) mutable {
      if (i == dict->entries.size()) return false;
      *next = dict->entries[i++].first;
      return true;
    });
  }
  if (!value.IsString()) Refuse("a ", TypeName(value), " cannot be iterated over");
  return MakeIterator(heap, nullptr, [&heap, text = *value.As<String>(), at = size_t{0}](Value* next) mutable {
    if (at == text->bytes().size()) return false;
    const size_t size = BytesOfCharacters(std::string_view(text->bytes()).substr(at), 1);
    *next = heap.MakeString(text->bytes().substr(at, size), text->is_markup());
    at += size;
    return true;
  });
}

std::vector<Value> Elements(Heap& heap, const Value& value) {
  if (value.sequence()) {
    heap.Spend(value.sequence()->items.size());
    return value.sequence()->items;
  }
  std::vector<Value> elements;
  Iterator* iterator = Iterate(heap, value);
  Value next;
  while (iterator->Next(&next)) elements.push_back(next);
  return elements;
}

bool IsIn(Heap& heap, const Value& item, const Value& container) {
  if (container.IsString()) return IsInText(heap, item, container);
  if (const Dict* dict = container.dict()) return dict->Find(item) != nullptr;
  heap.SpendOn(container);
  if (const Sequence* sequence = container.sequence()) {
    return std::any_of(sequence->items.begin(), sequence->items.end(),
                       [&](const Value& other) { return Equals(item, other); });
  }
  Iterator* iterator = Iterate(heap, container);
  Value next;
  while (iterator->Next(&next)) {
    heap.SpendOn(next);
    if (Equals(item, next)) return true;
  }
  return false;
}

bool CompareBy(Heap& heap, std::string_view operation, const Value& left, const Value& right) {
  if (operation == "in") return IsIn(heap, left, right);
  if (operation == "not in") return !IsIn(heap, left, right);
  heap.Spend(std::min(ExtentOf(left).weight, ExtentOf(right).weight));
  if (operation == "==") return Equals(left, right);
  if (operation == "!=") return !Equals(left, right);
  if (left.IsUndefined()) RefuseUndefined(left);
  if (right.IsUndefined()) RefuseUndefined(right);
  const int order = Compare(left, right, operation);
  if (operation == "<") return order < 0;
  if (operation == "<=") return order <= 0;
  return operation == ">" ? order > 0 : order >= 0;
}

Value Attribute(Heap& heap, const Value& subject, const Value& name) {
  if (subject.IsUndefined()) RefuseUndefined(subject);
  if (const auto own = OwnAttribute(heap, subject, name.text())) return *own;
  const auto item = FindItem(heap, subject, name);
  return item ? *item : Missing(heap, subject, name);
}

Value Item(Heap& heap, const Value& subject, const Value& key) {
  if (subject.IsUndefined()) RefuseUndefined(subject);
  if (const auto item = FindItem(heap, subject, key)) return *item;
  if (key.IsString()) {
    if (const auto own = OwnAttribute(heap, subject, key.text())) return *own;
  }
  return Missing(heap, subject, key);
}

Value Slice(Heap& heap, const Value& subject, const Value& begin, const Value& end, const Value& step) {
  if (subject.IsUndefined()) RefuseUndefined(subject);
  const Sequence* sequence = subject.sequence();
  if (sequence && sequence->kind == SequenceKind::kRange) NotSupported("slices of a range are not supported; list it");
  if (!subject.IsString() && !(sequence && IsList(*sequence))) Refuse("a ", TypeName(subject), " has no slices");
  const Indices indices = IndicesOf(begin, end, step, Length(subject));
  if (sequence != nullptr) {
    std::vector<Value> items;
    for (int64_t i = 0; i < indices.count; ++i) {
      items.push_back(sequence->items[static_cast<size_t>(indices.first + i * indices.step)]);
    }
    return heap.MakeSequence(std::move(items), sequence->kind);
  }
  const std::string_view text = subject.text();
  if (indices.step == 1) {
    const size_t from = BytesOfCharacters(text, static_cast<size_t>(indices.first));
    const size_t size = BytesOfCharacters(text.substr(from), static_cast<size_t>(indices.count));
    heap.SpendOn(subject);
    return heap.MakeString(std::string(text.substr(from, size)), subject.IsMarkup());
  }
  const auto characters = Characters(text);
  heap.Spend(characters.size());
  std::string picked;
  for (int64_t i = 0; i < indices.count; ++i) {
    picked.append(characters[static_cast<size_t>(indices.first + i * indices.step)]);
  }
  return heap.MakeString(std::move(picked), subject.IsMarkup());
}

}  // namespace dgrt::jinja
