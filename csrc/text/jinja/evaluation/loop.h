// The variable `loop` inside of a for statement. It looks ahead in what it iterates over only when a template asks.
#pragma once

#include <string_view>
#include <vector>

#include "text/jinja/values/heap.h"
#include "text/jinja/values/value.h"

namespace dgrt::jinja {

class Loop : public HasAttributes {
 public:
  explicit Loop(Iterator* source) : source_(source) {}
  std::string_view type_name() const override { return "loop"; }
  std::optional<Value> Attribute(Heap& heap, std::string_view name) override;

  bool Advance(Value* value);
  Value Cycle(const std::vector<Value>& values) const;
  bool HasChanged(std::vector<Value> values);

 private:
  bool LookAhead();     // whether there is another element
  int64_t CountAll();   // reads ahead to the end

  Iterator* source_;
  std::vector<Value> ahead_{};  // read already; from next_ahead_ on
  size_t next_ahead_ = 0;
  int64_t index_ = 0;  // of the current element, from 1
  Value previous_{}, current_{};
  std::optional<std::vector<Value>> last_changed_{};
};

}  // namespace dgrt::jinja
