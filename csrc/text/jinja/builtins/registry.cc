// Implementation of registry.h; tests.cc has the table of tests.
#include "text/jinja/builtins/registry.h"

#include <algorithm>

#include "text/jinja/builtins/filters.h"
#include "text/jinja/values/heap.h"

namespace dgrt::jinja {
namespace {

constexpr Filter kFilters[] = {
    {"abs", filters::Absolute},
    {"batch", filters::Batch},
    {"capitalize", filters::Capital},
    {"count", filters::LengthOf, true},
    {"d", filters::Default, true},
    {"default", filters::Default, true},
    {"dictsort", filters::SortedItems},
    {"e", filters::EscapeText, true},
    {"escape", filters::EscapeText, true},
    {"first", filters::First},
    {"float", filters::AsFloat, true},
    {"format", filters::Format},
    {"indent", filters::Indent},
    {"int", filters::AsInt, true},
    {"items", filters::Items},
    {"join", filters::Join},
    {"last", filters::Last},
    {"length", filters::LengthOf, true},
    {"list", filters::AsList},
    {"lower", filters::Lower},
    {"map", filters::Map},
    {"max", filters::Maximum},
    {"min", filters::Minimum},
    {"reject", filters::Reject},
    {"rejectattr", filters::RejectByAttribute},
    {"replace", filters::ReplaceIn},
    {"reverse", filters::Reverse},
    {"round", filters::Round},
    {"safe", filters::MarkSafe, true},
    {"select", filters::Select},
    {"selectattr", filters::SelectByAttribute},
    {"sort", filters::Sort},
    {"string", filters::AsText, true},
    {"sum", filters::Sum},
    {"title", filters::Title},
    {"tojson", filters::AsJson, true},
    {"trim", filters::Trim},
    {"unique", filters::Unique},
    {"upper", filters::Upper},
};

}  // namespace

const Filter* FindFilter(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                   [&](const Filter& filter) { return filter.name == name; });
  return found == std::end(kFilters) ? nullptr : found;
}

Value Apply(Heap& heap, const Filter& filter, const Value& subject, const Arguments& arguments) {
  if (subject.IsMarkup() && !filter.takes_markup) {
    NotSupported("filter \"", filter.name, "\" of a text that is marked as safe is not supported");
  }
  heap.Spend(1);
  return filter.apply(heap, subject, arguments);
}

std::vector<const Value*> Arguments::Bind(std::string_view callee, std::initializer_list<std::string_view> names,
                                          size_t num_required) const {
  if (positional.size() > names.size()) {
    Refuse(callee, ": expected at most ", names.size(), " arguments, found ", positional.size());
  }
  std::vector<const Value*> given(names.size(), nullptr);
  for (size_t i = 0; i < positional.size(); ++i) given[i] = &positional[i];
  for (const auto& [name, value] : named) {
    const auto place = std::find(names.begin(), names.end(), name);
    if (place == names.end()) Refuse(callee, ": there is no argument \"", name, "\"");
    const Value*& slot = given[static_cast<size_t>(place - names.begin())];
    if (slot != nullptr) Refuse(callee, ": argument \"", name, "\" is given twice");
    slot = &value;
  }
  for (size_t i = 0; i < num_required; ++i) {
    if (given[i] == nullptr) Refuse(callee, ": argument \"", names.begin()[i], "\" is missing");
  }
  return given;
}

}  // namespace dgrt::jinja
