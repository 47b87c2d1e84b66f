// Implementation of parser.h: statements.
#include "text/jinja/syntax/parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "text/jinja/syntax/expression_parser.h"
#include "text/jinja/syntax/scoping.h"

namespace dgrt::jinja {
namespace {

using StatementPtr = std::unique_ptr<Statement>;

class Parser : public ExpressionParser {
 public:
  explicit Parser(std::string_view source) : ExpressionParser(Tokenize(source)) {}

  Body Run() { return ParseBody({}); }

 private:
  using Parse = StatementPtr (Parser::*)(int line);

  // Text and tags up to a tag whose name is in `ends`; that tag's name is the next token then.
  Body ParseBody(std::initializer_list<std::string_view> ends) {
    const Level level(this);
    Body body;
    const int line = Now().line;
    while (Now().kind != TokenKind::kEnd) {
      if (Now().kind == TokenKind::kText) {
        const Token text = Take();
        body.statements.push_back(Make(StatementKind::kText, text.line));
        body.statements.back()->text = text.text;
      } else if (Now().kind == TokenKind::kOutputBegin) {
        StatementPtr output = Make(StatementKind::kOutput, Take().line);
        output->value = ParseTuple();
        Expect(TokenKind::kOutputEnd, "\"}}\"");
        body.statements.push_back(std::move(output));
      } else {
        Take();
        if (std::find(ends.begin(), ends.end(), Now().text) != ends.end()) return body;
        body.statements.push_back(ParseStatement());
        Expect(TokenKind::kBlockEnd, "\"%}\"");
      }
    }
    if (ends.size() > 0) throw SyntaxFailure(line, Message("expected \"{% ", *ends.begin(), " %}\" before the end"));
    return body;
  }

  // The body of a tag, from its "%}" to the name of the tag that ends it.
  Body ParseBlock(std::initializer_list<std::string_view> ends) {
    Expect(TokenKind::kBlockEnd, "\"%}\"");
    return ParseBody(ends);
  }

  StatementPtr ParseStatement() {
    constexpr std::pair<std::string_view, Parse> kStatements[] = {
        {"if", &Parser::ParseIf},         {"for", &Parser::ParseFor},
        {"set", &Parser::ParseSet},       {"macro", &Parser::ParseMacro},
        {"call", &Parser::ParseCallBlock}, {"filter", &Parser::ParseFilterBlock},
        {"with", &Parser::ParseWith},     {"generation", &Parser::ParseGeneration},
        {"break", &Parser::ParseBreak},   {"continue", &Parser::ParseContinue},
    };
    const int line = Now().line;
    const std::string name = ExpectName("the name of a tag");
    for (const auto& [known, parse] : kStatements) {
      if (name == known) return (this->*parse)(line);
    }
    if (name == "else" || name == "elif" || name.starts_with("end")) {
      throw SyntaxFailure(line, Message("\"{% ", name, " %}\" has no beginning"));
    }
    throw SyntaxFailure(line, Message("statement \"", name, "\" is not supported"), Fault::kUnsupported);
  }

  StatementPtr ParseIf(int line) {
    StatementPtr node = Make(StatementKind::kIf, line);
    do {
      node->conditions.push_back(ParseTuple(Conditions::kStop));
      node->bodies.push_back(ParseBlock({"endif", "elif", "else"}));
    } while (TakeName("elif"));
    if (TakeName("else")) {
      node->bodies.push_back(ParseBlock({"endif"}));
    } else {
      node->bodies.emplace_back();
    }
    Take();
    return node;
  }

  StatementPtr ParseFor(int line) {
    StatementPtr node = Make(StatementKind::kFor, line);
    node->target = ParseTarget("in");
    if (!TakeName("in")) FailAt(Now(), "\"in\"");
    node->value = ParseTuple(Conditions::kStop, "recursive");
    if (TakeName("if")) node->condition = ParseExpression();
    if (IsName("recursive")) {
      throw SyntaxFailure(line, "\"recursive\" loops are not supported", Fault::kUnsupported);
    }
    ++num_loops_;
    node->bodies.push_back(ParseBlock({"endfor", "else"}));
    --num_loops_;
    if (TakeName("else")) {
      node->bodies.push_back(ParseBlock({"endfor"}));
    } else {
      node->bodies.emplace_back();
    }
    Take();
    return node;
  }

  StatementPtr ParseSet(int line) {
    StatementPtr node = Make(StatementKind::kSet, line);
    node->target = ParseTarget();
    if (TakeOperator("=")) {
      node->value = ParseTuple();
      return node;
    }
    node->kind = StatementKind::kSetBlock;
    if (IsOperator("|")) node->value = ParseFilters(nullptr);
    node->bodies.push_back(ParseBlock({"endset"}));
    Take();
    return node;
  }

  StatementPtr ParseMacro(int line) {
    StatementPtr node = Make(StatementKind::kMacro, line);
    node->macro = std::make_unique<MacroSyntax>();
    node->macro->name = ExpectName("the name of a macro");
    ParseParameters(node->macro.get());
    ParseFunctionBody(node->macro.get(), "endmacro");
    return node;
  }

  StatementPtr ParseCallBlock(int line) {
    StatementPtr node = Make(StatementKind::kCallBlock, line);
    node->macro = std::make_unique<MacroSyntax>();
    node->macro->name = "caller";
    if (IsOperator("(")) ParseParameters(node->macro.get());
    node->value = ParseExpression();
    if (node->value->kind != ExprKind::kCall) throw SyntaxFailure(line, "expected a call behind \"call\"");
    ParseFunctionBody(node->macro.get(), "endcall");
    return node;
  }

  StatementPtr ParseGeneration(int line) {
    StatementPtr node = Make(StatementKind::kGeneration, line);
    // Jinja makes a function of it, which a loop outside of it does not reach.
    const int num_loops = std::exchange(num_loops_, 0);
    node->bodies.push_back(ParseBlock({"endgeneration"}));
    num_loops_ = num_loops;
    Take();
    return node;
  }

  void ParseFunctionBody(MacroSyntax* macro, std::string_view end) {
    macros_.push_back(macro);
    const int num_loops = std::exchange(num_loops_, 0);
    macro->body = ParseBlock({end});
    num_loops_ = num_loops;
    macros_.pop_back();
    Take();
  }

  void ParseParameters(MacroSyntax* macro) {
    ExpectOperator("(");
    while (!IsOperator(")")) {
      if (!macro->parameters.empty()) ExpectOperator(",");
      const Token name = Now();
      macro->parameters.push_back(ExpectAssignable());
      if (name.text == "caller" || name.text == "kwargs" || name.text == "varargs") {
        throw SyntaxFailure(name.line, Message("a parameter \"", name.text, "\" is not supported"),
                            Fault::kUnsupported);
      }
      if (TakeOperator("=")) {
        macro->defaults.push_back(ParseExpression());
      } else if (!macro->defaults.empty()) {
        FailAt(Now(), "a default, as the parameter before has one");
      }
    }
    ExpectOperator(")");
  }

  StatementPtr ParseFilterBlock(int line) {
    StatementPtr node = Make(StatementKind::kFilterBlock, line);
    node->value = ParseFilters(nullptr, true);
    node->bodies.push_back(ParseBlock({"endfilter"}));
    Take();
    return node;
  }

  StatementPtr ParseWith(int line) {
    StatementPtr node = Make(StatementKind::kWith, line);
    while (Now().kind != TokenKind::kBlockEnd) {
      if (!node->targets.empty()) ExpectOperator(",");
      node->targets.push_back(ParseTarget());
      ExpectOperator("=");
      node->conditions.push_back(ParseExpression());
    }
    node->bodies.push_back(ParseBlock({"endwith"}));
    Take();
    return node;
  }

  StatementPtr ParseBreak(int line) { return ParseJump(StatementKind::kBreak, line, "break"); }
  StatementPtr ParseContinue(int line) { return ParseJump(StatementKind::kContinue, line, "continue"); }

  StatementPtr ParseJump(StatementKind kind, int line, std::string_view name) const {
    if (num_loops_ == 0) throw SyntaxFailure(line, Message("\"", name, "\" outside of a loop"));
    return Make(kind, line);
  }

  std::string ExpectAssignable() {
    constexpr std::string_view kConstants[] = {"true", "false", "none", "True", "False", "None"};
    const Token token = Now();
    std::string name = ExpectName("a name");
    if (std::find(std::begin(kConstants), std::end(kConstants), name) != std::end(kConstants)) {
      FailAt(token, "a name that can be set");
    }
    return name;
  }

  // "name", "namespace.name", "a, b", "(a, b), c".
  Target ParseTarget(std::string_view end = "") {
    Target tuple{Now().line};
    tuple.is_tuple = true;
    bool has_comma = false;
    const auto is_end = [&] {
      return IsOperator(")") || IsOperator("=") || Now().kind == TokenKind::kBlockEnd || (!end.empty() && IsName(end));
    };
    while (!is_end()) {
      tuple.parts.push_back(ParseSingleTarget());
      if (!TakeOperator(",")) break;
      has_comma = true;
    }
    if (tuple.parts.empty()) FailAt(Now(), "a name to set");
    return has_comma ? std::move(tuple) : std::move(tuple.parts[0]);
  }

  Target ParseSingleTarget() {
    const Level level(this);
    if (TakeOperator("(")) {
      Target inner = ParseTarget();
      ExpectOperator(")");
      return inner;
    }
    Target target{Now().line};
    target.name = ExpectAssignable();
    if (TakeOperator(".")) target.attribute = ExpectName("a name behind \".\"");
    return target;
  }

  void Expect(TokenKind kind, std::string_view shown) {
    if (Now().kind != kind) FailAt(Now(), shown);
    Take();
  }

  static StatementPtr Make(StatementKind kind, int line) { return std::make_unique<Statement>(Statement{kind, line}); }

  int num_loops_ = 0;  // around what is parsed, within its function
};

}  // namespace

Body ParseTemplate(std::string_view source) {
  Body body = Parser(source).Run();
  HideNames(&body);
  return body;
}

}  // namespace dgrt::jinja
