// Implementation of expression_parser.h.
#include "text/jinja/syntax/expression_parser.h"

#include <algorithm>
#include <charconv>

#include "text/jinja/builtins/registry.h"
#include "text/jinja/limits.h"

namespace dgrt::jinja {
namespace {

constexpr std::string_view kCompareOperators[] = {"==", "!=", "<", "<=", ">", ">="};
// Filters whose argument is the name of a filter or a test, and the place of that argument.
constexpr std::pair<std::string_view, size_t> kNameArguments[] = {
    {"map", 1}, {"select", 1}, {"reject", 1}, {"selectattr", 2}, {"rejectattr", 2}};

bool IsWord(TokenKind kind) { return kind >= TokenKind::kName && kind <= TokenKind::kFloat; }

std::string Shown(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText: return "text";
    case TokenKind::kOutputBegin: return "\"{{\"";
    case TokenKind::kOutputEnd: return "\"}}\"";
    case TokenKind::kBlockBegin: return "\"{%\"";
    case TokenKind::kBlockEnd: return "\"%}\"";
    case TokenKind::kString: return "a string";
    case TokenKind::kEnd: return "the end of the template";
    default: return Message('"', token.text, '"');
  }
}

Value MakeText(std::string text) { return std::make_shared<const Text>(std::move(text), false, nullptr); }

[[noreturn]] void Unknown(int line, std::string_view kind, std::string_view name) {
  throw SyntaxFailure(line, Message(kind, " \"", name, "\" is not supported"), Fault::kUnsupported);
}

}  // namespace

ExpressionParser::Level::Level(ExpressionParser* parser) : parser_(parser) {
  if (++parser_->nesting_ > kMaxNesting) {
    throw SyntaxFailure(parser_->Now().line, Message("nested more than ", kMaxNesting, " levels deep"),
                        Fault::kUnsupported);
  }
}

Token ExpressionParser::Take() {
  Token token = Now();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool ExpressionParser::TakeName(std::string_view name) {
  const bool is_here = IsName(name);
  if (is_here) Take();
  return is_here;
}

bool ExpressionParser::TakeOperator(std::string_view name) {
  const bool is_here = IsOperator(name);
  if (is_here) Take();
  return is_here;
}

void ExpressionParser::ExpectOperator(std::string_view name) {
  if (!TakeOperator(name)) FailAt(Now(), Message('"', name, '"'));
}

std::string ExpressionParser::ExpectName(std::string_view what) {
  if (Now().kind != TokenKind::kName) FailAt(Now(), what);
  return Take().text;
}

void ExpressionParser::FailAt(const Token& token, std::string_view expected) const {
  throw SyntaxFailure(token.line, Message("expected ", expected, ", found ", Shown(token)));
}

void ExpressionParser::Add(Expr* parent, ExprPtr part) const {
  if (part != nullptr) parent->depth = std::max(parent->depth, part->depth + 1);
  if (parent->depth > kMaxExpressionDepth) {
    throw SyntaxFailure(parent->line, Message("an expression of more than ", kMaxExpressionDepth, " levels"),
                        Fault::kUnsupported);
  }
  parent->parts.push_back(std::move(part));
}

ExprPtr ExpressionParser::Combine(ExprKind kind, int line, std::string name, ExprPtr first, ExprPtr second) const {
  ExprPtr node = Make(kind, line);
  node->name = std::move(name);
  Add(node.get(), std::move(first));
  if (second != nullptr) Add(node.get(), std::move(second));
  return node;
}

ExprPtr ExpressionParser::ParseExpression(Conditions conditions) {
  const Level level(this);
  if (conditions == Conditions::kStop) return ParseOr();
  ExprPtr value = ParseOr();
  while (IsName("if")) {
    ExprPtr node = Make(ExprKind::kCondition, Take().line);
    Add(node.get(), ParseOr());
    Add(node.get(), std::move(value));
    Add(node.get(), TakeName("else") ? ParseExpression() : nullptr);
    value = std::move(node);
  }
  return value;
}

bool ExpressionParser::IsTupleEnd(std::string_view end) const {
  return Now().kind == TokenKind::kOutputEnd || Now().kind == TokenKind::kBlockEnd || IsOperator(")") ||
         (!end.empty() && IsName(end));
}

ExprPtr ExpressionParser::ParseTuple(Conditions conditions, std::string_view end) {
  ExprPtr tuple = Make(ExprKind::kTuple, Now().line);
  bool has_comma = false;
  while (!IsTupleEnd(end)) {
    Add(tuple.get(), ParseExpression(conditions));
    if (!TakeOperator(",")) break;
    has_comma = true;
  }
  if (has_comma) return tuple;
  if (tuple->parts.empty()) FailAt(Now(), "an expression");
  return std::move(tuple->parts[0]);
}

ExprPtr ExpressionParser::ParseOr() {
  ExprPtr left = ParseAnd();
  while (IsName("or")) {
    const int line = Take().line;
    left = Combine(ExprKind::kOr, line, "", std::move(left), ParseAnd());
  }
  return left;
}

ExprPtr ExpressionParser::ParseAnd() {
  ExprPtr left = ParseNot();
  while (IsName("and")) {
    const int line = Take().line;
    left = Combine(ExprKind::kAnd, line, "", std::move(left), ParseNot());
  }
  return left;
}

ExprPtr ExpressionParser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  const Level level(this);
  const int line = Take().line;
  return Combine(ExprKind::kNot, line, "", ParseNot());
}

ExprPtr ExpressionParser::ParseCompare() {
  ExprPtr first = ParseSum();
  ExprPtr node = Make(ExprKind::kCompare, Now().line);
  Add(node.get(), std::move(first));
  while (true) {
    const bool is_not_in = IsName("not") && Next().kind == TokenKind::kName && Next().text == "in";
    const bool is_symbol = Now().kind == TokenKind::kOperator &&
                           std::find(std::begin(kCompareOperators), std::end(kCompareOperators), Now().text) !=
                               std::end(kCompareOperators);
    if (!is_not_in && !is_symbol && !IsName("in")) break;
    if (is_not_in) Take();
    const std::string name = Take().text;
    node->operators.push_back(is_not_in ? "not in" : name);
    Add(node.get(), ParseSum());
  }
  return node->operators.empty() ? std::move(node->parts[0]) : std::move(node);
}

ExprPtr ExpressionParser::ParseSum() {
  ExprPtr left = ParseConcat();
  while (IsOperator("+") || IsOperator("-")) {
    const Token sign = Take();
    left = Combine(ExprKind::kBinary, sign.line, sign.text, std::move(left), ParseConcat());
  }
  return left;
}

ExprPtr ExpressionParser::ParseConcat() {
  ExprPtr first = ParseProduct();
  if (!IsOperator("~")) return first;
  ExprPtr node = Combine(ExprKind::kConcat, Now().line, "", std::move(first));
  while (TakeOperator("~")) Add(node.get(), ParseProduct());
  return node;
}

ExprPtr ExpressionParser::ParseProduct() {
  ExprPtr left = ParsePower();
  while (IsOperator("*") || IsOperator("/") || IsOperator("//") || IsOperator("%")) {
    const Token sign = Take();
    left = Combine(ExprKind::kBinary, sign.line, sign.text, std::move(left), ParsePower());
  }
  return left;
}

// From the left, other than in Python.
ExprPtr ExpressionParser::ParsePower() {
  ExprPtr left = ParseUnary();
  while (IsOperator("**")) {
    const Token sign = Take();
    left = Combine(ExprKind::kBinary, sign.line, sign.text, std::move(left), ParseUnary());
  }
  return left;
}

ExprPtr ExpressionParser::ParseUnary(bool with_filters) {
  ExprPtr node;
  if (IsOperator("-") || IsOperator("+")) {
    const Level level(this);
    const Token sign = Take();
    node = Combine(ExprKind::kSign, sign.line, sign.text, ParseUnary(false));
  } else {
    node = ParsePrimary();
  }
  node = ParsePostfix(std::move(node));
  return with_filters ? ParseFilters(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::ParsePrimary() {
  switch (Now().kind) {
    case TokenKind::kName: return ParseName();
    case TokenKind::kString: return ParseString();
    case TokenKind::kInteger:
    case TokenKind::kFloat: return ParseNumber();
    default: break;
  }
  if (IsOperator("(")) {
    const Level level(this);
    const int line = Take().line;
    ExprPtr value = IsOperator(")") ? Make(ExprKind::kTuple, line) : ParseTuple();
    ExpectOperator(")");
    return value;
  }
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  FailAt(Now(), "an expression");
}

ExprPtr ExpressionParser::ParseName() {
  const Token token = Take();
  ExprPtr node = Make(ExprKind::kConstant, token.line);
  if (token.text == "true" || token.text == "True") {
    node->constant = true;
  } else if (token.text == "false" || token.text == "False") {
    node->constant = false;
  } else if (token.text == "none" || token.text == "None") {
    node->constant = None{};
  } else {
    node->kind = ExprKind::kName;
    node->name = token.text;
    node->constant = MakeText(token.text);
    for (MacroSyntax* macro : macros_) {
      macro->uses_caller = macro->uses_caller || token.text == "caller";
      macro->uses_kwargs = macro->uses_kwargs || token.text == "kwargs";
      macro->uses_varargs = macro->uses_varargs || token.text == "varargs";
    }
  }
  return node;
}

ExprPtr ExpressionParser::ParseString() {
  ExprPtr node = Make(ExprKind::kConstant, Now().line);
  std::string text;
  while (Now().kind == TokenKind::kString) text += Take().text;
  node->constant = MakeText(std::move(text));
  return node;
}

ExprPtr ExpressionParser::ParseNumber() {
  const Token token = Take();
  ExprPtr node = Make(ExprKind::kConstant, token.line);
  const char *begin = token.text.data(), *end = begin + token.text.size();
  std::from_chars_result result{};
  if (token.kind == TokenKind::kFloat) {
    double real = 0;
    result = std::from_chars(begin, end, real);
    node->constant = real;
  } else {
    const char letter = token.text.size() > 2 ? static_cast<char>(token.text[1] | 0x20) : '0';
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    int64_t integer = 0;
    result = std::from_chars(begin + (base == 10 ? 0 : 2), end, integer, base);
    node->constant = integer;
  }
  if (result.ec != std::errc() || result.ptr != end) {
    throw SyntaxFailure(token.line, Message("the number ", token.text, " does not fit in 64 bits"),
                        Fault::kUnsupported);
  }
  return node;
}

ExprPtr ExpressionParser::ParseList() {
  const Level level(this);
  ExprPtr node = Make(ExprKind::kList, Take().line);
  while (!IsOperator("]")) {
    if (!node->parts.empty()) ExpectOperator(",");
    if (IsOperator("]")) break;
    Add(node.get(), ParseExpression());
  }
  ExpectOperator("]");
  return node;
}

ExprPtr ExpressionParser::ParseDict() {
  const Level level(this);
  ExprPtr node = Make(ExprKind::kDict, Take().line);
  while (!IsOperator("}")) {
    if (!node->parts.empty()) ExpectOperator(",");
    if (IsOperator("}")) break;
    Add(node.get(), ParseExpression());
    ExpectOperator(":");
    Add(node.get(), ParseExpression());
  }
  ExpectOperator("}");
  return node;
}

ExprPtr ExpressionParser::ParsePostfix(ExprPtr subject) {
  while (true) {
    if (IsOperator(".") || IsOperator("[")) {
      subject = ParseSubscript(std::move(subject));
    } else if (IsOperator("(")) {
      subject = ParseCall(std::move(subject));
    } else {
      return subject;
    }
  }
}

ExprPtr ExpressionParser::ParseSubscript(ExprPtr subject) {
  const Token open = Take();
  if (open.text == ".") {
    if (Now().kind == TokenKind::kInteger) {
      return Combine(ExprKind::kItem, open.line, "", std::move(subject), ParseNumber());
    }
    ExprPtr node = Combine(ExprKind::kAttribute, open.line, "", std::move(subject));
    node->constant = MakeText(ExpectName("a name behind \".\""));
    return node;
  }
  const Level level(this);
  ExprPtr slice = Combine(ExprKind::kSlice, open.line, "", std::move(subject));
  bool is_slice = false;
  const auto is_end = [&] { return IsOperator(":") || IsOperator("]") || IsOperator(","); };
  Add(slice.get(), is_end() ? nullptr : ParseExpression());
  for (int i = 0; i < 2; ++i) {
    const bool has_part = TakeOperator(":");
    is_slice = is_slice || has_part;
    Add(slice.get(), has_part && !is_end() ? ParseExpression() : nullptr);
  }
  if (IsOperator(",")) throw SyntaxFailure(Now().line, "subscripts with commas are not supported", Fault::kUnsupported);
  if (!is_slice && slice->parts[1] == nullptr) FailAt(Now(), "a subscript");
  ExpectOperator("]");
  if (is_slice) return slice;
  return Combine(ExprKind::kItem, open.line, "", std::move(slice->parts[0]), std::move(slice->parts[1]));
}

ExprPtr ExpressionParser::ParseCall(ExprPtr subject) {
  ExprPtr call = Combine(ExprKind::kCall, Now().line, "", std::move(subject));
  ParseArguments(call.get());
  return call;
}

void ExpressionParser::ParseArguments(Expr* call) {
  const Level level(this);
  ExpectOperator("(");
  bool is_first = true;
  while (!IsOperator(")")) {
    if (!is_first) ExpectOperator(",");
    is_first = false;
    if (IsOperator(")")) break;
    if (IsOperator("*") || IsOperator("**")) {
      throw SyntaxFailure(Now().line, "arguments with * or ** are not supported", Fault::kUnsupported);
    }
    if (Now().kind == TokenKind::kName && Next().kind == TokenKind::kOperator && Next().text == "=") {
      const Token name = Take();
      Take();
      for (const auto& [other, value] : call->named) {
        if (other == name.text) throw SyntaxFailure(name.line, Message("argument \"", other, "\" is given twice"));
      }
      ExprPtr value = ParseExpression();
      call->depth = std::max(call->depth, value->depth + 1);
      call->named.emplace_back(name.text, std::move(value));
    } else {
      if (!call->named.empty()) FailAt(Now(), "only arguments with names behind the first such");
      Add(call, ParseExpression());
    }
  }
  ExpectOperator(")");
}

std::string ExpressionParser::ParseDottedName() {
  std::string name = ExpectName("a name");
  while (TakeOperator(".")) name.append(".").append(ExpectName("a name behind \".\""));
  return name;
}

ExprPtr ExpressionParser::ParseFilters(ExprPtr subject, bool is_bare) {
  const bool only_filters = is_bare;
  while (true) {
    if (is_bare || IsOperator("|")) {
      if (!is_bare) Take();
      is_bare = false;
      ExprPtr node = Combine(ExprKind::kFilter, Now().line, "", std::move(subject));
      node->name = ParseDottedName();
      node->filter = FindFilter(node->name);
      if (node->filter == nullptr) Unknown(node->line, "filter", node->name);
      if (IsOperator("(")) ParseArguments(node.get());
      CheckTestOfFilter(*node);
      subject = std::move(node);
    } else if (!only_filters && IsName("is")) {
      subject = ParseTest(std::move(subject));
    } else if (!only_filters && IsOperator("(")) {
      subject = ParseCall(std::move(subject));
    } else {
      return subject;
    }
  }
}

// select("name") names a test: unknown ones are told now, where the name is a plain string.
void ExpressionParser::CheckTestOfFilter(const Expr& filter) const {
  for (const auto& [name, place] : kNameArguments) {
    if (filter.name != name || filter.parts.size() <= place) continue;
    const Expr& argument = *filter.parts[place];
    if (argument.kind != ExprKind::kConstant || !argument.constant.IsString()) continue;
    const std::string& called = argument.constant.text();
    if (name == "map" && FindFilter(called) == nullptr) Unknown(filter.line, "filter", called);
    if (name != "map" && FindTest(called) == nullptr) Unknown(filter.line, "test", called);
  }
}

ExprPtr ExpressionParser::ParseTest(ExprPtr subject) {
  const int line = Take().line;
  const bool is_negated = TakeName("not");
  ExprPtr node = Combine(ExprKind::kTest, line, "", std::move(subject));
  node->name = ParseDottedName();
  node->test = FindTest(node->name);
  if (node->test == nullptr) Unknown(line, "test", node->name);
  if (IsOperator("(")) {
    ParseArguments(node.get());
  } else if ((IsWord(Now().kind) || IsOperator("[") || IsOperator("{")) && !IsName("else") && !IsName("or") &&
             !IsName("and")) {
    if (IsName("is")) throw SyntaxFailure(line, "several tests with \"is\" behind one value");
    Add(node.get(), ParsePostfix(ParsePrimary()));
  }
  return is_negated ? Combine(ExprKind::kNot, line, "", std::move(node)) : std::move(node);
}

}  // namespace dgrt::jinja
