// JSON of files from outside, typed and bounded: every failure names the file, the key, what was expected and what was
// found. Used by engine/ for the manifest and by text/ for the tokenizer; nothing else includes the library behind it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "common/check.h"

namespace dgrt {

// Parses `text`; `file` names it in errors. Bounded depth, so that a hostile file cannot exhaust the stack when the
// document is destroyed or printed.
inline nlohmann::json ParseJson(const std::string& text, const std::string& file) {
  constexpr int kMaxDepth = 64;
  const auto limit_depth = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxDepth) throw ContractMismatch(Message(file, ": nested more than ", kMaxDepth, " levels deep"));
    return true;
  };
  try {
    return nlohmann::json::parse(text, limit_depth);
  } catch (const nlohmann::json::exception& error) {
    std::string reason = error.what();  // quotes the file, which may be anything
    for (char& c : reason) {
      if (c < ' ' || c > '~') c = '?';
    }
    throw ContractMismatch(Message(file, ": expected JSON, found an error: ", reason));
  }
}

// One JSON object together with its place: "manifest.json: model.layers[3]"; the whole document is "manifest.json: ".
class JsonObject {
 public:
  JsonObject(const nlohmann::json& value, std::string path) : value_(value), path_(std::move(path)) {
    if (!value_.is_object()) Fail(path_, "an object", value_);
  }

  const nlohmann::json& raw() const { return value_; }
  bool Has(const char* key) const { return value_.contains(key); }
  std::string PathOf(std::string_view key) const {
    return Message(path_, path_.ends_with(": ") ? "" : ".", key);
  }

  const nlohmann::json& At(const char* key) const {
    const auto found = value_.find(key);
    if (found == value_.end()) throw ContractMismatch(Message(PathOf(key), ": missing key"));
    return *found;
  }

  JsonObject Object(const char* key) const { return {At(key), PathOf(key)}; }

  const nlohmann::json& Array(const char* key) const {
    const auto& value = At(key);
    if (!value.is_array()) Fail(PathOf(key), "an array", value);
    return value;
  }

  std::string String(const char* key) const {
    const auto& value = At(key);
    if (!value.is_string()) Fail(PathOf(key), "a string", value);
    return value.get<std::string>();
  }

  bool Boolean(const char* key) const {
    const auto& value = At(key);
    if (!value.is_boolean()) Fail(PathOf(key), "true or false", value);
    return value.get<bool>();
  }

  int64_t Integer(const char* key, int64_t lowest, int64_t highest) const {
    return IntegerValue(At(key), PathOf(key), lowest, highest);
  }

  float Number(const char* key, float lowest, float highest) const {
    const auto& value = At(key);
    const std::string expected = Message("a number from ", lowest, " to ", highest);
    if (!value.is_number()) Fail(PathOf(key), expected, value);
    const double number = value.get<double>();
    if (!(number >= lowest && number <= highest)) Fail(PathOf(key), expected, value);
    return static_cast<float>(number);
  }

  static int64_t IntegerValue(const nlohmann::json& value, const std::string& path, int64_t lowest, int64_t highest) {
    const std::string expected = Message("an integer from ", lowest, " to ", highest);
    if (!value.is_number_integer()) Fail(path, expected, value);
    // Beyond int64 the library would wrap around.
    if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      Fail(path, expected, value);
    }
    const int64_t number = value.get<int64_t>();
    if (number < lowest || number > highest) Fail(path, expected, value);
    return number;
  }

  [[noreturn]] static void Fail(const std::string& path, std::string_view expected, const nlohmann::json& found) {
    throw ContractMismatch(Mismatch(path, expected, found));
  }

  // The text of Fail, for those who throw something else.
  static std::string Mismatch(const std::string& path, std::string_view expected, const nlohmann::json& found) {
    // ASCII only: cutting the text must not leave half a UTF-8 character.
    std::string text = found.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    return Message(path, path.ends_with(": ") ? "document" : "", ": expected ", expected, ", found ", text);
  }

 private:
  const nlohmann::json& value_;
  std::string path_;
};

}  // namespace dgrt
