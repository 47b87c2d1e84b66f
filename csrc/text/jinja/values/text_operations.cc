// Implementation of text_operations.h.
#include "text/jinja/values/text_operations.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "common/utf8.h"
#include "text/jinja/failure.h"
#include "text/jinja/limits.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja {
namespace {

constexpr auto kNone = std::string_view::npos;

size_t FirstSize(std::string_view text) { return utf8::CharacterSize(text); }
size_t LastSize(std::string_view text) { return text.size() - utf8::LastCharacter(text); }

bool IsStripped(std::string_view character, const std::string* characters) {
  // A match inside of another character is impossible in UTF-8.
  if (characters != nullptr) return characters->find(character) != std::string::npos;
  return IsSpace(utf8::FirstCodePoint(character));
}

// The number without spaces and underscores; nothing if they stand where Python has none.
std::optional<std::string> Digits(std::string_view text) {
  text = Strip(text, Side::kBoth);
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      digits.push_back(text[i]);
      continue;
    }
    constexpr std::string_view kWord = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const auto is_word = [&](size_t at) { return at < text.size() && kWord.find(text[at]) != kNone; };
    if (i == 0 || !is_word(i - 1) || !is_word(i + 1)) return std::nullopt;
  }
  if (!IsAscii(digits)) NotSupported("numbers in other digits than 0 to 9 are not supported");
  return digits;
}

}  // namespace

std::string_view Strip(std::string_view text, Side side, const std::string* characters) {
  while (side != Side::kRight && !text.empty() && IsStripped(text.substr(0, FirstSize(text)), characters)) {
    text.remove_prefix(FirstSize(text));
  }
  while (side != Side::kLeft && !text.empty() && IsStripped(text.substr(text.size() - LastSize(text)), characters)) {
    text.remove_suffix(LastSize(text));
  }
  return text;
}

std::vector<std::string_view> Split(std::string_view text, const std::string* separator, int64_t max_splits) {
  std::vector<std::string_view> parts;
  if (separator == nullptr) text = Strip(text, Side::kLeft);
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    if (separator != nullptr) {
      const size_t at = text.find(*separator);
      if (at == kNone) break;
      parts.push_back(text.substr(0, at));
      text.remove_prefix(at + separator->size());
    } else {
      size_t end = 0;
      while (end < text.size() && !IsSpace(utf8::FirstCodePoint(text.substr(end)))) end += FirstSize(text.substr(end));
      if (end == 0) break;
      parts.push_back(text.substr(0, end));
      text = Strip(text.substr(end), Side::kLeft);
    }
  }
  if (separator != nullptr || !text.empty()) parts.push_back(text);
  return parts;
}

std::vector<std::string_view> SplitFromRight(std::string_view text, const std::string* separator, int64_t max_splits) {
  std::vector<std::string_view> parts;
  if (separator == nullptr) text = Strip(text, Side::kRight);
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    if (separator != nullptr) {
      const size_t at = text.rfind(*separator);
      if (at == kNone) break;
      parts.push_back(text.substr(at + separator->size()));
      text = text.substr(0, at);
    } else {
      size_t begin = text.size();
      while (begin > 0) {
        const size_t size = LastSize(text.substr(0, begin));
        if (IsSpace(utf8::FirstCodePoint(text.substr(begin - size)))) break;
        begin -= size;
      }
      if (begin == text.size()) break;
      parts.push_back(text.substr(begin));
      text = Strip(text.substr(0, begin), Side::kRight);
    }
  }
  if (separator != nullptr || !text.empty()) parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t at = 0;
  while (at < text.size()) {
    const uint32_t code = utf8::FirstCodePoint(text.substr(at));
    const bool is_end = (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
                        code == 0x2028 || code == 0x2029;
    size_t next = at + FirstSize(text.substr(at));
    if (!is_end) {
      at = next;
      continue;
    }
    if (code == '\r' && text.substr(next).starts_with('\n')) ++next;
    lines.push_back(text.substr(0, keep_ends ? next : at));
    text.remove_prefix(next);
    at = 0;
  }
  if (!text.empty()) lines.push_back(text);
  return lines;
}

std::string Replace(std::string_view text, std::string_view from, std::string_view to, int64_t max_count) {
  std::string result;
  const auto append = [&](std::string_view part) {
    if (result.size() + part.size() > kMaxTextBytes) NotSupported("a text of more than ", kMaxTextBytes, " bytes");
    result.append(part);
  };
  for (int64_t count = 0; count != max_count; ++count) {
    // An empty text is found in front of every character and at the end.
    if (from.empty()) {
      append(to);
      if (text.empty()) return result;
      append(text.substr(0, FirstSize(text)));
      text.remove_prefix(FirstSize(text));
      continue;
    }
    const size_t at = text.find(from);
    if (at == kNone) break;
    append(text.substr(0, at));
    append(to);
    text.remove_prefix(at + from.size());
  }
  append(text);
  return result;
}

std::string Escape(std::string_view text) {
  constexpr std::string_view kSpecial = "&<>'\"";
  constexpr std::string_view kEscapes[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
  std::string result;
  for (const char c : text) {
    const size_t index = kSpecial.find(c);
    if (index == kNone) {
      result.push_back(c);
    } else {
      result.append(kEscapes[index]);
    }
  }
  return result;
}

std::string CapitalizeWords(std::string_view text) {
  const auto is_between = [](std::string_view rest) {
    return std::string_view("-({[<").find(rest[0]) != kNone || IsSpace(utf8::FirstCodePoint(rest));
  };
  std::string result;
  while (!text.empty()) {
    size_t size = 0;
    const bool is_gap = is_between(text);
    while (size < text.size() && is_between(text.substr(size)) == is_gap) size += FirstSize(text.substr(size));
    const size_t first = FirstSize(text);
    result += is_gap ? std::string(text.substr(0, size))
                     : ToUpper(text.substr(0, first)) + ToLower(text.substr(first, size - first));
    text.remove_prefix(size);
  }
  return result;
}

std::optional<int64_t> ParseInteger(std::string_view text, int base) {
  const auto digits = Digits(text);
  if (!digits) return std::nullopt;
  std::string_view rest = *digits;
  const bool is_negative = rest.starts_with('-');
  if (is_negative || rest.starts_with('+')) rest.remove_prefix(1);
  const auto has_prefix = [&](char letter) {
    return rest.size() > 2 && rest[0] == '0' && (rest[1] | 0x20) == letter;
  };
  for (const auto& [letter, its_base] : {std::pair{'x', 16}, std::pair{'o', 8}, std::pair{'b', 2}}) {
    if (!has_prefix(letter) || (base != 0 && base != its_base)) continue;
    rest.remove_prefix(2);
    base = its_base;
    break;
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return std::nullopt;
  uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), magnitude, base);
  if (rest.empty() || error == std::errc::invalid_argument || end != rest.data() + rest.size()) return std::nullopt;
  if (error != std::errc() || magnitude > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    NotSupported("integers beyond 64 bits are not supported");
  }
  return is_negative ? -static_cast<int64_t>(magnitude) : static_cast<int64_t>(magnitude);
}

std::optional<double> ParseFloat(std::string_view text) {
  const auto digits = Digits(text);
  if (!digits) return std::nullopt;
  std::string_view rest = *digits;
  if (rest.starts_with('+')) rest.remove_prefix(1);
  if (rest.starts_with('-') && digits->starts_with('+')) return std::nullopt;
  const std::string lower = ToLower(rest.starts_with('-') ? rest.substr(1) : rest);
  const bool is_word = lower == "inf" || lower == "infinity" || lower == "nan";
  if (!is_word && lower.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (rest.empty() || error == std::errc::invalid_argument || end != rest.data() + rest.size()) return std::nullopt;
  if (error != std::errc()) NotSupported("the number ", rest, " is too large or too small");
  return value;
}

}  // namespace dgrt::jinja
