// The functions behind the table of filters in registry.cc.
#pragma once

#include "text/jinja/builtins/registry.h"
#include "text/jinja/values/heap.h"

namespace dgrt::jinja::filters {

// text_filters.cc: of single values
Value Trim(Heap& heap, const Value& subject, const Arguments& arguments);
Value Upper(Heap& heap, const Value& subject, const Arguments& arguments);
Value Lower(Heap& heap, const Value& subject, const Arguments& arguments);
Value Capital(Heap& heap, const Value& subject, const Arguments& arguments);
Value Title(Heap& heap, const Value& subject, const Arguments& arguments);
Value ReplaceIn(Heap& heap, const Value& subject, const Arguments& arguments);
Value Indent(Heap& heap, const Value& subject, const Arguments& arguments);
Value AsText(Heap& heap, const Value& subject, const Arguments& arguments);
Value AsInt(Heap& heap, const Value& subject, const Arguments& arguments);
Value AsFloat(Heap& heap, const Value& subject, const Arguments& arguments);
Value AsJson(Heap& heap, const Value& subject, const Arguments& arguments);
Value Round(Heap& heap, const Value& subject, const Arguments& arguments);
Value Absolute(Heap& heap, const Value& subject, const Arguments& arguments);
Value Default(Heap& heap, const Value& subject, const Arguments& arguments);
Value EscapeText(Heap& heap, const Value& subject, const Arguments& arguments);
Value MarkSafe(Heap& heap, const Value& subject, const Arguments& arguments);
Value Format(Heap& heap, const Value& subject, const Arguments& arguments);

// sequence_filters.cc: of lists and the like
Value LengthOf(Heap& heap, const Value& subject, const Arguments& arguments);
Value Join(Heap& heap, const Value& subject, const Arguments& arguments);
Value AsList(Heap& heap, const Value& subject, const Arguments& arguments);
Value First(Heap& heap, const Value& subject, const Arguments& arguments);
Value Last(Heap& heap, const Value& subject, const Arguments& arguments);
Value Reverse(Heap& heap, const Value& subject, const Arguments& arguments);
Value Sort(Heap& heap, const Value& subject, const Arguments& arguments);
Value Unique(Heap& heap, const Value& subject, const Arguments& arguments);
Value Sum(Heap& heap, const Value& subject, const Arguments& arguments);
Value Minimum(Heap& heap, const Value& subject, const Arguments& arguments);
Value Maximum(Heap& heap, const Value& subject, const Arguments& arguments);
Value Map(Heap& heap, const Value& subject, const Arguments& arguments);
Value Select(Heap& heap, const Value& subject, const Arguments& arguments);
Value Reject(Heap& heap, const Value& subject, const Arguments& arguments);
Value SelectByAttribute(Heap& heap, const Value& subject, const Arguments& arguments);
Value RejectByAttribute(Heap& heap, const Value& subject, const Arguments& arguments);
Value Items(Heap& heap, const Value& subject, const Arguments& arguments);
Value SortedItems(Heap& heap, const Value& subject, const Arguments& arguments);
Value Batch(Heap& heap, const Value& subject, const Arguments& arguments);

}  // namespace dgrt::jinja::filters
