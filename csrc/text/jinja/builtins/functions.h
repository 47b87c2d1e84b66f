// The functions that every template has: range, namespace, dict, raise_exception, strftime_now.
#pragma once

#include <optional>
#include <string_view>

#include "text/jinja/values/value.h"

namespace dgrt::jinja {

std::optional<Value> FindFunction(std::string_view name);

}  // namespace dgrt::jinja
