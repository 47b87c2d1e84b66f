// Implementation of scoping.h.
#include "text/jinja/syntax/scoping.h"

#include <map>

namespace dgrt::jinja {
namespace {

// The names of one scope.
class Scope {
 public:
  explicit Scope(const Scope* parent) : parent_(parent) {}

  void Declare(const Target& target) {  // of a parameter or a loop
    if (target.is_tuple) {
      for (const Target& part : target.parts) Declare(part);
    } else {
      Declare(target.name);
    }
  }
  void Declare(std::string_view name) { hides_[name] = false; }

  void Walk(const Body& body) {
    for (const auto& statement : body.statements) Walk(*statement);
  }

  std::vector<std::string_view> Hidden() const {
    std::vector<std::string_view> names;
    for (const auto& [name, hides] : hides_) {
      if (hides) names.push_back(name);
    }
    return names;
  }

 private:
  bool Knows(std::string_view name) const {
    return hides_.contains(name) || (parent_ != nullptr && parent_->Knows(name));
  }
  void Use(std::string_view name) {
    if (!Knows(name)) hides_[name] = false;
  }
  void Set(std::string_view name) {
    if (!hides_.contains(name)) hides_[name] = num_branches_ == 0 && (parent_ == nullptr || !parent_->Knows(name));
  }

  void Walk(const Expr* expr) {
    if (expr == nullptr) return;
    if (expr->kind == ExprKind::kName) Use(expr->name);
    for (const auto& part : expr->parts) Walk(part.get());
    for (const auto& [name, value] : expr->named) Walk(value.get());
  }

  void Assign(const Target& target) {
    if (target.is_tuple) {
      for (const Target& part : target.parts) Assign(part);
    } else if (!target.attribute.empty()) {
      Use(target.name);
    } else {
      Set(target.name);
    }
  }

  // Only what belongs to this scope: not the bodies of loops, macros and other scopes.
  void Walk(const Statement& statement) {
    switch (statement.kind) {
      case StatementKind::kIf: return Branches(statement);
      case StatementKind::kSet:
        Walk(statement.value.get());
        return Assign(statement.target);
      case StatementKind::kSetBlock: return Assign(statement.target);
      case StatementKind::kMacro: return Set(statement.macro->name);
      case StatementKind::kWith:
        for (const auto& value : statement.conditions) Walk(value.get());
        return;
      default: return Walk(statement.value.get());
    }
  }

  // A name that is set in a branch first is looked up outside until then.
  void Branches(const Statement& statement) {
    ++num_branches_;
    for (size_t i = 0; i < statement.bodies.size(); ++i) {
      if (i < statement.conditions.size()) Walk(statement.conditions[i].get());
      Walk(statement.bodies[i]);
    }
    --num_branches_;
  }

  const Scope* parent_;
  std::map<std::string_view, bool> hides_{};
  int num_branches_ = 0;  // around what is walked
};

void HideInside(Body* body, const Scope& scope);

void HideInScope(Body* body, Scope scope) {
  scope.Walk(*body);
  body->hidden = scope.Hidden();
  HideInside(body, scope);
}

// Goes on to the scopes inside of a body that belongs to `scope`.
void HideInside(Body* body, const Scope& scope) {
  for (const auto& statement : body->statements) {
    Scope inner(&scope);
    if (statement->macro != nullptr) {
      for (const std::string& name : statement->macro->parameters) inner.Declare(name);
      HideInScope(&statement->macro->body, inner);
    } else if (statement->kind == StatementKind::kIf) {
      for (Body& branch : statement->bodies) HideInside(&branch, scope);
    } else if (statement->kind == StatementKind::kFor) {
      HideInScope(&statement->bodies[1], inner);
      inner.Declare(statement->target);
      inner.Declare("loop");
      HideInScope(&statement->bodies[0], inner);
    } else {
      for (const Target& target : statement->targets) inner.Declare(target);
      for (Body& branch : statement->bodies) HideInScope(&branch, inner);
    }
  }
}

}  // namespace

void HideNames(Body* body) { HideInScope(body, Scope(nullptr)); }

}  // namespace dgrt::jinja
