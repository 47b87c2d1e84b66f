// A template's text to tokens, with Jinja's rules about white space: trim_blocks and lstrip_blocks are on, and one
// newline at the end of the template is dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/failure.h"

namespace dgrt::jinja {

enum class TokenKind {
  kText,  // outside of tags
  kOutputBegin,
  kOutputEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// Where a template stopped making sense.
class SyntaxFailure : public Failure {
 public:
  SyntaxFailure(int line, const std::string& message, Fault fault = Fault::kSyntax)
      : Failure(fault, message), line_(line) {}
  int line() const { return line_; }

 private:
  int line_;
};

// `source` is UTF-8. Throws SyntaxFailure.
std::vector<Token> Tokenize(std::string_view source);

}  // namespace dgrt::jinja
