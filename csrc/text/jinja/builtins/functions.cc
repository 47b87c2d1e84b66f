// Implementation of functions.h.
#include "text/jinja/builtins/functions.h"

#include <locale.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "common/utf8.h"
#include "text/jinja/builtins/arguments.h"
#include "text/jinja/limits.h"
#include "text/jinja/values/printing.h"

namespace dgrt::jinja {
namespace {

class Function : public Callable {
 public:
  using Apply = Value (*)(Heap&, const Arguments&);
  Function(std::string_view name, Apply apply) : name_(name), apply_(apply) {}
  std::string_view type_name() const override { return "function"; }
  std::string_view name() const { return name_; }
  Value Call(Heap& heap, const Arguments& arguments) override { return apply_(heap, arguments); }

 private:
  std::string_view name_;
  Apply apply_;
};

Value Range(Heap& heap, const Arguments& arguments) {
  const auto given = arguments.Bind("range", {"start", "stop", "step"}, 1);
  const bool has_start = given[1] != nullptr;
  const int64_t first = IntegerArgument(given[0], "start", 0);
  const int64_t start = has_start ? first : 0;
  const int64_t stop = has_start ? IntegerArgument(given[1], "stop", 0) : first;
  const int64_t step = IntegerArgument(given[2], "step", 1);
  if (step == 0) Refuse("range: the step is 0");
  // In floating point: no overflow, and exact as far as a range may reach.
  const long double distance = static_cast<long double>(stop) - static_cast<long double>(start);
  const long double count = distance / static_cast<long double>(step);
  if (count > static_cast<long double>(kMaxRange)) Refuse("range: expected at most ", kMaxRange, " elements");
  std::vector<Value> items;
  for (int64_t value = start; step > 0 ? value < stop : value > stop;) {
    items.emplace_back(value);
    if (__builtin_add_overflow(value, step, &value)) break;
  }
  std::string printed = Message("range(", std::to_string(start), ", ", std::to_string(stop));
  if (step != 1) printed.append(", ").append(std::to_string(step));
  return heap.MakeRange(std::move(items), printed.append(")"));
}

// The entries of dict(mapping, name=value, ...).
DictBuilder Entries(Heap& heap, std::string_view callee, const Arguments& arguments) {
  DictBuilder builder;
  if (arguments.positional.size() > 1) Refuse(callee, ": expected at most one argument without a name");
  for (const Value& source : arguments.positional) {
    if (const Dict* dict = source.dict()) {
      for (const auto& [key, value] : dict->entries) builder.Set(key, value);
      continue;
    }
    for (const Value& pair : Elements(heap, source)) {
      const auto both = Elements(heap, pair);
      if (both.size() != 2) Refuse(callee, ": expected pairs of a key and a value");
      builder.Set(both[0], both[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) builder.Set(heap.MakeString(std::string(name)), value);
  return builder;
}

Value MakeDict(Heap& heap, const Arguments& arguments) { return heap.MakeDict(Entries(heap, "dict", arguments)); }

Value MakeNamespace(Heap& heap, const Arguments& arguments) {
  auto* space = heap.MakeObject<Namespace>();
  for (auto& [key, value] : Entries(heap, "namespace", arguments).dict.entries) {
    if (!key.IsString()) NotSupported("namespace: names that are no texts are not supported");
    space->Set(key.text(), value);
  }
  return static_cast<Object*>(space);
}

Value RaiseException(Heap&, const Arguments& arguments) {
  const Value& message = *arguments.Bind("raise_exception", {"message"}, 1)[0];
  Refuse("the template refuses the conversation: ", ToText(message));
}

// Names of days and months in English, whatever the program's locale is.
locale_t PlainLocale() {
  static const locale_t locale = newlocale(LC_ALL_MASK, "C", static_cast<locale_t>(nullptr));
  return locale;
}

Value FormatNow(Heap& heap, const Arguments& arguments) {
  const std::string& given = TextArgument(arguments.Bind("strftime_now", {"format"}, 1)[0], "format");
  if (given.size() > 1000) NotSupported("strftime_now: a format of ", given.size(), " bytes is not supported");
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const time_t seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count() % 1'000'000;
  // What Python replaces before it asks the C library: microseconds, and the time zone, of which there is none.
  std::string format;
  for (size_t i = 0; i < given.size(); ++i) {
    const char letter = given[i] == '%' && i + 1 < given.size() ? given[i + 1] : '\0';
    if (letter == '\0') {
      if (given[i] == '\0') NotSupported("strftime_now: a zero in the format is not supported");
      format += given[i];
      continue;
    }
    ++i;
    if (letter == 'f') {
      char digits[8];
      std::snprintf(digits, sizeof(digits), "%06d", static_cast<int>(micros));
      format += digits;
    } else if (letter != 'z' && letter != 'Z') {
      format += {'%', letter};
    }
  }
  if (format.empty()) return heap.MakeString("");
  struct tm parts {};
  localtime_r(&seconds, &parts);
  std::string text(format.size() * 64, '\0');
  const locale_t locale = PlainLocale();
  if (locale == nullptr) throw std::bad_alloc();
  text.resize(strftime_l(text.data(), text.size(), format.c_str(), &parts, locale));
  if (utf8::FindInvalid(text) != text.size()) NotSupported("strftime_now: the format gives no text");
  return heap.MakeString(std::move(text));
}

Value Lacking(Heap&, const Arguments&) { NotSupported("the functions lipsum, cycler and joiner are not supported"); }

Function functions[] = {
    {"range", Range},       {"namespace", MakeNamespace},       {"dict", MakeDict},
    {"raise_exception", RaiseException}, {"strftime_now", FormatNow}, {"lipsum", Lacking},
    {"cycler", Lacking},    {"joiner", Lacking},
};

}  // namespace

std::optional<Value> FindFunction(std::string_view name) {
  for (Function& function : functions) {
    if (function.name() == name) return Value(static_cast<Object*>(&function));
  }
  return std::nullopt;
}

}  // namespace dgrt::jinja
