// Values of a template, with Python's semantics: truth, equality, order, hash. All but namespaces and iterators are
// immutable, as the sandbox has it; so a value's depth is known when it is made, and nothing that walks it recurses
// without a bound.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/failure.h"

namespace dgrt::jinja {

// An immutable UTF-8 text that is counted while it lives.
class Text {
 public:
  Text(std::string bytes, bool is_markup, size_t* live) : bytes_(std::move(bytes)), is_markup_(is_markup), live_(live) {
    if (live_ != nullptr) *live_ += bytes_.size();
  }
  ~Text() {
    if (live_ != nullptr) *live_ -= bytes_.size();
  }
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;

  const std::string& bytes() const { return bytes_; }
  bool is_markup() const { return is_markup_; }  // came from `safe` or `escape`

 private:
  std::string bytes_;
  bool is_markup_;
  size_t* live_;  // null for the template's own texts
};
using String = std::shared_ptr<const Text>;

struct Undefined {
  String reason;  // may be null
};
struct None {};
struct Sequence;
struct Dict;

// What has an identity of its own: namespaces, functions, iterators, the variable `loop`.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
};

class Value {
 public:
  Value() : data_(Undefined{}) {}
  template <typename T>
  Value(T data) : data_(std::move(data)) {}  // NOLINT(google-explicit-constructor): every alternative is a value

  template <typename T>
  const T* As() const {
    return std::get_if<T>(&data_);
  }
  template <typename T>
  T* AsObject() const {
    const auto* object = As<Object*>();
    return object == nullptr ? nullptr : dynamic_cast<T*>(*object);
  }
  const Sequence* sequence() const { return As<const Sequence*>() ? *As<const Sequence*>() : nullptr; }
  const Dict* dict() const { return As<const Dict*>() ? *As<const Dict*>() : nullptr; }
  bool IsUndefined() const { return As<Undefined>() != nullptr; }
  bool IsNone() const { return As<None>() != nullptr; }
  bool IsString() const { return As<String>() != nullptr; }
  bool IsMarkup() const { return IsString() && (*As<String>())->is_markup(); }
  const std::string& text() const { return (*As<String>())->bytes(); }  // of a string

 private:
  std::variant<Undefined, None, bool, int64_t, double, String, const Sequence*, const Dict*, Object*> data_;
};

// How big a value is to what walks it; what several lists share counts in each.
struct Extent {
  int depth = 0;
  size_t weight = 1;  // elements and portions of text
};

enum class SequenceKind { kList, kTuple, kRange, kKeys, kValues, kItems };

struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  Extent extent{};
  std::string range{};  // how a range prints
};

bool HasHash(const Value& value);  // whether it can be a key
struct HashValue {
  size_t operator()(const Value& value) const;  // throws for what has none
};
struct EqualValues {
  bool operator()(const Value& a, const Value& b) const;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in the order of insertion
  std::unordered_map<Value, size_t, HashValue, EqualValues> places;
  Extent extent{};

  const Value* Find(const Value& key) const;  // throws for a key that cannot be hashed
};

// Yields values once. `depth`: of iterators that draw from one another.
class Iterator : public Object {
 public:
  explicit Iterator(const Iterator* source = nullptr);
  virtual bool Next(Value* value) = 0;
  std::string_view type_name() const override { return "generator"; }

 private:
  int depth_;
};

struct Arguments;  // registry.h
class Heap;

class Callable : public Object {
 public:
  virtual Value Call(Heap& heap, const Arguments& arguments) = 0;
};

// What has attributes beside methods: the variable `loop`.
class HasAttributes : public Object {
 public:
  virtual std::optional<Value> Attribute(Heap& heap, std::string_view name) = 0;
};

class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  const Value* Find(std::string_view name) const;
  void Set(std::string_view name, Value value);  // refuses names that begin with "_", as Hugging Face does

 private:
  std::vector<std::pair<std::string, Value>> attributes_{};
};

std::string_view TypeName(const Value& value);  // Python's: "str", "int", "list", ...
bool IsTrue(const Value& value);
bool Equals(const Value& a, const Value& b);
// Negative, 0 or positive; throws for values that have no order.
int Compare(const Value& a, const Value& b, std::string_view operation);
Extent ExtentOf(const Value& value);

// bool, int or float as a number; nothing for other values.
struct Number {
  bool is_float = false;
  int64_t integer = 0;
  double real = 0;
};
std::optional<Number> AsNumber(const Value& value);
std::optional<int64_t> AsInteger(const Value& value);  // bool or int

}  // namespace dgrt::jinja
