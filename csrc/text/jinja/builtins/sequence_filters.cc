// Filters of lists, dicts, texts as characters, and iterators.
#include <algorithm>
#include <memory>
#include <unordered_set>

#include "text/jinja/builtins/arguments.h"
#include "text/jinja/builtins/filters.h"
#include "text/jinja/limits.h"
#include "text/jinja/values/printing.h"
#include "text/jinja/values/text_operations.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja::filters {
namespace {

using Key = std::function<Value(const Value&)>;

Value Wrap(Iterator* iterator) { return static_cast<Object*>(iterator); }

// An attribute path: "a.b.0"; `otherwise` stands for what is not there, if it is given.
Key AttributeKey(Heap& heap, const Value& path, const Value* otherwise = nullptr) {
  std::vector<Value> parts;
  if (path.IsString()) {
    const std::string dot = ".";
    for (const std::string_view part : Split(path.text(), &dot, -1)) {
      const bool is_index = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
      const auto index = is_index ? ParseInteger(part, 10) : std::nullopt;
      parts.push_back(index ? Value(*index) : heap.MakeString(std::string(part)));
    }
  } else {
    parts.push_back(path);
  }
  const Value replacement = otherwise == nullptr ? Value() : *otherwise;
  return [&heap, parts, replacement](const Value& item) {
    Value value = item;
    for (const Value& part : parts) {
      value = Item(heap, value, part);
      if (value.IsUndefined() && !replacement.IsUndefined()) value = replacement;
    }
    return value;
  };
}

// Yields what `start` gives, which is called at the first use only: a filter that is never asked never fails.
Value Lazily(Heap& heap, const Value& subject, std::function<Iterator*()> start) {
  return Wrap(MakeIterator(heap, subject.AsObject<Iterator>(),
                           [start = std::move(start), source = static_cast<Iterator*>(nullptr)](Value* next) mutable {
                             if (source == nullptr) source = start();
                             return source->Next(next);
                           }));
}

// `make` gives the next element from those of `subject`; what is false has no elements, even if it is none.
Value LazilyFrom(Heap& heap, const Value& subject, std::function<bool(Iterator&, Value*)> make) {
  return Lazily(heap, subject, [&heap, subject, make = std::move(make)] {
    Iterator* source = Iterate(heap, IsTrue(subject) ? subject : Value());
    return MakeIterator(heap, nullptr, [source, make](Value* next) { return make(*source, next); });
  });
}

enum class Case { kKept, kFolded };

// What elements are compared by.
Key SortKey(Heap& heap, const Value* attribute, Case letters) {
  const bool has_attribute = attribute != nullptr && !attribute->IsNone();
  if (has_attribute && attribute->IsString() && attribute->text().find(',') != std::string::npos) {
    NotSupported("sorting by several attributes is not supported");
  }
  const Key inner = has_attribute ? AttributeKey(heap, *attribute) : Key([](const Value& item) { return item; });
  return [&heap, inner, letters](const Value& item) {
    Value value = inner(item);
    heap.SpendOn(value);
    const bool is_folded = letters == Case::kFolded && value.IsString() && !value.IsMarkup();
    return is_folded ? heap.MakeString(ToLower(value.text())) : value;
  };
}

Case CaseOf(const Value* case_sensitive) { return FlagArgument(case_sensitive, false) ? Case::kKept : Case::kFolded; }

void StableSort(Heap& heap, const Key& key, bool is_reversed, std::vector<Value>* items) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : *items) keyed.emplace_back(key(item), std::move(item));
  const auto is_before = [&](const Value& a, const Value& b) {
    heap.Spend(std::min(ExtentOf(a).weight, ExtentOf(b).weight));
    if (a.IsUndefined()) RefuseUndefined(a);
    if (b.IsUndefined()) RefuseUndefined(b);
    return Compare(a, b, "<") < 0;
  };
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return is_reversed ? is_before(b.first, a.first) : is_before(a.first, b.first);
  });
  for (size_t i = 0; i < keyed.size(); ++i) (*items)[i] = std::move(keyed[i].second);
}

Value Extreme(Heap& heap, const Value& subject, const Arguments& arguments, bool wants_least) {
  const auto given = arguments.Bind(wants_least ? "min" : "max", {"case_sensitive", "attribute"});
  const Key key = SortKey(heap, given[1], CaseOf(given[0]));
  Iterator* iterator = Iterate(heap, subject);
  Value best, next;
  if (!iterator->Next(&best)) return heap.MakeUndefined("no element: the sequence is empty");
  Value best_key = key(best);
  while (iterator->Next(&next)) {
    const Value next_key = key(next);
    if (!CompareBy(heap, wants_least ? "<" : ">", next_key, best_key)) continue;
    best = next;
    best_key = next_key;
  }
  return best;
}

// The elements whose test, applied to what `key` gives, has the wanted outcome. arguments[first] names the test.
Value Filtered(Heap& heap, const Value& subject, const Arguments& arguments, size_t first, Key key, bool wanted) {
  const auto& positional = arguments.positional;
  const Test* test = nullptr;
  Arguments rest{{}, arguments.named};
  if (positional.size() > first) {
    const std::string& name = TextArgument(&positional[first], "test");
    test = FindTest(name);
    if (test == nullptr) NotSupported("test \"", name, "\" is not supported");
    rest.positional.assign(positional.begin() + static_cast<std::ptrdiff_t>(first) + 1, positional.end());
  }
  return LazilyFrom(heap, subject, [&heap, test, rest, key = std::move(key), wanted](Iterator& source, Value* next) {
    while (source.Next(next)) {
      const Value value = key(*next);
      if ((test == nullptr ? IsTrue(value) : test->apply(heap, value, rest)) == wanted) return true;
    }
    return false;
  });
}

Value FilteredByAttribute(Heap& heap, const Value& subject, const Arguments& arguments, bool wanted) {
  if (arguments.positional.empty()) Refuse("expected the name of an attribute");
  return Filtered(heap, subject, arguments, 1, AttributeKey(heap, arguments.positional[0]), wanted);
}

Key SameValue() {
  return [](const Value& value) { return value; };
}

}  // namespace

Value LengthOf(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("length", {});
  if (subject.IsString()) heap.SpendOn(subject);
  return Length(subject);
}

Value Join(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("join", {"d", "attribute"});
  const std::string separator = given[0] == nullptr ? "" : ToText(*given[0]);
  const bool has_attribute = given[1] != nullptr && !given[1]->IsNone();
  const Key key = has_attribute ? AttributeKey(heap, *given[1]) : SameValue();
  std::string text;
  bool is_first = true;
  Iterator* iterator = Iterate(heap, subject);
  Value next;
  while (iterator->Next(&next)) {
    const Value value = key(next);
    heap.SpendOn(value);
    if (!is_first) text += separator;
    is_first = false;
    text += ToText(value);
    if (text.size() > kMaxTextBytes) NotSupported("a text of more than ", kMaxTextBytes, " bytes");
  }
  return heap.MakeString(std::move(text));
}

Value AsList(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("list", {});
  return heap.MakeSequence(Elements(heap, subject));
}

Value First(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("first", {});
  Value first;
  if (Iterate(heap, subject)->Next(&first)) return first;
  return heap.MakeUndefined("no first element: the sequence is empty");
}

Value Last(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("last", {});
  if (subject.AsObject<Iterator>()) Refuse("last: a generator cannot be read from its end; make a list of it");
  const auto elements = Elements(heap, subject);
  return elements.empty() ? heap.MakeUndefined("no last element: the sequence is empty") : elements.back();
}

Value Reverse(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("reverse", {});
  if (subject.IsString()) {
    const auto characters = Characters(subject.text());
    heap.Spend(characters.size());
    std::string text;
    for (auto it = characters.rbegin(); it != characters.rend(); ++it) text += *it;
    return heap.MakeString(std::move(text));
  }
  auto elements = Elements(heap, subject);
  std::reverse(elements.begin(), elements.end());
  // Python gives a list for what it cannot read from its end.
  if (subject.AsObject<Iterator>() || subject.IsUndefined()) return heap.MakeSequence(std::move(elements));
  const Value list = heap.MakeSequence(std::move(elements));
  return Wrap(Iterate(heap, list));
}

Value Sort(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("sort", {"reverse", "case_sensitive", "attribute"});
  auto elements = Elements(heap, subject);
  // Python compares lists of one key each, which asks first whether the keys are equal.
  const Key key = [&heap, inner = SortKey(heap, given[2], CaseOf(given[1]))](const Value& item) {
    return heap.MakeSequence({inner(item)});
  };
  StableSort(heap, key, FlagArgument(given[0], false), &elements);
  return heap.MakeSequence(std::move(elements));
}

Value Unique(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("unique", {"case_sensitive", "attribute"});
  const Key key = SortKey(heap, given[1], CaseOf(given[0]));
  return Lazily(heap, subject, [&heap, subject, key] {
    Iterator* source = Iterate(heap, subject);
    const auto seen = std::make_shared<std::unordered_set<Value, HashValue, EqualValues>>();
    return MakeIterator(heap, nullptr, [source, key, seen](Value* next) {
      while (source->Next(next)) {
        if (seen->insert(key(*next)).second) return true;
      }
      return false;
    });
  });
}

Value Sum(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("sum", {"attribute", "start"});
  const bool has_attribute = given[0] != nullptr && !given[0]->IsNone();
  const Key key = has_attribute ? AttributeKey(heap, *given[0]) : SameValue();
  Value sum = given[1] == nullptr ? Value(int64_t{0}) : *given[1];
  if (sum.IsString()) Refuse("sum: texts cannot be summed; join them");
  Iterator* iterator = Iterate(heap, subject);
  Value next;
  while (iterator->Next(&next)) sum = Calculate(heap, "+", sum, key(next));
  return sum;
}

Value Minimum(Heap& heap, const Value& subject, const Arguments& arguments) {
  return Extreme(heap, subject, arguments, true);
}

Value Maximum(Heap& heap, const Value& subject, const Arguments& arguments) {
  return Extreme(heap, subject, arguments, false);
}

Value Map(Heap& heap, const Value& subject, const Arguments& arguments) {
  Key change;
  if (arguments.positional.empty()) {
    const auto given = arguments.Bind("map", {"attribute", "default"});
    if (given[0] == nullptr) Refuse("map: expected the name of a filter or an attribute");
    const bool has_default = given[1] != nullptr && !given[1]->IsNone();
    change = AttributeKey(heap, *given[0], has_default ? given[1] : nullptr);
  } else {
    const std::string& name = TextArgument(&arguments.positional[0], "filter");
    const Filter* filter = FindFilter(name);
    if (filter == nullptr) NotSupported("filter \"", name, "\" is not supported");
    Arguments rest{std::vector<Value>(arguments.positional.begin() + 1, arguments.positional.end()), arguments.named};
    change = [&heap, filter, rest](const Value& value) { return Apply(heap, *filter, value, rest); };
  }
  return LazilyFrom(heap, subject, [change](Iterator& source, Value* next) {
    if (!source.Next(next)) return false;
    *next = change(*next);
    return true;
  });
}

Value Select(Heap& heap, const Value& subject, const Arguments& arguments) {
  return Filtered(heap, subject, arguments, 0, SameValue(), true);
}

Value Reject(Heap& heap, const Value& subject, const Arguments& arguments) {
  return Filtered(heap, subject, arguments, 0, SameValue(), false);
}

Value SelectByAttribute(Heap& heap, const Value& subject, const Arguments& arguments) {
  return FilteredByAttribute(heap, subject, arguments, true);
}

Value RejectByAttribute(Heap& heap, const Value& subject, const Arguments& arguments) {
  return FilteredByAttribute(heap, subject, arguments, false);
}

Value Items(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("items", {});
  return Lazily(heap, subject, [&heap, subject] {
    if (!subject.IsUndefined() && !subject.dict()) Refuse("items: expected a dict, found a ", TypeName(subject));
    std::vector<Value> pairs;
    if (subject.dict()) {
      for (const auto& [key, value] : subject.dict()->entries) pairs.push_back(heap.MakePair(key, value));
    }
    return Iterate(heap, heap.MakeSequence(std::move(pairs)));
  });
}

Value SortedItems(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("dictsort", {"case_sensitive", "by", "reverse"});
  if (subject.IsUndefined()) RefuseUndefined(subject);
  if (subject.dict() == nullptr) Refuse("dictsort: expected a dict, found a ", TypeName(subject));
  const std::string by = given[1] == nullptr ? "key" : TextArgument(given[1], "by");
  if (by != "key" && by != "value") Refuse("dictsort: expected by \"key\" or \"value\", found \"", by, "\"");
  const Value place = int64_t{by == "key" ? 0 : 1};
  std::vector<Value> pairs;
  for (const auto& [key, value] : subject.dict()->entries) pairs.push_back(heap.MakePair(key, value));
  StableSort(heap, SortKey(heap, &place, CaseOf(given[0])), FlagArgument(given[2], false), &pairs);
  return heap.MakeSequence(std::move(pairs));
}

Value Batch(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("batch", {"linecount", "fill_with"}, 1);
  const int64_t size = IntegerArgument(given[0], "linecount", 1);
  if (size < 1 || size > kMaxRange) NotSupported("batch: lines of ", size, " elements are not supported");
  const Value filler = given[1] == nullptr ? Value(None{}) : *given[1];
  return Lazily(heap, subject, [&heap, subject, size, filler] {
    std::vector<Value> lines, line;
    for (const Value& item : Elements(heap, subject)) {
      if (static_cast<int64_t>(line.size()) == size) lines.push_back(heap.MakeSequence(std::exchange(line, {})));
      line.push_back(item);
    }
    if (!line.empty()) {
      if (!filler.IsNone()) line.resize(static_cast<size_t>(size), filler);
      lines.push_back(heap.MakeSequence(std::move(line)));
    }
    return Iterate(heap, heap.MakeSequence(std::move(lines)));
  });
}

}  // namespace dgrt::jinja::filters
