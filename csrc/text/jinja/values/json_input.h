// JSON of a conversation to values: objects keep the order of their keys, as Python does.
#pragma once

#include <string_view>

#include "text/jinja/values/heap.h"

namespace dgrt::jinja {

// Throws a Failure that says where the text stops being JSON.
Value ParseInput(Heap& heap, std::string_view json);

}  // namespace dgrt::jinja
