// Filters of single values.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/builtins/arguments.h"
#include "text/jinja/builtins/filters.h"
#include "text/jinja/limits.h"
#include "text/jinja/values/printing.h"
#include "text/jinja/values/text_operations.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja::filters {
namespace {

std::string TextOf(Heap& heap, const Value& value) {
  heap.SpendOn(value);
  return ToText(value);
}

// Rounded half to even by the exact value of the number, as Python does it.
double RoundTo(double value, int64_t num_digits) {
  if (num_digits < 0 || num_digits > 100) NotSupported("round: a precision of ", num_digits, " is not supported");
  if (!std::isfinite(value)) return value;
  char digits[512];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value, std::chars_format::fixed,
                                 static_cast<int>(num_digits)).ptr;
  double rounded = 0;
  std::from_chars(digits, end, rounded);
  return rounded;
}

JsonStyle StyleOf(const std::vector<const Value*>& given) {
  JsonStyle style;
  style.ascii_only = FlagArgument(given[0], false);
  style.sorted_keys = FlagArgument(given[3], false);
  if (given[1] != nullptr && !given[1]->IsNone()) {
    style.is_indented = true;
    style.item_separator = ",";
    if (given[1]->IsString()) {
      style.indent = given[1]->text();
    } else {
      const int64_t width = IntegerArgument(given[1], "indent", 0);
      if (width > 1000) NotSupported("tojson: an indent of ", width, " is not supported");
      style.indent.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (given[2] != nullptr && !given[2]->IsNone()) {
    const Sequence* both = given[2]->sequence();
    if (both == nullptr || both->items.size() != 2) Refuse("tojson: \"separators\" needs two texts");
    style.item_separator = TextArgument(&both->items[0], "separators");
    style.key_separator = TextArgument(&both->items[1], "separators");
  }
  return style;
}

}  // namespace

Value Trim(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("trim", {"chars"});
  return heap.MakeString(std::string(Strip(TextOf(heap, subject), Side::kBoth, OptionalText(given[0], "chars"))));
}

Value Upper(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("upper", {});
  return heap.MakeString(ToUpper(TextOf(heap, subject)));
}

Value Lower(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("lower", {});
  return heap.MakeString(ToLower(TextOf(heap, subject)));
}

Value Capital(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("capitalize", {});
  return heap.MakeString(Capitalize(TextOf(heap, subject)));
}

Value Title(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("title", {});
  return heap.MakeString(CapitalizeWords(TextOf(heap, subject)));
}

Value ReplaceIn(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("replace", {"old", "new", "count"}, 2);
  const bool is_limited = given[2] != nullptr && !given[2]->IsNone();
  return heap.MakeString(Replace(TextOf(heap, subject), TextOf(heap, *given[0]), TextOf(heap, *given[1]),
                                 is_limited ? IntegerArgument(given[2], "count", -1) : -1));
}

Value Indent(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("indent", {"width", "first", "blank"});
  if (!subject.IsString()) Refuse("indent: expected a text, found a ", TypeName(subject));
  std::string margin;
  if (given[0] != nullptr && given[0]->IsString()) {
    margin = given[0]->text();
  } else {
    const int64_t width = IntegerArgument(given[0], "width", 4);
    if (width > 1000) NotSupported("indent: a width of ", width, " is not supported");
    margin.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const bool indents_first = FlagArgument(given[1], false), indents_blank = FlagArgument(given[2], false);
  const std::string text = Message(subject.text(), "\n");  // so that a newline at the end counts as an empty line
  std::string indented;
  bool is_first = true;
  for (const std::string_view line : SplitLines(text)) {
    if (!is_first) indented += "\n";
    const bool is_indented = is_first ? indents_first : indents_blank || !line.empty();
    if (is_indented) indented += margin;
    indented += line;
    if (indented.size() > kMaxTextBytes) NotSupported("a text of more than ", kMaxTextBytes, " bytes");
    is_first = false;
  }
  return heap.MakeString(std::move(indented));
}

Value AsText(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("string", {});
  return subject.IsString() ? subject : heap.MakeString(TextOf(heap, subject));
}

Value AsInt(Heap&, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("int", {"default", "base"});
  const Value otherwise = given[0] == nullptr ? Value(int64_t{0}) : *given[0];
  if (subject.IsUndefined()) RefuseUndefined(subject);
  auto number = AsNumber(subject);
  if (subject.IsString()) {
    const int64_t base = IntegerArgument(given[1], "base", 10);
    const auto integer = ParseInteger(subject.text(), static_cast<int>(std::clamp<int64_t>(base, -1, 99)));
    if (integer) return *integer;
    const auto real = ParseFloat(subject.text());  // "42.23" counts as well
    if (real) number = Number{true, 0, *real};
  }
  if (!number) return otherwise;
  if (!number->is_float) return number->integer;
  if (!std::isfinite(number->real)) return otherwise;
  if (std::abs(number->real) >= 9.2e18) NotSupported("integers beyond 64 bits are not supported");
  return static_cast<int64_t>(number->real);
}

Value AsFloat(Heap&, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("float", {"default"});
  if (subject.IsUndefined()) RefuseUndefined(subject);
  const auto parsed = subject.IsString() ? ParseFloat(subject.text()) : std::nullopt;
  if (parsed) return *parsed;
  const auto number = AsNumber(subject);
  if (number) return number->is_float ? number->real : static_cast<double>(number->integer);
  return given[0] == nullptr ? Value(0.0) : *given[0];
}

Value AsJson(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  heap.SpendOn(subject);
  return heap.MakeString(ToJson(subject, StyleOf(given)));
}

Value Round(Heap&, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("round", {"precision", "method"});
  const int64_t precision = IntegerArgument(given[0], "precision", 0);
  const std::string method = given[1] == nullptr ? "common" : TextArgument(given[1], "method");
  const auto number = AsNumber(subject);
  if (subject.IsUndefined()) RefuseUndefined(subject);
  if (!number) Refuse("round: expected a number, found a ", TypeName(subject));
  if (method == "common") {
    if (number->is_float) return RoundTo(number->real, precision);
    if (precision < 0) NotSupported("round: a precision of ", precision, " is not supported");
    return number->integer;
  }
  if (method != "ceil" && method != "floor") Refuse("round: expected method common, ceil or floor, found ", method);
  if (precision < 0 || precision > 15) NotSupported("round: a precision of ", precision, " is not supported");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = (number->is_float ? number->real : static_cast<double>(number->integer)) * scale;
  if (!std::isfinite(scaled)) Refuse("round: the number is not finite");
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

Value Absolute(Heap&, const Value& subject, const Arguments& arguments) {
  arguments.Bind("abs", {});
  const auto number = AsNumber(subject);
  if (!number) Refuse("abs: expected a number, found a ", TypeName(subject));
  if (number->is_float) return std::abs(number->real);
  return number->integer < 0 ? Sign("-", number->integer) : Value(number->integer);
}

Value Default(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("default", {"default_value", "boolean"});
  const bool is_replaced = subject.IsUndefined() || (FlagArgument(given[1], false) && !IsTrue(subject));
  if (!is_replaced) return subject;
  return given[0] == nullptr ? heap.MakeString("") : *given[0];
}

Value EscapeText(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("escape", {});
  return subject.IsMarkup() ? subject : heap.MakeString(Escape(TextOf(heap, subject)), true);
}

Value MarkSafe(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("safe", {});
  return subject.IsMarkup() ? subject : heap.MakeString(TextOf(heap, subject), true);
}

Value Format(Heap& heap, const Value& subject, const Arguments& arguments) {
  if (!arguments.named.empty()) NotSupported("format: values with names are not supported");
  const Value values = heap.MakeSequence(arguments.positional, SequenceKind::kTuple);
  return heap.MakeString(FormatPercent(heap, TextOf(heap, subject), values));
}

}  // namespace dgrt::jinja::filters
