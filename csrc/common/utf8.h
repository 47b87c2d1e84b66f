// UTF-8: where characters begin and end, what is not UTF-8, which characters are white space. Used by all of text/ and by capi/ for error texts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dgrt::utf8 {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class SequenceKind {
  kCharacter,   // a whole character
  kIncomplete,  // the text ends inside of it
  kInvalid,     // the longest start of a character that something else follows, or one byte that starts none
};

struct Sequence {
  size_t size = 0;  // bytes, at least 1
  SequenceKind kind = SequenceKind::kInvalid;
};

// The sequence at the start of a text that is not empty. Invalid ones have the lengths that the Unicode standard
// recommends to replace by one U+FFFD each (3.9, "maximal subparts"), as Rust's from_utf8_lossy does.
inline Sequence FirstSequence(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {1, SequenceKind::kCharacter};
  if (lead < 0xC2 || lead > 0xF4) return {1, SequenceKind::kInvalid};
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and what is beyond U+10FFFF.
  unsigned char lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned char highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {i, SequenceKind::kIncomplete};
    if (byte(i) < lowest || byte(i) > highest) return {i, SequenceKind::kInvalid};
    lowest = 0x80;
    highest = 0xBF;
  }
  return {size, SequenceKind::kCharacter};
}

// Offset of the first byte that is not part of a whole character; text.size() if there is none.
inline size_t FindInvalid(std::string_view text) {
  size_t offset = 0;
  while (offset < text.size()) {
    const Sequence sequence = FirstSequence(text.substr(offset));
    if (sequence.kind != SequenceKind::kCharacter) break;
    offset += sequence.size;
  }
  return offset;
}

// Bytes of the first character of a valid text that is not empty.
inline size_t CharacterSize(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// Code point of the first character of a valid text that is not empty.
inline uint32_t FirstCodePoint(std::string_view text) {
  const size_t size = CharacterSize(text);
  uint32_t code = static_cast<unsigned char>(text[0]) & (size == 1 ? 0x7Fu : 0xFFu >> (size + 1));
  for (size_t i = 1; i < size; ++i) code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3Fu);
  return code;
}

// Start of the last character of a valid text that is not empty.
inline size_t LastCharacter(std::string_view text) {
  size_t start = text.size() - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  return start;
}

// Unicode's White_Space, which is what `\s` means to Hugging Face.
inline bool IsWhiteSpace(uint32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

}  // namespace dgrt::utf8
