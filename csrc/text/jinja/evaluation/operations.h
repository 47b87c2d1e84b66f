// What the operators and brackets of an expression do, as in Python and Jinja's sandbox.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "text/jinja/values/heap.h"
#include "text/jinja/values/value.h"

namespace dgrt::jinja {

// operation: "+", "-", "*", "/", "//", "%", "**".
Value Calculate(Heap& heap, std::string_view operation, const Value& left, const Value& right);
Value Sign(std::string_view sign, const Value& value);
bool IsIn(Heap& heap, const Value& item, const Value& container);
// operation: "==", "!=", "<", "<=", ">", ">=", "in", "not in".
bool CompareBy(Heap& heap, std::string_view operation, const Value& left, const Value& right);

Value Attribute(Heap& heap, const Value& subject, const Value& name);  // subject.name
Value Item(Heap& heap, const Value& subject, const Value& key);        // subject[key]
// subject[begin:end:step]; none stands for what is not given.
Value Slice(Heap& heap, const Value& subject, const Value& begin, const Value& end, const Value& step);

Iterator* Iterate(Heap& heap, const Value& value);
std::vector<Value> Elements(Heap& heap, const Value& value);  // all that iterating yields
int64_t Length(const Value& value);

// "%s and %d" % value.
std::string FormatPercent(Heap& heap, std::string_view format, const Value& value);

[[noreturn]] void RefuseUndefined(const Value& value);
// An iterator that calls `next`; `source`: what it draws from, or null.
Iterator* MakeIterator(Heap& heap, const Iterator* source, std::function<bool(Value*)> next);

}  // namespace dgrt::jinja
