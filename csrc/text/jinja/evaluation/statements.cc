// Statements of evaluator.h.
#include <algorithm>

#include "text/jinja/evaluation/evaluator.h"
#include "text/jinja/evaluation/level.h"
#include "text/jinja/evaluation/loop.h"
#include "text/jinja/evaluation/operations.h"
#include "text/jinja/values/printing.h"

namespace dgrt::jinja {
namespace {

class Macro : public Callable {
 public:
  Macro(Evaluator& evaluator, const MacroSyntax& syntax, ScopePtr scope)
      : evaluator_(evaluator), syntax_(syntax), scope_(std::move(scope)) {}
  std::string_view type_name() const override { return "macro"; }
  Value Call(Heap&, const Arguments& arguments) override {
    return evaluator_.CallMacro(syntax_, scope_, arguments);
  }

 private:
  Evaluator& evaluator_;
  const MacroSyntax& syntax_;
  ScopePtr scope_;
};

Value MakeMacro(Heap& heap, Evaluator& evaluator, const MacroSyntax& syntax, const ScopePtr& scope) {
  return static_cast<Object*>(heap.MakeObject<Macro>(evaluator, syntax, scope));
}

// What a loop with a condition iterates over: looked at one by one, as the loop goes on.
Iterator* Conditional(Heap& heap, Evaluator& evaluator, const Statement& loop, const ScopePtr& scope,
                      Iterator* source) {
  return MakeIterator(heap, source, [&evaluator, &loop, scope, source](Value* next) {
    while (source->Next(next)) {
      const auto inner = std::make_shared<Scope>(scope);
      evaluator.Assign(loop.target, *next, inner);
      if (IsTrue(evaluator.Evaluate(*loop.condition, inner))) return true;
    }
    return false;
  });
}

}  // namespace

std::string Evaluator::Run(const Body& body) {
  std::string output;
  ExecuteInside(body, std::make_shared<Scope>(nullptr), &output);
  return output;
}

void Evaluator::Write(std::string_view text, std::string* output) {
  if (output->size() + text.size() > kMaxTextBytes) NotSupported("a text of more than ", kMaxTextBytes, " bytes");
  output->append(text);
}

Evaluator::Flow Evaluator::Execute(const Body& body, const ScopePtr& scope, std::string* output) {
  for (const auto& statement : body.statements) {
    const Level level(this, statement->line);
    const Flow flow = ExecuteStatement(*statement, scope, output);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

// A body that is a scope of its own.
Evaluator::Flow Evaluator::ExecuteInside(const Body& body, const ScopePtr& inner, std::string* output) {
  for (const std::string_view name : body.hidden) {
    inner->Set(name, heap_.MakeUndefined(Message("'", name, "' is undefined: it is set later")));
  }
  return Execute(body, inner, output);
}

Evaluator::Flow Evaluator::ExecuteStatement(const Statement& statement, const ScopePtr& scope, std::string* output) {
  switch (statement.kind) {
    case StatementKind::kText: Write(statement.text, output); break;
    case StatementKind::kOutput: {
      const Value value = Evaluate(*statement.value, scope);
      heap_.SpendOn(value);
      Write(ToText(value), output);
      break;
    }
    case StatementKind::kIf: return ExecuteIf(statement, scope, output);
    case StatementKind::kFor: return ExecuteFor(statement, scope, output);
    case StatementKind::kSet: Assign(statement.target, Evaluate(*statement.value, scope), scope); break;
    case StatementKind::kMacro:
      scope->Set(statement.macro->name, MakeMacro(heap_, *this, *statement.macro, scope));
      break;
    case StatementKind::kCallBlock: ExecuteCall(statement, scope, output); break;
    case StatementKind::kSetBlock:
    case StatementKind::kFilterBlock: return ExecuteBuffered(statement, scope, output);
    case StatementKind::kWith: return ExecuteWith(statement, scope, output);
    case StatementKind::kGeneration:
      return ExecuteInside(statement.bodies[0], std::make_shared<Scope>(scope), output);
    case StatementKind::kBreak: return Flow::kBreak;
    case StatementKind::kContinue: return Flow::kContinue;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::ExecuteIf(const Statement& statement, const ScopePtr& scope, std::string* output) {
  for (size_t i = 0; i < statement.conditions.size(); ++i) {
    if (IsTrue(Evaluate(*statement.conditions[i], scope))) return Execute(statement.bodies[i], scope, output);
  }
  return Execute(statement.bodies.back(), scope, output);
}

Evaluator::Flow Evaluator::ExecuteFor(const Statement& statement, const ScopePtr& scope, std::string* output) {
  Iterator* source = Iterate(heap_, Evaluate(*statement.value, scope));
  if (statement.condition != nullptr) source = Conditional(heap_, *this, statement, scope, source);
  auto* loop = heap_.MakeObject<Loop>(source);
  bool has_finished_one = false;  // Jinja's reading of "else": no iteration came to its end
  Value item;
  while (loop->Advance(&item)) {
    const auto inner = std::make_shared<Scope>(scope);
    inner->Set("loop", static_cast<Object*>(loop));
    Assign(statement.target, item, inner);
    const Flow flow = ExecuteInside(statement.bodies[0], inner, output);
    if (flow == Flow::kBreak) break;
    has_finished_one = has_finished_one || flow == Flow::kNext;
  }
  if (has_finished_one) return Flow::kNext;
  return ExecuteInside(statement.bodies[1], std::make_shared<Scope>(scope), output);
}

Evaluator::Flow Evaluator::ExecuteWith(const Statement& statement, const ScopePtr& scope, std::string* output) {
  const auto inner = std::make_shared<Scope>(scope);
  const auto values = EvaluateAll(statement.conditions, 0, scope);
  for (size_t i = 0; i < values.size(); ++i) Assign(statement.targets[i], values[i], inner);
  return ExecuteInside(statement.bodies[0], inner, output);
}

// The body's text goes through a filter, to a name or to the output.
Evaluator::Flow Evaluator::ExecuteBuffered(const Statement& statement, const ScopePtr& scope, std::string* output) {
  std::string text;
  const auto inner = std::make_shared<Scope>(scope);
  const Flow flow = ExecuteInside(statement.bodies[0], inner, &text);
  if (flow != Flow::kNext) return flow;
  Value value = heap_.MakeString(std::move(text));
  if (statement.value != nullptr) value = EvaluateFilter(*statement.value, inner, &value);
  if (statement.kind == StatementKind::kSetBlock) {
    Assign(statement.target, value, scope);
  } else {
    Write(ToText(value), output);
  }
  return Flow::kNext;
}

void Evaluator::ExecuteCall(const Statement& statement, const ScopePtr& scope, std::string* output) {
  const Value caller = MakeMacro(heap_, *this, *statement.macro, scope);
  const Value value = EvaluateCall(*statement.value, scope, caller);
  heap_.SpendOn(value);
  Write(ToText(value), output);
}

Value Evaluator::CallMacro(const MacroSyntax& macro, const ScopePtr& scope, const Arguments& arguments) {
  const Level level(this, line_);
  const auto inner = std::make_shared<Scope>(scope);
  BindParameters(macro, arguments, inner);
  std::string text;
  ExecuteInside(macro.body, inner, &text);
  return heap_.MakeString(std::move(text));
}

void Evaluator::BindParameters(const MacroSyntax& macro, const Arguments& arguments, const ScopePtr& inner) {
  const size_t num_parameters = macro.parameters.size();
  std::vector<const Value*> given(num_parameters, nullptr);
  std::vector<Value> rest;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i < num_parameters) {
      given[i] = &arguments.positional[i];
    } else if (macro.uses_varargs) {
      rest.push_back(arguments.positional[i]);
    } else {
      Refuse("macro \"", macro.name, "\": expected at most ", num_parameters, " arguments, found ",
             arguments.positional.size());
    }
  }
  DictBuilder others;
  Value caller;
  for (const auto& [name, value] : arguments.named) {
    const auto place = std::find(macro.parameters.begin(), macro.parameters.end(), name);
    if (place != macro.parameters.end()) {
      const Value*& slot = given[static_cast<size_t>(place - macro.parameters.begin())];
      if (slot != nullptr) Refuse("macro \"", macro.name, "\": argument \"", name, "\" is given twice");
      slot = &value;
    } else if (name == "caller" && macro.uses_caller) {
      caller = value;
    } else if (macro.uses_kwargs) {
      others.Set(heap_.MakeString(std::string(name)), value);
    } else {
      Refuse("macro \"", macro.name, "\": there is no argument \"", name, "\"");
    }
  }
  if (macro.uses_varargs) inner->Set("varargs", heap_.MakeSequence(std::move(rest), SequenceKind::kTuple));
  if (macro.uses_kwargs) inner->Set("kwargs", heap_.MakeDict(std::move(others)));
  if (macro.uses_caller) {
    inner->Set("caller", caller.IsUndefined() ? heap_.MakeUndefined("no caller defined") : caller);
  }
  const size_t first_default = num_parameters - macro.defaults.size();
  for (size_t i = 0; i < num_parameters; ++i) {
    const std::string& name = macro.parameters[i];
    if (given[i] != nullptr) {
      inner->Set(name, *given[i]);
    } else if (i >= first_default) {
      inner->Set(name, Evaluate(*macro.defaults[i - first_default], inner));
    } else {
      inner->Set(name, heap_.MakeUndefined(Message("parameter '", name, "' was not provided")));
    }
  }
}

void Evaluator::Assign(const Target& target, const Value& value, const ScopePtr& scope) {
  if (!target.is_tuple && target.attribute.empty()) return scope->Set(target.name, value);
  if (!target.is_tuple) {
    const Value* found = scope->Find(target.name);
    auto* space = found == nullptr ? nullptr : found->AsObject<Namespace>();
    if (space == nullptr) Refuse("\"", target.name, ".", target.attribute, "\" is set, but it is no namespace");
    return space->Set(target.attribute, value);
  }
  const auto elements = Elements(heap_, value);
  if (elements.size() != target.parts.size()) {
    Refuse("expected ", target.parts.size(), " values to unpack, found ", elements.size());
  }
  for (size_t i = 0; i < elements.size(); ++i) Assign(target.parts[i], elements[i], scope);
}

}  // namespace dgrt::jinja
