// Values as text: Python's str and repr, and JSON as Python's json.dumps writes it.
#pragma once

#include <string>
#include <string_view>

#include "text/jinja/values/value.h"

namespace dgrt::jinja {

std::string ToText(const Value& value);  // str: what {{ }} prints; an undefined value is nothing
std::string Repr(const Value& value);    // as elements of lists print
std::string FormatFloat(double value);   // the shortest digits that mean the same number

struct JsonStyle {
  bool ascii_only = false;
  bool sorted_keys = false;
  bool is_indented = false;
  std::string indent{};  // of one level
  std::string_view item_separator = ", ";
  std::string_view key_separator = ": ";
};
std::string ToJson(const Value& value, const JsonStyle& style);

}  // namespace dgrt::jinja
