// Walks the tree of a template for one conversation.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/builtins/registry.h"
#include "text/jinja/syntax/syntax.h"
#include "text/jinja/values/heap.h"

namespace dgrt::jinja {

// Names of one scope; those of the scopes around it are behind them. Macros keep the scopes that they see.
struct Scope;
using ScopePtr = std::shared_ptr<Scope>;
struct Scope {
  explicit Scope(ScopePtr outer) : parent(std::move(outer)) {}
  ScopePtr parent;
  std::vector<std::pair<std::string_view, Value>> names{};

  const Value* Find(std::string_view name) const;
  void Set(std::string_view name, Value value);
};

class Evaluator {
 public:
  // `variables`: what the conversation gives. Both outlive the evaluator.
  Evaluator(Heap& heap, const Dict& variables) : heap_(heap), variables_(variables) {}

  std::string Run(const Body& body);
  int line() const { return line_; }  // where it is, or failed

  // For macros and conditions of loops.
  Value CallMacro(const MacroSyntax& macro, const ScopePtr& scope, const Arguments& arguments);
  Value Evaluate(const Expr& expr, const ScopePtr& scope);
  void Assign(const Target& target, const Value& value, const ScopePtr& scope);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  class Level;  // counts nested evaluations

  Flow Execute(const Body& body, const ScopePtr& scope, std::string* output);
  Flow ExecuteStatement(const Statement& statement, const ScopePtr& scope, std::string* output);
  Flow ExecuteIf(const Statement& statement, const ScopePtr& scope, std::string* output);
  Flow ExecuteFor(const Statement& statement, const ScopePtr& scope, std::string* output);
  Flow ExecuteWith(const Statement& statement, const ScopePtr& scope, std::string* output);
  Flow ExecuteBuffered(const Statement& statement, const ScopePtr& scope, std::string* output);
  void ExecuteCall(const Statement& statement, const ScopePtr& scope, std::string* output);
  Flow ExecuteInside(const Body& body, const ScopePtr& inner, std::string* output);
  void BindParameters(const MacroSyntax& macro, const Arguments& arguments, const ScopePtr& inner);
  void Write(std::string_view text, std::string* output);

  Value Dispatch(const Expr& expr, const ScopePtr& scope);
  Value EvaluateName(const Expr& expr, const ScopePtr& scope);
  Value EvaluateDict(const Expr& expr, const ScopePtr& scope);
  Value EvaluateSlice(const Expr& expr, const ScopePtr& scope);
  Value EvaluateCall(const Expr& expr, const ScopePtr& scope, Value caller);
  Value EvaluateFilter(const Expr& expr, const ScopePtr& scope, const Value* block);
  Value EvaluateConcat(const Expr& expr, const ScopePtr& scope);
  Value EvaluateCompare(const Expr& expr, const ScopePtr& scope);
  Value EvaluateCondition(const Expr& expr, const ScopePtr& scope);
  std::vector<Value> EvaluateAll(const std::vector<ExprPtr>& parts, size_t first, const ScopePtr& scope);
  Arguments EvaluateArguments(const Expr& expr, const ScopePtr& scope);

  Heap& heap_;
  const Dict& variables_;
  int line_ = 1;
  int depth_ = 0;
};

}  // namespace dgrt::jinja
