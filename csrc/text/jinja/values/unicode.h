// Characters as Python's str sees them. Texts are valid UTF-8 throughout: what enters is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dgrt::jinja {

bool IsSpace(uint32_t code);      // str.isspace
bool IsPrintable(uint32_t code);  // str.isprintable
bool IsAscii(std::string_view text);
void AppendUtf8(uint32_t code, std::string* text);

std::vector<std::string_view> Characters(std::string_view text);
size_t CountCharacters(std::string_view text);
// Bytes of the first `count` characters; all, if there are fewer.
size_t BytesOfCharacters(std::string_view text, size_t count);
size_t BytesOfLeadingSpace(std::string_view text);
size_t BytesOfTrailingSpace(std::string_view text);

// str.lower, str.upper, str.capitalize. Throw for the few letters whose form depends on what is around them.
std::string ToLower(std::string_view text);
std::string ToUpper(std::string_view text);
std::string Capitalize(std::string_view text);

}  // namespace dgrt::jinja
