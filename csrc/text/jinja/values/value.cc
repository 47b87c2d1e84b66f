// Implementation of value.h.
#include "text/jinja/values/value.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "text/jinja/limits.h"

namespace dgrt::jinja {
namespace {

int Sign(auto a, auto b) { return a < b ? -1 : a > b ? 1 : 0; }

// Exact: a long double holds every int64 and every double.
int CompareNumbers(const Number& a, const Number& b) {
  if (!a.is_float && !b.is_float) return Sign(a.integer, b.integer);
  const auto wide = [](const Number& n) {
    return n.is_float ? static_cast<long double>(n.real) : static_cast<long double>(n.integer);
  };
  return Sign(wide(a), wide(b));
}

bool IsView(const Sequence& sequence) { return sequence.kind >= SequenceKind::kKeys; }

bool EqualSequences(const Sequence& a, const Sequence& b) {
  if (&a == &b) return true;
  if (IsView(a) && IsView(b)) NotSupported("comparing views of dicts is not supported; make lists of them");
  if (a.kind != b.kind || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!Equals(a.items[i], b.items[i])) return false;
  }
  return true;
}

bool EqualDicts(const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.Find(key);
    if (other == nullptr || !Equals(value, *other)) return false;
  }
  return true;
}

}  // namespace

std::optional<Number> AsNumber(const Value& value) {
  if (const auto* flag = value.As<bool>()) return Number{false, *flag ? 1 : 0, 0};
  if (const auto* integer = value.As<int64_t>()) return Number{false, *integer, 0};
  if (const auto* real = value.As<double>()) return Number{true, 0, *real};
  return std::nullopt;
}

std::optional<int64_t> AsInteger(const Value& value) {
  const auto number = AsNumber(value);
  return number && !number->is_float ? std::optional(number->integer) : std::nullopt;
}

bool HasHash(const Value& value) {
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr) return value.dict() == nullptr;
  if (sequence->kind != SequenceKind::kTuple) return sequence->kind == SequenceKind::kRange;
  return std::all_of(sequence->items.begin(), sequence->items.end(), HasHash);
}

size_t HashValue::operator()(const Value& value) const {
  if (const auto number = AsNumber(value)) {
    // Equal numbers of different types need equal hashes.
    const double real = number->is_float ? number->real : static_cast<double>(number->integer);
    return std::hash<double>()(real);
  }
  if (value.IsString()) return std::hash<std::string>()(value.text());
  if (value.IsNone()) return 1;
  if (value.IsUndefined()) return 2;
  if (const auto* object = value.As<Object*>()) return std::hash<Object*>()(*object);
  const Sequence* sequence = value.sequence();
  if (!HasHash(value)) {
    Refuse("a ", TypeName(value), " cannot be a key or an element of a set");
  }
  size_t hash = 3;
  for (const Value& item : sequence->items) hash = hash * 1'000'003 ^ (*this)(item);
  return hash;
}

bool EqualValues::operator()(const Value& a, const Value& b) const { return Equals(a, b); }

const Value* Dict::Find(const Value& key) const {
  const auto found = places.find(key);
  return found == places.end() ? nullptr : &entries[found->second].second;
}

Iterator::Iterator(const Iterator* source) : depth_(source == nullptr ? 1 : source->depth_ + 1) {
  if (depth_ > kMaxValueDepth) NotSupported("more than ", kMaxValueDepth, " filters that draw from one another");
}

const Value* Namespace::Find(std::string_view name) const {
  for (const auto& [key, value] : attributes_) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::Set(std::string_view name, Value value) {
  if (name.starts_with('_')) Refuse("a namespace takes no attribute that begins with \"_\", found \"", name, "\"");
  for (auto& [key, old] : attributes_) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  attributes_.emplace_back(name, std::move(value));
}

std::string_view TypeName(const Value& value) {
  if (value.IsUndefined()) return "undefined value";
  if (value.IsNone()) return "None";
  if (value.As<bool>()) return "bool";
  if (value.As<int64_t>()) return "int";
  if (value.As<double>()) return "float";
  if (value.IsString()) return "str";
  if (value.dict()) return "dict";
  if (const Sequence* sequence = value.sequence()) {
    constexpr std::string_view kNames[] = {"list", "tuple", "range", "dict_keys", "dict_values", "dict_items"};
    return kNames[static_cast<int>(sequence->kind)];
  }
  return (*value.As<Object*>())->type_name();
}

bool IsTrue(const Value& value) {
  if (value.IsUndefined() || value.IsNone()) return false;
  if (const auto number = AsNumber(value)) return number->is_float ? number->real != 0 : number->integer != 0;
  if (value.IsString()) return !value.text().empty();
  if (const Sequence* sequence = value.sequence()) return !sequence->items.empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  return true;
}

bool Equals(const Value& a, const Value& b) {
  const auto left = AsNumber(a), right = AsNumber(b);
  if (left && right) return CompareNumbers(*left, *right) == 0 && !std::isnan(left->real) && !std::isnan(right->real);
  if (a.IsString() && b.IsString()) return a.text() == b.text();
  if (a.IsNone() || a.IsUndefined()) return (a.IsNone() && b.IsNone()) || (a.IsUndefined() && b.IsUndefined());
  if (a.sequence() && b.sequence()) return EqualSequences(*a.sequence(), *b.sequence());
  if (a.dict() && b.dict()) return EqualDicts(*a.dict(), *b.dict());
  return a.As<Object*>() && b.As<Object*>() && *a.As<Object*>() == *b.As<Object*>();
}

int Compare(const Value& a, const Value& b, std::string_view operation) {
  const auto left = AsNumber(a), right = AsNumber(b);
  if (left && right) {
    if (std::isnan(left->real) || std::isnan(right->real)) NotSupported("the order of \"not a number\"");
    return CompareNumbers(*left, *right);
  }
  if (a.IsString() && b.IsString()) return Sign(a.text(), b.text());
  const Sequence *first = a.sequence(), *second = b.sequence();
  const bool has_order = first && second && first->kind == second->kind &&
                         (first->kind == SequenceKind::kList || first->kind == SequenceKind::kTuple);
  if (!has_order) Refuse("\"", operation, "\" is not defined between ", TypeName(a), " and ", TypeName(b));
  const size_t common = std::min(first->items.size(), second->items.size());
  for (size_t i = 0; i < common; ++i) {
    if (!Equals(first->items[i], second->items[i])) return Compare(first->items[i], second->items[i], operation);
  }
  return Sign(first->items.size(), second->items.size());
}

Extent ExtentOf(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->extent;
  if (const Dict* dict = value.dict()) return dict->extent;
  return {0, value.IsString() ? 1 + value.text().size() / kTextBytesPerStep : 1};
}

}  // namespace dgrt::jinja
