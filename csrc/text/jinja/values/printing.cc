// Implementation of printing.h.
#include "text/jinja/values/printing.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "common/utf8.h"
#include "text/jinja/limits.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja {
namespace {

void Append(std::string_view part, std::string* text) {
  if (text->size() + part.size() > kMaxTextBytes) NotSupported("a text of more than ", kMaxTextBytes, " bytes");
  text->append(part);
}

void AppendHex(const char* format, uint32_t number, std::string* text) {
  char spelt[16];
  std::snprintf(spelt, sizeof(spelt), format, number);
  Append(spelt, text);
}

void AppendQuoted(std::string_view value, std::string* text) {
  const bool has_single = value.find('\'') != std::string_view::npos;
  const bool has_double = value.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  text->push_back(quote);
  while (!value.empty()) {
    const std::string_view character = value.substr(0, utf8::CharacterSize(value));
    const uint32_t code = utf8::FirstCodePoint(character);
    value.remove_prefix(character.size());
    if (code == '\n' || code == '\r' || code == '\t') {
      Append(code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t", text);
    } else if (code == static_cast<uint32_t>(quote) || code == '\\') {
      text->push_back('\\');
      Append(character, text);
    } else if (IsPrintable(code)) {
      Append(character, text);
    } else {
      AppendHex(code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code, text);
    }
  }
  text->push_back(quote);
}

void AppendRepr(const Value& value, std::string* text);

void AppendDict(const Dict& dict, std::string* text) {
  Append("{", text);
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) Append(", ", text);
    AppendRepr(dict.entries[i].first, text);
    Append(": ", text);
    AppendRepr(dict.entries[i].second, text);
  }
  Append("}", text);
}

void AppendSequence(const Sequence& sequence, std::string* text) {
  if (sequence.kind == SequenceKind::kRange) return Append(sequence.range, text);
  const bool is_tuple = sequence.kind == SequenceKind::kTuple;
  const bool is_view = sequence.kind >= SequenceKind::kKeys;
  if (is_view) Append(Message(TypeName(&sequence), "("), text);
  Append(is_tuple ? "(" : "[", text);
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) Append(", ", text);
    AppendRepr(sequence.items[i], text);
  }
  if (is_tuple && sequence.items.size() == 1) Append(",", text);
  Append(is_tuple ? ")" : "]", text);
  if (is_view) Append(")", text);
}

void AppendRepr(const Value& value, std::string* text) {
  if (value.IsMarkup()) NotSupported("printing a text that is marked as safe inside of a list or dict");
  if (value.IsString()) return AppendQuoted(value.text(), text);
  if (value.IsUndefined()) return Append("Undefined", text);
  if (value.IsNone()) return Append("None", text);
  if (const auto* flag = value.As<bool>()) return Append(*flag ? "True" : "False", text);
  if (const auto* integer = value.As<int64_t>()) return Append(std::to_string(*integer), text);
  if (const auto* real = value.As<double>()) return Append(FormatFloat(*real), text);
  if (value.dict()) return AppendDict(*value.dict(), text);
  if (value.sequence()) return AppendSequence(*value.sequence(), text);
  NotSupported("printing a ", TypeName(value), " is not supported");
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  std::string Write(const Value& value) {
    Put(value, 0);
    return std::move(text_);
  }

 private:
  void Put(const Value& value, int level) {
    if (value.IsString()) return PutString(value.text());
    if (value.IsNone()) return Append("null", &text_);
    if (const auto* flag = value.As<bool>()) return Append(*flag ? "true" : "false", &text_);
    if (const auto* integer = value.As<int64_t>()) return Append(std::to_string(*integer), &text_);
    if (const auto* real = value.As<double>()) return Append(Real(*real), &text_);
    if (value.dict()) return PutDict(*value.dict(), level);
    const Sequence* sequence = value.sequence();
    if (sequence == nullptr || sequence->kind >= SequenceKind::kRange) {
      Refuse("tojson: a value of type ", TypeName(value), " has no JSON");
    }
    if (sequence->items.empty()) return Append("[]", &text_);
    Append("[", &text_);
    for (size_t i = 0; i < sequence->items.size(); ++i) {
      Separate(i > 0, level + 1);
      Put(sequence->items[i], level + 1);
    }
    Close("]", level);
  }

  static std::string Real(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return FormatFloat(value);
  }

  void PutDict(const Dict& dict, int level) {
    if (dict.entries.empty()) return Append("{}", &text_);
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sorted_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return Compare(a->first, b->first, "<") < 0; });
    }
    Append("{", &text_);
    for (size_t i = 0; i < entries.size(); ++i) {
      Separate(i > 0, level + 1);
      PutString(Key(entries[i]->first));
      Append(style_.key_separator, &text_);
      Put(entries[i]->second, level + 1);
    }
    Close("}", level);
  }

  static std::string Key(const Value& key) {
    if (key.IsString()) return key.text();
    if (key.IsNone()) return "null";
    if (const auto* flag = key.As<bool>()) return *flag ? "true" : "false";
    if (const auto* real = key.As<double>()) return Real(*real);
    if (key.As<int64_t>()) return Repr(key);
    Refuse("tojson: a key of type ", TypeName(key), " has no JSON");
  }

  void Separate(bool has_predecessor, int level) {
    if (has_predecessor) Append(style_.item_separator, &text_);
    if (style_.is_indented) NewLine(level);
  }

  void Close(std::string_view bracket, int level) {
    if (style_.is_indented) NewLine(level);
    Append(bracket, &text_);
  }

  void NewLine(int level) {
    Append("\n", &text_);
    for (int i = 0; i < level; ++i) Append(style_.indent, &text_);
  }

  void PutString(std::string_view value) {
    Append("\"", &text_);
    while (!value.empty()) {
      const std::string_view character = value.substr(0, utf8::CharacterSize(value));
      value.remove_prefix(character.size());
      PutCharacter(character);
    }
    Append("\"", &text_);
  }

  void PutCharacter(std::string_view character) {
    constexpr std::string_view kSpecial = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    const uint32_t code = utf8::FirstCodePoint(character);
    const size_t special = code < 0x80 ? kSpecial.find(character[0]) : std::string_view::npos;
    if (special != std::string_view::npos) {
      text_.push_back('\\');
      text_.push_back(kLetters[special]);
    } else if (code < 0x20 || (style_.ascii_only && code > 0x7F && code < 0x10000)) {
      AppendHex("\\u%04x", code, &text_);
    } else if (style_.ascii_only && code >= 0x10000) {
      AppendHex("\\u%04x", 0xD800 + ((code - 0x10000) >> 10), &text_);
      AppendHex("\\u%04x", 0xDC00 + ((code - 0x10000) & 0x3FF), &text_);
    } else {
      Append(character, &text_);
    }
  }

  const JsonStyle& style_;
  std::string text_{};
};

}  // namespace

std::string ToText(const Value& value) {
  if (value.IsString()) return value.text();
  if (value.IsUndefined()) return "";
  return Repr(value);
}

std::string Repr(const Value& value) {
  std::string text;
  AppendRepr(value, &text);
  return text;
}

std::string FormatFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char spelt[32];
  const auto end = std::to_chars(spelt, spelt + sizeof(spelt), value, std::chars_format::scientific).ptr;
  const std::string_view all(spelt, static_cast<size_t>(end - spelt));
  const size_t e = all.find('e');
  const std::string_view exponent_text = all.substr(e + 1);
  int exponent = 0;
  std::from_chars(exponent_text.data() + 1, exponent_text.data() + exponent_text.size(), exponent);
  if (exponent_text[0] == '-') exponent = -exponent;
  if (exponent < -4 || exponent >= 16) return std::string(all);  // two digits of exponent at least, in both languages
  char fixed[64];
  const auto last = std::to_chars(fixed, fixed + sizeof(fixed), value, std::chars_format::fixed).ptr;
  std::string text(fixed, last);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string ToJson(const Value& value, const JsonStyle& style) { return JsonWriter(style).Write(value); }

}  // namespace dgrt::jinja
