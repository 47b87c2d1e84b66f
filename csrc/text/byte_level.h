// GPT-2's spelling of bytes: one printable character for each, so that a vocabulary of strings can hold any bytes. The
// printable bytes of Latin-1 stand for themselves, the others for the characters from U+0100 on, in their order.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/utf8.h"

namespace dgrt::byte_level {

inline constexpr uint32_t kFirstOther = 0x100;
inline constexpr uint32_t kEnd = 0x144;  // behind the last character in use

constexpr bool IsPrintable(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

struct Tables {
  std::array<uint16_t, 256> character_of_byte{};
  std::array<int16_t, kEnd> byte_of_character{};  // -1: none
};

constexpr Tables MakeTables() {
  Tables tables;
  tables.byte_of_character.fill(-1);
  uint32_t other = kFirstOther;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint32_t character = IsPrintable(byte) ? byte : other++;
    tables.character_of_byte[byte] = static_cast<uint16_t>(character);
    tables.byte_of_character[character] = static_cast<int16_t>(byte);
  }
  return tables;
}

inline constexpr Tables kTables = MakeTables();

inline void AppendByte(unsigned char byte, std::string* word) {
  const uint32_t character = kTables.character_of_byte[byte];
  if (character >= 0x80) {
    word->push_back(static_cast<char>(0xC0 | character >> 6));
    word->push_back(static_cast<char>(0x80 | (character & 0x3F)));
  } else {
    word->push_back(static_cast<char>(character));
  }
}

// The bytes that `token` spells; a token with any other character in it stands for itself.
inline std::string Bytes(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size(); i += utf8::CharacterSize(token.substr(i))) {
    const uint32_t character = utf8::FirstCodePoint(token.substr(i));
    if (character >= kEnd || kTables.byte_of_character[character] < 0) return std::string(token);
    bytes.push_back(static_cast<char>(kTables.byte_of_character[character]));
  }
  return bytes;
}

}  // namespace dgrt::byte_level
