// Implementation of unicode.h.
#include "text/jinja/values/unicode.h"

#include <algorithm>
#include <iterator>

#include "common/utf8.h"
#include "text/jinja/failure.h"

namespace dgrt::jinja {
namespace {

struct CodeRange {
  uint32_t first, last;
};
struct CaseRange {
  uint32_t first, last;
  uint8_t stride;
  int32_t difference;
};
struct LongUpper {
  uint32_t code;
  const char* text;
};
#include "text/jinja/values/unicode_tables.inc"

constexpr uint32_t kSigma = 0x3A3, kDottedI = 0x130;

// `code` itself if it is in none of the ranges, which are in order and do not overlap.
template <size_t kSize>
uint32_t Mapped(const CaseRange (&ranges)[kSize], uint32_t code) {
  const auto* range = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                       [](uint32_t c, const CaseRange& r) { return c < r.first; });
  if (range == std::begin(ranges)) return code;
  --range;
  const bool is_member = code <= range->last && (code - range->first) % range->stride == 0;
  return is_member ? code + static_cast<uint32_t>(range->difference) : code;
}

void AppendUpper(std::string_view character, std::string* text) {
  const uint32_t code = utf8::FirstCodePoint(character);
  if (code < 0x80) {
    text->push_back(static_cast<char>(code >= 'a' && code <= 'z' ? code - 'a' + 'A' : code));
    return;
  }
  const auto* found = std::lower_bound(std::begin(kLongUpper), std::end(kLongUpper), code,
                                       [](const LongUpper& entry, uint32_t c) { return entry.code < c; });
  if (found != std::end(kLongUpper) && found->code == code) {
    text->append(found->text);
  } else {
    AppendUtf8(Mapped(kToUpper, code), text);
  }
}

}  // namespace

bool IsSpace(uint32_t code) { return utf8::IsWhiteSpace(code) || (code >= 0x1C && code <= 0x1F); }

bool IsPrintable(uint32_t code) {
  if (code < 0x80) return code >= 0x20 && code < 0x7F;
  const auto* range = std::upper_bound(std::begin(kNotPrintable), std::end(kNotPrintable), code,
                                       [](uint32_t c, const CodeRange& r) { return c < r.first; });
  return range == std::begin(kNotPrintable) || code > std::prev(range)->last;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

void AppendUtf8(uint32_t code, std::string* text) {
  const auto tail = [&](int shift) { text->push_back(static_cast<char>(0x80 | (code >> shift & 0x3F))); };
  if (code < 0x80) {
    text->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    text->push_back(static_cast<char>(0xC0 | code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    text->push_back(static_cast<char>(0xE0 | code >> 12));
    tail(6);
    tail(0);
  } else {
    text->push_back(static_cast<char>(0xF0 | code >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::vector<std::string_view> Characters(std::string_view text) {
  std::vector<std::string_view> characters;
  while (!text.empty()) {
    characters.push_back(text.substr(0, utf8::CharacterSize(text)));
    text.remove_prefix(characters.back().size());
  }
  return characters;
}

size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

size_t BytesOfCharacters(std::string_view text, size_t count) {
  size_t size = 0;
  for (; count > 0 && size < text.size(); --count) size += utf8::CharacterSize(text.substr(size));
  return size;
}

size_t BytesOfLeadingSpace(std::string_view text) {
  size_t size = 0;
  while (size < text.size() && IsSpace(utf8::FirstCodePoint(text.substr(size)))) {
    size += utf8::CharacterSize(text.substr(size));
  }
  return size;
}

size_t BytesOfTrailingSpace(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty() && IsSpace(utf8::FirstCodePoint(rest.substr(utf8::LastCharacter(rest))))) {
    rest = rest.substr(0, utf8::LastCharacter(rest));
  }
  return text.size() - rest.size();
}

std::string ToLower(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  while (!text.empty()) {
    const uint32_t code = utf8::FirstCodePoint(text);
    text.remove_prefix(utf8::CharacterSize(text));
    if (code < 0x80) {
      lower.push_back(static_cast<char>(code >= 'A' && code <= 'Z' ? code - 'A' + 'a' : code));
      continue;
    }
    if (code == kSigma) NotSupported("the lower case of the Greek letter sigma is not supported");
    AppendUtf8(code == kDottedI ? 'i' : Mapped(kToLower, code), &lower);
    if (code == kDottedI) AppendUtf8(0x307, &lower);  // a combining dot
  }
  return lower;
}

std::string ToUpper(std::string_view text) {
  std::string upper;
  upper.reserve(text.size());
  while (!text.empty()) {
    const size_t size = utf8::CharacterSize(text);
    AppendUpper(text.substr(0, size), &upper);
    text.remove_prefix(size);
  }
  return upper;
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return "";
  if (std::binary_search(std::begin(kNoPlainTitle), std::end(kNoPlainTitle), utf8::FirstCodePoint(text))) {
    NotSupported("the title case of the letter ", text.substr(0, utf8::CharacterSize(text)), " is not supported");
  }
  const size_t first = utf8::CharacterSize(text);
  return ToUpper(text.substr(0, first)) + ToLower(text.substr(first));
}

}  // namespace dgrt::jinja
