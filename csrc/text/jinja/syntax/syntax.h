// The tree of a template. One struct for expressions and one for statements: `kind` says which members it uses.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/values/value.h"

namespace dgrt::jinja {

struct Filter;  // registry.h
struct Test;

enum class ExprKind {
  kConstant,   // constant
  kName,       // name, and the same as constant
  kTuple,      // parts
  kList,       // parts
  kDict,       // parts: key, value, key, value, ...
  kAttribute,  // parts[0].constant
  kItem,       // parts[0][parts[1]]
  kSlice,      // parts[0][parts[1]:parts[2]:parts[3]], of which the last three may be null
  kCall,       // parts[0](parts[1], ..., named)
  kFilter,     // parts[0] | filter(parts[1], ..., named); in a filter block parts[0] is null
  kTest,       // parts[0] is test(parts[1], ..., named)
  kNot,        // parts[0]
  kSign,       // name: "-" or "+"; parts[0]
  kBinary,     // name: the operator; parts[0], parts[1]
  kAnd,        // parts[0], parts[1]
  kOr,         // parts[0], parts[1]
  kConcat,     // parts
  kCompare,    // parts[0] operators[0] parts[1] operators[1] parts[2] ...
  kCondition,  // parts[1] if parts[0] else parts[2], which may be null
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind;
  int line;
  int depth = 1;
  std::string name{};
  Value constant{};
  std::vector<ExprPtr> parts{};
  std::vector<std::pair<std::string, ExprPtr>> named{};
  std::vector<std::string> operators{};
  const Filter* filter = nullptr;
  const Test* test = nullptr;
};

// What a value is assigned to: a name, an attribute of a namespace, or a tuple of such.
struct Target {
  int line = 0;
  std::string name{};
  std::string attribute{};      // "" if none
  std::vector<Target> parts{};  // of a tuple
  bool is_tuple = false;
};

struct Statement;
struct Body {
  std::vector<std::unique_ptr<Statement>> statements{};
  // A scope's names that are undefined until the scope sets them, whatever the conversation says (scoping.h).
  std::vector<std::string_view> hidden{};
};

enum class StatementKind {
  kText,         // text
  kOutput,       // value
  kIf,           // conditions; one body for each, and one for else
  kFor,          // target in value if condition; bodies: the loop's, that of else
  kSet,          // target = value
  kSetBlock,     // target = bodies[0] through `value`, a filter or null
  kMacro,        // macro
  kCallBlock,    // value is the call; macro is its caller
  kFilterBlock,  // bodies[0] through `value`
  kWith,         // targets and conditions, as many; bodies[0]
  kGeneration,   // bodies[0]
  kBreak,
  kContinue,
};

struct MacroSyntax {
  std::string name{};
  std::vector<std::string> parameters{};
  std::vector<ExprPtr> defaults{};  // of the last parameters
  Body body{};
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
};

struct Statement {
  StatementKind kind;
  int line;
  std::string text{};
  ExprPtr value{};
  ExprPtr condition{};
  std::vector<ExprPtr> conditions{};
  Target target{};
  std::vector<Target> targets{};
  std::vector<Body> bodies{};
  std::unique_ptr<MacroSyntax> macro{};
};

}  // namespace dgrt::jinja
