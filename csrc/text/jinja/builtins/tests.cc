// The tests: "value is NAME".
#include <algorithm>
#include <cmath>

#include "text/jinja/builtins/arguments.h"
#include "text/jinja/builtins/registry.h"

namespace dgrt::jinja {
namespace {

int64_t Remainder(Heap& heap, const Value& subject, int64_t divisor) {
  if (subject.IsString()) Refuse("expected a number, found a str");
  const Value rest = Calculate(heap, "%", subject, divisor);
  const auto number = AsNumber(rest);
  if (!number->is_float) return number->integer;
  return number->real == 0 ? 0 : number->real == 1 ? 1 : 2;
}

bool IsSequenceLike(const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.IsString() || value.dict() || value.IsUndefined() ||
         (sequence != nullptr && sequence->kind < SequenceKind::kKeys);
}

template <bool (*kIs)(const Value&)>
bool Plain(Heap&, const Value& subject, const Arguments& arguments) {
  arguments.Bind("the test", {});
  return kIs(subject);
}

template <char kFirst, char kSecond = '\0'>
bool Compared(Heap& heap, const Value& subject, const Arguments& arguments) {
  constexpr char kOperation[] = {kFirst, kSecond, '\0'};
  return CompareBy(heap, kOperation, subject, *arguments.Bind("the test", {"other"}, 1)[0]);
}

bool IsEven(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("even", {});
  return Remainder(heap, subject, 2) == 0;
}
bool IsOdd(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("odd", {});
  return Remainder(heap, subject, 2) == 1;
}
bool IsDivisible(Heap& heap, const Value& subject, const Arguments& arguments) {
  return Remainder(heap, subject, IntegerArgument(arguments.Bind("divisibleby", {"num"}, 1)[0], "num", 1)) == 0;
}
bool IsInside(Heap& heap, const Value& subject, const Arguments& arguments) {
  return IsIn(heap, subject, *arguments.Bind("in", {"seq"}, 1)[0]);
}
bool IsSame(Heap&, const Value& subject, const Arguments& arguments) {
  const Value& other = *arguments.Bind("sameas", {"other"}, 1)[0];
  const auto is_single = [](const Value& value) { return value.IsNone() || value.As<bool>() != nullptr; };
  if (!is_single(subject) && !is_single(other)) {
    NotSupported("the test \"sameas\" of other values than none, true and false is not supported");
  }
  return TypeName(subject) == TypeName(other) && Equals(subject, other);
}

bool IsDefined(const Value& value) { return !value.IsUndefined(); }
bool IsUndefinedValue(const Value& value) { return value.IsUndefined(); }
bool IsNoneValue(const Value& value) { return value.IsNone(); }
bool IsText(const Value& value) { return value.IsString(); }
bool IsNumber(const Value& value) { return AsNumber(value).has_value(); }
bool IsInteger(const Value& value) { return value.As<int64_t>() != nullptr; }
bool IsFloat(const Value& value) { return value.As<double>() != nullptr; }
bool IsBoolean(const Value& value) { return value.As<bool>() != nullptr; }
bool IsTrueValue(const Value& value) { return value.As<bool>() && *value.As<bool>(); }
bool IsFalseValue(const Value& value) { return value.As<bool>() && !*value.As<bool>(); }
bool IsMapping(const Value& value) { return value.dict() != nullptr; }
bool IsIterable(const Value& value) {
  return value.IsString() || value.dict() || value.sequence() || value.IsUndefined() || value.AsObject<Iterator>();
}
bool IsCallable(const Value& value) { return value.IsUndefined() || value.AsObject<Callable>(); }
bool IsEscaped(const Value& value) { return value.IsMarkup(); }

constexpr Test kTests[] = {
    {"defined", Plain<IsDefined>},      {"undefined", Plain<IsUndefinedValue>}, {"none", Plain<IsNoneValue>},
    {"string", Plain<IsText>},          {"number", Plain<IsNumber>},            {"integer", Plain<IsInteger>},
    {"float", Plain<IsFloat>},          {"boolean", Plain<IsBoolean>},          {"true", Plain<IsTrueValue>},
    {"false", Plain<IsFalseValue>},     {"mapping", Plain<IsMapping>},          {"iterable", Plain<IsIterable>},
    {"sequence", Plain<IsSequenceLike>}, {"callable", Plain<IsCallable>},       {"escaped", Plain<IsEscaped>},
    {"even", IsEven},                   {"odd", IsOdd},                         {"divisibleby", IsDivisible},
    {"in", IsInside},                   {"sameas", IsSame},                     {"eq", Compared<'=', '='>},
    {"equalto", Compared<'=', '='>},    {"==", Compared<'=', '='>},             {"ne", Compared<'!', '='>},
    {"!=", Compared<'!', '='>},         {"lt", Compared<'<'>},                  {"lessthan", Compared<'<'>},
    {"<", Compared<'<'>},               {"le", Compared<'<', '='>},             {"<=", Compared<'<', '='>},
    {"gt", Compared<'>'>},              {"greaterthan", Compared<'>'>},         {">", Compared<'>'>},
    {"ge", Compared<'>', '='>},         {">=", Compared<'>', '='>},
};

}  // namespace

const Test* FindTest(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTests), std::end(kTests), [&](const Test& test) { return test.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace dgrt::jinja
