// Expressions, with Jinja's precedence: or, and, not, comparison, + -, ~, * / // %, **, sign. Base of the parser of
// statements.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/syntax/lexer.h"
#include "text/jinja/syntax/syntax.h"

namespace dgrt::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  enum class Conditions { kAllow, kStop };  // whether "a if b" is one expression

  ExprPtr ParseExpression(Conditions conditions = Conditions::kAllow);
  // One expression, or several with commas as a tuple; `end` is a name that ends it.
  ExprPtr ParseTuple(Conditions conditions = Conditions::kAllow, std::string_view end = "");
  ExprPtr ParsePrimary();
  ExprPtr ParseUnary(bool with_filters = true);
  // "| name(...)", as many as there are; a bare list begins without "|".
  ExprPtr ParseFilters(ExprPtr subject, bool is_bare = false);

  const Token& Now() const { return tokens_[at_]; }
  const Token& Next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token Take();
  bool Is(TokenKind kind, std::string_view text) const { return Now().kind == kind && Now().text == text; }
  bool IsName(std::string_view name) const { return Is(TokenKind::kName, name); }
  bool IsOperator(std::string_view name) const { return Is(TokenKind::kOperator, name); }
  bool TakeName(std::string_view name);
  bool TakeOperator(std::string_view name);
  void ExpectOperator(std::string_view name);
  std::string ExpectName(std::string_view what);
  [[noreturn]] void FailAt(const Token& token, std::string_view expected) const;

  // Counts a level of the text's nesting while it lives.
  class Level {
   public:
    explicit Level(ExpressionParser* parser);
    ~Level() { --parser_->nesting_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    ExpressionParser* parser_;
  };

  std::vector<MacroSyntax*> macros_{};  // that are being parsed, the innermost last

 private:
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  ExprPtr ParseCompare();
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParsePostfix(ExprPtr subject);
  ExprPtr ParseSubscript(ExprPtr subject);
  ExprPtr ParseCall(ExprPtr subject);
  ExprPtr ParseTest(ExprPtr subject);
  ExprPtr ParseList();
  ExprPtr ParseDict();
  ExprPtr ParseName();
  ExprPtr ParseString();
  ExprPtr ParseNumber();
  void ParseArguments(Expr* call);
  std::string ParseDottedName();
  void CheckTestOfFilter(const Expr& filter) const;
  bool IsTupleEnd(std::string_view end) const;

  static ExprPtr Make(ExprKind kind, int line) { return std::make_unique<Expr>(Expr{kind, line}); }
  ExprPtr Combine(ExprKind kind, int line, std::string name, ExprPtr first, ExprPtr second = nullptr) const;
  void Add(Expr* parent, ExprPtr part) const;  // keeps account of the depth

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace dgrt::jinja
