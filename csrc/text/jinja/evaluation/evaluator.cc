// Implementation of evaluator.h: expressions. statements.cc has the statements.
#include "text/jinja/evaluation/evaluator.h"

#include "text/jinja/builtins/functions.h"
#include "text/jinja/evaluation/level.h"
#include "text/jinja/evaluation/operations.h"
#include "text/jinja/values/printing.h"

namespace dgrt::jinja {

const Value* Scope::Find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [key, value] : scope->names) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Scope::Set(std::string_view name, Value value) {
  for (auto& [key, old] : names) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  names.emplace_back(name, std::move(value));
}

Value Evaluator::Evaluate(const Expr& expr, const ScopePtr& scope) {
  if (expr.kind == ExprKind::kConstant) return expr.constant;
  const Level level(this, expr.line);
  return Dispatch(expr, scope);
}

Value Evaluator::Dispatch(const Expr& expr, const ScopePtr& scope) {
  const auto part = [&](size_t i) { return Evaluate(*expr.parts[i], scope); };
  switch (expr.kind) {
    case ExprKind::kConstant: return expr.constant;
    case ExprKind::kName: return EvaluateName(expr, scope);
    case ExprKind::kTuple: return heap_.MakeSequence(EvaluateAll(expr.parts, 0, scope), SequenceKind::kTuple);
    case ExprKind::kList: return heap_.MakeSequence(EvaluateAll(expr.parts, 0, scope));
    case ExprKind::kDict: return EvaluateDict(expr, scope);
    case ExprKind::kAttribute: return Attribute(heap_, part(0), expr.constant);
    case ExprKind::kItem: {
      const Value subject = part(0);
      return Item(heap_, subject, part(1));
    }
    case ExprKind::kSlice: return EvaluateSlice(expr, scope);
    case ExprKind::kCall: return EvaluateCall(expr, scope, Value());
    case ExprKind::kFilter: return EvaluateFilter(expr, scope, nullptr);
    case ExprKind::kTest: {
      const Value subject = part(0);
      return expr.test->apply(heap_, subject, EvaluateArguments(expr, scope));
    }
    case ExprKind::kNot: return !IsTrue(part(0));
    case ExprKind::kSign: return Sign(expr.name, part(0));
    case ExprKind::kBinary: {
      const Value left = part(0);
      return Calculate(heap_, expr.name, left, part(1));
    }
    case ExprKind::kAnd: {
      Value left = part(0);
      return IsTrue(left) ? part(1) : left;
    }
    case ExprKind::kOr: {
      Value left = part(0);
      return IsTrue(left) ? left : part(1);
    }
    case ExprKind::kConcat: return EvaluateConcat(expr, scope);
    case ExprKind::kCompare: return EvaluateCompare(expr, scope);
    case ExprKind::kCondition: return EvaluateCondition(expr, scope);
  }
  return Value();
}

Value Evaluator::EvaluateName(const Expr& expr, const ScopePtr& scope) {
  if (const Value* found = scope->Find(expr.name)) return *found;
  if (const Value* found = variables_.Find(expr.constant)) return *found;
  if (const auto found = FindFunction(expr.name)) return *found;
  return heap_.MakeUndefined(Message("'", expr.name, "' is undefined"));
}

Value Evaluator::EvaluateDict(const Expr& expr, const ScopePtr& scope) {
  DictBuilder builder;
  for (size_t i = 0; i < expr.parts.size(); i += 2) {
    const Value key = Evaluate(*expr.parts[i], scope);
    builder.Set(key, Evaluate(*expr.parts[i + 1], scope));
  }
  return heap_.MakeDict(std::move(builder));
}

Value Evaluator::EvaluateSlice(const Expr& expr, const ScopePtr& scope) {
  Value parts[4];
  for (size_t i = 0; i < 4; ++i) {
    parts[i] = expr.parts[i] == nullptr ? Value(None{}) : Evaluate(*expr.parts[i], scope);
  }
  return Slice(heap_, parts[0], parts[1], parts[2], parts[3]);
}

// `caller`: what a call block gives beside the arguments; undefined if there is none.
Value Evaluator::EvaluateCall(const Expr& expr, const ScopePtr& scope, Value caller) {
  const Value callee = Evaluate(*expr.parts[0], scope);
  Arguments arguments = EvaluateArguments(expr, scope);
  if (!caller.IsUndefined()) arguments.named.emplace_back("caller", std::move(caller));
  if (callee.IsUndefined()) RefuseUndefined(callee);
  auto* callable = callee.AsObject<Callable>();
  if (callable == nullptr) Refuse("a ", TypeName(callee), " cannot be called");
  return callable->Call(heap_, arguments);
}

// `block`: the text of a filter block, which has no subject.
Value Evaluator::EvaluateFilter(const Expr& expr, const ScopePtr& scope, const Value* block) {
  const Expr* inner = expr.parts[0].get();
  Value subject;
  if (inner == nullptr) {
    subject = *block;
  } else if (block != nullptr && inner->kind == ExprKind::kFilter) {
    const Level level(this, inner->line);
    subject = EvaluateFilter(*inner, scope, block);
  } else {
    subject = Evaluate(*inner, scope);
  }
  return Apply(heap_, *expr.filter, subject, EvaluateArguments(expr, scope));
}

Value Evaluator::EvaluateConcat(const Expr& expr, const ScopePtr& scope) {
  std::string text;
  for (const auto& part : expr.parts) {
    const Value value = Evaluate(*part, scope);
    heap_.SpendOn(value);
    Write(ToText(value), &text);
  }
  return heap_.MakeString(std::move(text));
}

Value Evaluator::EvaluateCompare(const Expr& expr, const ScopePtr& scope) {
  Value left = Evaluate(*expr.parts[0], scope);
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = Evaluate(*expr.parts[i + 1], scope);
    if (!CompareBy(heap_, expr.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::EvaluateCondition(const Expr& expr, const ScopePtr& scope) {
  if (IsTrue(Evaluate(*expr.parts[0], scope))) return Evaluate(*expr.parts[1], scope);
  if (expr.parts[2] != nullptr) return Evaluate(*expr.parts[2], scope);
  return heap_.MakeUndefined("an \"if\" expression is false and has no \"else\"");
}

std::vector<Value> Evaluator::EvaluateAll(const std::vector<ExprPtr>& parts, size_t first, const ScopePtr& scope) {
  std::vector<Value> values;
  for (size_t i = first; i < parts.size(); ++i) values.push_back(Evaluate(*parts[i], scope));
  return values;
}

Arguments Evaluator::EvaluateArguments(const Expr& expr, const ScopePtr& scope) {
  Arguments arguments{EvaluateAll(expr.parts, 1, scope)};
  for (const auto& [name, value] : expr.named) arguments.named.emplace_back(name, Evaluate(*value, scope));
  return arguments;
}

}  // namespace dgrt::jinja
