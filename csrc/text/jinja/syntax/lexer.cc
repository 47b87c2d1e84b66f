// Implementation of lexer.h.
#include "text/jinja/syntax/lexer.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <utility>

#include "common/utf8.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja {
namespace {

constexpr auto kNone = std::string_view::npos;
constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                           "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

std::string NormalizedNewlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    text.push_back(source[i] == '\r' ? '\n' : source[i]);
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

// What stands between the quotes, with Python's escapes.
class Unescaper {
 public:
  Unescaper(std::string_view text, int line) : text_(text), line_(line) {}

  std::string Run() {
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c != '\\') {
        result_.push_back(c);
      } else {
        Escape(text_[at_++]);  // a string never ends with a lone backslash
      }
    }
    return std::move(result_);
  }

 private:
  void Escape(char c) {
    constexpr std::string_view kShort = "\\'\"abfnrtv", kMeaning = "\\'\"\a\b\f\n\r\t\v";
    const size_t index = kShort.find(c);
    if (index != kNone) {
      result_.push_back(kMeaning[index]);
    } else if (c >= '0' && c <= '7') {
      --at_;
      Octal();
    } else if (c == 'x' || c == 'u' || c == 'U') {
      Hexadecimal(c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (c == 'N') {
      throw SyntaxFailure(line_, "escapes with names of characters (\\N) are not supported", Fault::kUnsupported);
    } else if (c != '\n') {  // a newline behind a backslash is nothing
      result_.push_back('\\');
      Literal(c);
    }
  }

  // A character that needs no escape stays; one beyond ASCII becomes its number, since Jinja unescapes the text after
  // it has spelt such characters as escapes.
  void Literal(char c) {
    if (static_cast<unsigned char>(c) < 0x80) {
      result_.push_back(c);
      return;
    }
    --at_;
    const uint32_t code = utf8::FirstCodePoint(text_.substr(at_));
    at_ += utf8::CharacterSize(text_.substr(at_));
    char spelt[12];
    std::snprintf(spelt, sizeof(spelt), code < 0x100 ? "x%02x" : code < 0x10000 ? "u%04x" : "U%08x", code);
    result_.append(spelt);
  }

  void Octal() {
    uint32_t code = 0;
    for (int i = 0; i < 3 && at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '7'; ++i) {
      code = code * 8 + static_cast<uint32_t>(text_[at_++] - '0');
    }
    AppendUtf8(code, &result_);
  }

  void Hexadecimal(int num_digits) {
    uint32_t code = 0;
    for (int i = 0; i < num_digits; ++i) {
      const char c = at_ < text_.size() ? text_[at_++] : ' ';
      const size_t digit = std::string_view("0123456789abcdef0123456789ABCDEF").find(c);
      if (digit == kNone) throw SyntaxFailure(line_, "a string has an escape with too few digits");
      code = code * 16 + static_cast<uint32_t>(digit % 16);
    }
    if (code > 0x10FFFF) throw SyntaxFailure(line_, "a string has an escape beyond U+10FFFF");
    if (code >= 0xD800 && code < 0xE000) {
      throw SyntaxFailure(line_, "a string has an escape of half a character (a surrogate)", Fault::kUnsupported);
    }
    AppendUtf8(code, &result_);
  }

  std::string_view text_;
  int line_;
  size_t at_ = 0;
  std::string result_{};
};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizedNewlines(source)), rest_(source_) {}

  std::vector<Token> Run() {
    while (!rest_.empty()) {
      const size_t begin = FindTag();
      if (begin == kNone) {
        Push(TokenKind::kText, rest_);
        Skip(rest_.size());
        break;
      }
      const char kind = rest_[begin + 1];
      const char sign = Sign(rest_.substr(begin + 2));
      PushText(rest_.substr(0, begin), sign, kind == '{');
      Skip(begin);
      if (kind == '%' && SkipRawBegin()) {
        Raw();
        continue;
      }
      const size_t size = 2 + (sign != 0 ? 1 : 0);
      if (kind == '#') {
        Skip(size);
        Comment();
      } else {
        Tag(kind == '{' ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, size);
      }
    }
    tokens_.push_back({TokenKind::kEnd, "", line_});
    return std::move(tokens_);
  }

 private:
  static char Sign(std::string_view text) { return text.starts_with('-') || text.starts_with('+') ? text[0] : '\0'; }

  size_t FindTag() const {
    for (size_t at = rest_.find('{'); at != kNone; at = rest_.find('{', at + 1)) {
      if (at + 1 < rest_.size() && std::string_view("{%#").find(rest_[at + 1]) != kNone) return at;
    }
    return kNone;
  }

  void Skip(size_t num_bytes) {
    if (num_bytes == 0) return;
    const std::string_view skipped = rest_.substr(0, num_bytes);
    line_ += static_cast<int>(std::count(skipped.begin(), skipped.end(), '\n'));
    is_line_start_ = skipped.ends_with('\n');
    rest_.remove_prefix(num_bytes);
  }

  void Push(TokenKind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), line_}); }

  // Text in front of a tag: without what the tag's sign takes away, or, in front of blocks and comments, without the
  // white space of a line that holds nothing else.
  void PushText(std::string_view text, char sign, bool is_output) {
    if (sign == '-') {
      text.remove_suffix(BytesOfTrailingSpace(text));
    } else if (sign != '+' && !is_output) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == kNone ? 0 : newline + 1;
      const bool is_alone = BytesOfLeadingSpace(text.substr(line)) == text.size() - line;
      if ((newline != kNone || is_line_start_) && is_alone) text = text.substr(0, line);
    }
    if (!text.empty()) Push(TokenKind::kText, text);
  }

  // Size of "{% NAME %}" with its signs at the start of `text` up to the closing sign; nothing if it is not that.
  static std::optional<size_t> SizeOfPlainTag(std::string_view text, std::string_view name) {
    if (!text.starts_with("{%")) return std::nullopt;
    size_t at = 2 + (Sign(text.substr(2)) != 0 ? 1 : 0);
    at += BytesOfLeadingSpace(text.substr(at));
    if (!text.substr(at).starts_with(name)) return std::nullopt;
    at += name.size();
    return at + BytesOfLeadingSpace(text.substr(at));
  }

  bool SkipRawBegin() {
    const auto size = SizeOfPlainTag(rest_, "raw");
    if (!size) return false;
    const std::string_view end = rest_.substr(*size);
    if (end.starts_with("%}")) {
      Skip(*size + 2);
    } else if (end.starts_with("-%}")) {
      Skip(*size + 3 + BytesOfLeadingSpace(end.substr(3)));
    } else {
      return false;
    }
    return true;
  }

  void Raw() {
    if (rest_.empty()) return;  // as in Jinja
    for (size_t at = rest_.find("{%"); at != kNone; at = rest_.find("{%", at + 1)) {
      const auto size = SizeOfPlainTag(rest_.substr(at), "endraw");
      if (!size || EndOf(rest_.substr(at + *size), "%}") == 0) continue;
      PushText(rest_.substr(0, at), Sign(rest_.substr(at + 2)), false);
      Skip(at);
      Skip(*size + EndOf(rest_.substr(*size), "%}"));
      return;
    }
    throw SyntaxFailure(line_, "\"{% raw %}\" has no \"{% endraw %}\"");
  }

  // Bytes of a closing mark with its sign and the white space that it takes away; 0 if `text` does not begin with one.
  static size_t EndOf(std::string_view text, std::string_view mark) {
    const char sign = Sign(text);
    const size_t size = mark.size() + (sign != 0 ? 1 : 0);
    if (!text.substr(sign != 0 ? 1 : 0).starts_with(mark)) return 0;
    if (sign == '-') return size + BytesOfLeadingSpace(text.substr(size));
    if (mark == "}}") return sign == 0 ? size : 0;
    return size + (sign == 0 && text.substr(size).starts_with('\n') ? 1 : 0);
  }

  void Comment() {
    if (rest_.empty()) return;  // as in Jinja
    const size_t end = rest_.find("#}");
    if (end == kNone) throw SyntaxFailure(line_, "a comment has no \"#}\"");
    const size_t mark = end > 0 && Sign(rest_.substr(end - 1)) != 0 ? end - 1 : end;
    Skip(mark + EndOf(rest_.substr(mark), "#}"));
  }

  void Tag(TokenKind begin, size_t size) {
    Push(begin, "");
    const int line = line_;
    Skip(size);
    const bool is_output = begin == TokenKind::kOutputBegin;
    const std::string_view mark = is_output ? "}}" : "%}";
    std::string brackets;  // closing ones that are due
    while (!rest_.empty()) {
      const size_t end = brackets.empty() ? EndOf(rest_, mark) : 0;
      if (end > 0) {
        Push(is_output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
        Skip(end);
        return;
      }
      if (const size_t space = BytesOfLeadingSpace(rest_)) {
        was_dot_ = false;
        Skip(space);
      } else {
        Word(&brackets);
      }
    }
    throw SyntaxFailure(line, Message("a tag has no \"", mark, "\""));
  }

  void Word(std::string* brackets) {
    const char c = rest_[0];
    if (const size_t size = SizeOfFloat()) return PushWord(TokenKind::kFloat, size);
    if (IsDigit(c)) return PushWord(TokenKind::kInteger, SizeOfInteger());
    if (IsLetter(c)) {
      size_t size = 1;
      while (size < rest_.size() && (IsLetter(rest_[size]) || IsDigit(rest_[size]))) ++size;
      return PushWord(TokenKind::kName, size);
    }
    if (c == '\'' || c == '"') return QuotedString(c);
    for (const std::string_view name : kOperators) {
      if (!rest_.starts_with(name)) continue;
      Balance(c, brackets);
      return PushWord(TokenKind::kOperator, name.size());
    }
    throw SyntaxFailure(line_, Message("unexpected character '", rest_.substr(0, utf8::CharacterSize(rest_)), "'"));
  }

  void Balance(char c, std::string* brackets) const {
    constexpr std::string_view kOpen = "([{", kClose = ")]}";
    if (const size_t index = kOpen.find(c); index != kNone) brackets->push_back(kClose[index]);
    if (kClose.find(c) == kNone) return;
    if (!brackets->ends_with(c)) throw SyntaxFailure(line_, Message("unexpected '", c, "'"));
    brackets->pop_back();
  }

  void PushWord(TokenKind kind, size_t size) {
    std::string text(rest_.substr(0, size));
    if (kind == TokenKind::kInteger || kind == TokenKind::kFloat) std::erase(text, '_');
    Push(kind, text);
    was_dot_ = text == ".";
    Skip(size);
  }

  void QuotedString(char quote) {
    size_t end = 1;
    while (end < rest_.size() && rest_[end] != quote) end += rest_[end] == '\\' ? 2 : 1;
    if (end >= rest_.size()) throw SyntaxFailure(line_, Message("a string has no closing ", quote));
    Push(TokenKind::kString, Unescaper(rest_.substr(1, end - 1), line_).Run());
    was_dot_ = false;
    Skip(end + 1);
  }

  // Bytes of digits with single underscores between them, from `at` on.
  size_t SizeOfDigits(size_t at, std::string_view digits) const {
    size_t size = 0;
    const auto is_digit = [&](size_t i) { return i < rest_.size() && digits.find(rest_[i]) != kNone; };
    while (is_digit(at + size) || (size > 0 && rest_.substr(at + size).starts_with('_') && is_digit(at + size + 1))) {
      ++size;
    }
    return size;
  }

  // "1.5", "1e5", "1.5e5"; behind a dot a number is an index, as in "list.1.2".
  size_t SizeOfFloat() const {
    constexpr std::string_view kDecimal = "0123456789";
    const size_t whole = SizeOfDigits(0, kDecimal);
    if (whole == 0 || was_dot_) return 0;
    size_t size = whole;
    if (rest_.substr(size).starts_with('.')) {
      const size_t fraction = SizeOfDigits(size + 1, kDecimal);
      if (fraction > 0) size += 1 + fraction;
    }
    if (size < rest_.size() && (rest_[size] == 'e' || rest_[size] == 'E')) {
      const size_t sign = Sign(rest_.substr(size + 1)) != 0 ? 1 : 0;
      const size_t exponent = SizeOfDigits(size + 1 + sign, kDecimal);
      if (exponent > 0) return size + 1 + sign + exponent;
    }
    return size == whole ? 0 : size;
  }

  size_t SizeOfInteger() const {
    constexpr std::pair<std::string_view, std::string_view> kBases[] = {
        {"bB", "01"}, {"oO", "01234567"}, {"xX", "0123456789abcdefABCDEF"}};
    if (rest_[0] != '0') return SizeOfDigits(0, "0123456789");
    for (const auto& [letters, digits] : kBases) {
      if (rest_.size() < 2 || letters.find(rest_[1]) == kNone) continue;
      const size_t underscore = rest_.substr(2).starts_with('_') ? 1 : 0;
      const size_t size = SizeOfDigits(2 + underscore, digits);
      if (size > 0) return 2 + underscore + size;
    }
    return SizeOfDigits(0, "0");
  }

  std::string source_;
  std::string_view rest_;
  std::vector<Token> tokens_{};
  int line_ = 1;
  bool is_line_start_ = true;
  bool was_dot_ = false;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace dgrt::jinja
