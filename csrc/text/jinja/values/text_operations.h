// What Python's str does with texts, in characters.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dgrt::jinja {

enum class Side { kBoth, kLeft, kRight };

// str.strip: white space, or the characters of `characters`.
std::string_view Strip(std::string_view text, Side side, const std::string* characters = nullptr);
// str.split and str.rsplit; `separator` null: at runs of white space; max_splits negative: all.
std::vector<std::string_view> Split(std::string_view text, const std::string* separator, int64_t max_splits);
std::vector<std::string_view> SplitFromRight(std::string_view text, const std::string* separator, int64_t max_splits);
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends = false);
// max_count negative: all. Throws when the result is too long.
std::string Replace(std::string_view text, std::string_view from, std::string_view to, int64_t max_count);
std::string Escape(std::string_view text);          // for HTML
std::string CapitalizeWords(std::string_view text);  // the filter `title`
// int(text, base) and float(text); nothing if the text is no number.
std::optional<int64_t> ParseInteger(std::string_view text, int base);
std::optional<double> ParseFloat(std::string_view text);

}  // namespace dgrt::jinja
