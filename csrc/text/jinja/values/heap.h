// Everything that one rendering makes, and the account of it: values are made here, work is paid for here. Lists, dicts
// and objects live until the rendering ends, so that cycles through namespaces need no care; texts are freed earlier.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/values/value.h"

namespace dgrt::jinja {

class DictBuilder {
 public:
  // The first place and the last value of a key, as in Python.
  void Set(const Value& key, Value value);
  Dict dict{};
};

class Heap {
 public:
  Heap() = default;
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  void Spend(size_t steps);  // throws when the rendering has cost too much
  void SpendOn(const Value& value) { Spend(ExtentOf(value).weight); }  // for a walk through all of it

  Value MakeString(std::string bytes, bool is_markup = false);
  Value MakeSequence(std::vector<Value> items, SequenceKind kind = SequenceKind::kList);
  Value MakeRange(std::vector<Value> items, std::string printed);
  Value MakeDict(DictBuilder builder);
  Value MakeUndefined(std::string reason);
  Value MakePair(const Value& first, const Value& second);

  template <typename T, typename... Arguments>
  T* MakeObject(Arguments&&... arguments) {
    Spend(1);
    Grow(sizeof(T));
    auto object = std::make_unique<T>(std::forward<Arguments>(arguments)...);
    T* made = object.get();
    objects_.push_back(std::move(object));
    return made;
  }

 private:
  void Grow(size_t num_bytes);

  size_t live_ = 0;  // first: texts in the containers below count themselves off
  size_t steps_ = 0;
  std::deque<Sequence> sequences_{};
  std::deque<Dict> dicts_{};
  std::vector<std::unique_ptr<Object>> objects_{};
};

}  // namespace dgrt::jinja
