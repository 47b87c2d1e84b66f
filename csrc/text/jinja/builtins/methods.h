// Methods of texts, dicts, lists and tuples.
#pragma once

#include <optional>
#include <string_view>

#include "text/jinja/values/heap.h"
#include "text/jinja/values/value.h"

namespace dgrt::jinja {

// The method `name` of a value, bound to it; an undefined value for one that the sandbox forbids; nothing if Python has
// none of that name. Throws for one that Python has and this renderer lacks.
std::optional<Value> FindMethod(Heap& heap, const Value& subject, std::string_view name);

// text.format(...), as far as it is supported.
std::string FormatBraces(std::string_view format, const Arguments& arguments);

}  // namespace dgrt::jinja
