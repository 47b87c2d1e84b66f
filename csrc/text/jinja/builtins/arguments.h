// Arguments of filters, tests, functions and methods as the types that they need.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/jinja/builtins/registry.h"
#include "text/jinja/evaluation/operations.h"
#include "text/jinja/values/heap.h"

namespace dgrt::jinja {

// `value`: from Arguments::Bind. `name` is for errors.
inline const std::string& TextArgument(const Value* value, std::string_view name) {
  if (value->IsUndefined()) RefuseUndefined(*value);
  if (!value->IsString()) Refuse("argument \"", name, "\": expected a text, found a ", TypeName(*value));
  return value->text();
}

// Null if it is not given or none.
inline const std::string* OptionalText(const Value* value, std::string_view name) {
  return value == nullptr || value->IsNone() ? nullptr : &TextArgument(value, name);
}

inline int64_t IntegerArgument(const Value* value, std::string_view name, int64_t otherwise) {
  if (value == nullptr) return otherwise;
  if (value->IsUndefined()) RefuseUndefined(*value);
  const auto integer = AsInteger(*value);
  if (!integer) Refuse("argument \"", name, "\": expected an integer, found a ", TypeName(*value));
  return *integer;
}

inline bool FlagArgument(const Value* value, bool otherwise) { return value == nullptr ? otherwise : IsTrue(*value); }

}  // namespace dgrt::jinja
