// Arithmetic of operations.h: Python's, with integers of 64 bits.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "text/jinja/evaluation/operations.h"
#include "text/jinja/limits.h"
#include "text/jinja/values/printing.h"
#include "text/jinja/values/text_operations.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja {
namespace {

[[noreturn]] void TooLarge() { NotSupported("integers beyond 64 bits are not supported"); }
[[noreturn]] void DivideByZero() { Refuse("division by zero"); }

double Real(const Number& number) { return number.is_float ? number.real : static_cast<double>(number.integer); }

int64_t Power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (true) {
    if (exponent % 2 == 1 && __builtin_mul_overflow(result, base, &result)) TooLarge();
    exponent /= 2;
    if (exponent == 0) return result;
    if (__builtin_mul_overflow(base, base, &base)) TooLarge();
  }
}

// The quotient is rounded down and the remainder has the divisor's sign.
Value CalculateIntegers(char operation, bool is_double, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (operation) {
    case '+':
      if (__builtin_add_overflow(a, b, &result)) TooLarge();
      return result;
    case '-':
      if (__builtin_sub_overflow(a, b, &result)) TooLarge();
      return result;
    case '*':
      if (!is_double) {
        if (__builtin_mul_overflow(a, b, &result)) TooLarge();
        return result;
      }
      if (b >= 0) return Power(a, b);
      if (a == 0) DivideByZero();
      return std::pow(static_cast<double>(a), static_cast<double>(b));
    default: break;
  }
  if (b == 0) DivideByZero();
  if (operation == '/' && !is_double) return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1) return operation == '%' ? Value(int64_t{0}) : CalculateIntegers('-', false, 0, a);
  const bool is_uneven = a % b != 0 && (a % b < 0) != (b < 0);
  return operation == '%' ? a % b + (is_uneven ? b : 0) : a / b - (is_uneven ? 1 : 0);
}

double PowerOfReals(double a, double b) {
  const double power = std::pow(a, b);
  if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) Refuse("the result of \"**\" is too large");
  return power;
}

Value CalculateReals(char operation, bool is_double, double a, double b) {
  switch (operation) {
    case '+': return a + b;
    case '-': return a - b;
    case '*':
      if (!is_double) return a * b;
      if (a == 0 && b < 0) DivideByZero();
      if (a < 0 && std::floor(b) != b) NotSupported("complex numbers are not supported");
      return PowerOfReals(a, b);
    default: break;
  }
  if (b == 0) DivideByZero();
  if (operation == '/' && !is_double) return a / b;
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (operation == '%') return rest == 0 ? std::copysign(0.0, b) : rest;
  const double quotient = (a - rest) / b;
  return std::floor(quotient) + (quotient - std::floor(quotient) > 0.5 ? 1 : 0);
}

Value Join(Heap& heap, const Value& left, const Value& right) {
  if (left.IsMarkup() == right.IsMarkup()) return heap.MakeString(left.text() + right.text(), left.IsMarkup());
  const auto escaped = [](const Value& text) { return text.IsMarkup() ? text.text() : Escape(text.text()); };
  return heap.MakeString(escaped(left) + escaped(right), true);
}

Value Repeat(Heap& heap, const Value& value, int64_t count) {
  if (value.IsMarkup()) NotSupported("repeating a text that is marked as safe is not supported");
  const bool is_text = value.IsString();
  const size_t size = is_text ? value.text().size() : value.sequence()->items.size();
  const auto times = static_cast<size_t>(count < 0 ? 0 : count);
  if (size > 0 && times > (is_text ? kMaxTextBytes : kMaxSteps) / size) {
    NotSupported("repeating a ", TypeName(value), " ", times, " times makes it too long");
  }
  if (is_text) {
    std::string text;
    for (size_t i = 0; size > 0 && i < times; ++i) text += value.text();
    return heap.MakeString(std::move(text));
  }
  heap.Spend(size * times);
  std::vector<Value> items;
  for (size_t i = 0; size > 0 && i < times; ++i) {
    items.insert(items.end(), value.sequence()->items.begin(), value.sequence()->items.end());
  }
  return heap.MakeSequence(std::move(items), value.sequence()->kind);
}

bool IsListOrTuple(const Value& value) {
  return value.sequence() &&
         (value.sequence()->kind == SequenceKind::kList || value.sequence()->kind == SequenceKind::kTuple);
}

}  // namespace

Value Calculate(Heap& heap, std::string_view operation, const Value& left, const Value& right) {
  const bool is_double = operation.size() == 2;
  if (operation == "%" && left.IsString()) {
    if (left.IsMarkup()) NotSupported("\"%\" with a text that is marked as safe is not supported");
    return heap.MakeString(FormatPercent(heap, left.text(), right));
  }
  if (left.IsUndefined()) RefuseUndefined(left);
  if (right.IsUndefined()) RefuseUndefined(right);
  const auto a = AsNumber(left), b = AsNumber(right);
  if (a && b) {
    if (!a->is_float && !b->is_float) return CalculateIntegers(operation[0], is_double, a->integer, b->integer);
    return CalculateReals(operation[0], is_double, Real(*a), Real(*b));
  }
  if (operation == "+") {
    if (left.IsString() && right.IsString()) return Join(heap, left, right);
    if (IsListOrTuple(left) && IsListOrTuple(right) && left.sequence()->kind == right.sequence()->kind) {
      std::vector<Value> items = left.sequence()->items;
      items.insert(items.end(), right.sequence()->items.begin(), right.sequence()->items.end());
      return heap.MakeSequence(std::move(items), left.sequence()->kind);
    }
  }
  if (operation == "*") {
    const auto is_repeated = [](const Value& value) { return value.IsString() || IsListOrTuple(value); };
    if (is_repeated(left) && AsInteger(right)) return Repeat(heap, left, *AsInteger(right));
    if (is_repeated(right) && AsInteger(left)) return Repeat(heap, right, *AsInteger(left));
  }
  const auto is_set_like = [](const Value& value) {
    return value.sequence() && value.sequence()->kind >= SequenceKind::kKeys;
  };
  if (operation == "-" && (is_set_like(left) || is_set_like(right))) NotSupported("sets are not supported");
  Refuse("\"", operation, "\" is not defined between ", TypeName(left), " and ", TypeName(right));
}

Value Sign(std::string_view sign, const Value& value) {
  if (value.IsUndefined()) RefuseUndefined(value);
  const auto number = AsNumber(value);
  if (!number) Refuse("the sign \"", sign, "\" is not defined for a ", TypeName(value));
  if (number->is_float) return sign == "-" ? -number->real : number->real;
  return sign == "-" ? CalculateIntegers('-', false, 0, number->integer) : Value(number->integer);
}

std::string FormatPercent(Heap& heap, std::string_view format, const Value& value) {
  const bool is_tuple = value.sequence() && value.sequence()->kind == SequenceKind::kTuple;
  const std::vector<Value> values = is_tuple ? value.sequence()->items : std::vector<Value>{value};
  size_t used = 0;
  std::string text;
  for (size_t at = format.find('%'); at != std::string_view::npos; at = format.find('%')) {
    text.append(format.substr(0, at));
    const char letter = at + 1 < format.size() ? format[at + 1] : '\0';
    format.remove_prefix(std::min(format.size(), at + 2));
    if (letter == '%') {
      text.push_back('%');
      continue;
    }
    if (letter != 's' && letter != 'd' && letter != 'i' && letter != 'r') {
      if (letter == '\0') Refuse("a format ends with \"%\"");
      NotSupported("the format \"%", letter, "\" is not supported");
    }
    if (used == values.size()) Refuse("a format has more places than there are values");
    const Value& next = values[used++];
    heap.SpendOn(next);
    const auto number = AsNumber(next);
    if (letter == 's') {
      text += ToText(next);
    } else if (letter == 'r') {
      text += Repr(next);
    } else if (!number) {
      Refuse("the format \"%d\" needs a number, found a ", TypeName(next));
    } else {
      if (number->is_float && !(std::abs(number->real) < 9.2e18)) TooLarge();
      text += std::to_string(number->is_float ? static_cast<int64_t>(number->real) : number->integer);
    }
    if (text.size() > kMaxTextBytes) NotSupported("a text of more than ", kMaxTextBytes, " bytes");
  }
  // Left over: an error, except what Python could have used by name.
  const bool has_names = !is_tuple && (value.dict() || value.sequence() || value.IsUndefined());
  if (used < values.size() && !has_names) {
    Refuse("a format has fewer places than there are values");
  }
  return text.append(format);
}

}  // namespace dgrt::jinja
