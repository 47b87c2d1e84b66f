// The filters and tests that there are, by name, and the arguments that they and functions get.
#pragma once

#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/values/value.h"

namespace dgrt::jinja {

class Heap;

// What a call gives.
struct Arguments {
  std::vector<Value> positional{};
  std::vector<std::pair<std::string_view, Value>> named{};

  // The values of the parameters `names`, by position or by name; null for those that are not given, of which the first
  // `num_required` may be none. Throws as Python does for arguments that fit no parameter.
  std::vector<const Value*> Bind(std::string_view callee, std::initializer_list<std::string_view> names,
                                 size_t num_required = 0) const;
};

struct Filter {
  std::string_view name;
  Value (*apply)(Heap& heap, const Value& subject, const Arguments& arguments);
  bool takes_markup = false;  // whether it does the right thing with a text that is marked as safe
};

struct Test {
  std::string_view name;
  bool (*apply)(Heap& heap, const Value& subject, const Arguments& arguments);
};

Value Apply(Heap& heap, const Filter& filter, const Value& subject, const Arguments& arguments);

// Null if there is none.
const Filter* FindFilter(std::string_view name);
const Test* FindTest(std::string_view name);

}  // namespace dgrt::jinja
