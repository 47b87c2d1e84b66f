// Implementation of loop.h.
#include "text/jinja/evaluation/loop.h"

#include <utility>

#include "text/jinja/builtins/registry.h"
#include "text/jinja/evaluation/operations.h"

namespace dgrt::jinja {
namespace {

class LoopMethod : public Callable {
 public:
  using Apply = Value (*)(Loop&, const Arguments&);
  LoopMethod(Loop& loop, Apply apply) : loop_(loop), apply_(apply) {}
  std::string_view type_name() const override { return "method"; }
  Value Call(Heap&, const Arguments& arguments) override {
    if (!arguments.named.empty()) Refuse("a method of \"loop\" takes no arguments with names");
    return apply_(loop_, arguments);
  }

 private:
  Loop& loop_;
  Apply apply_;
};

}  // namespace

bool Loop::LookAhead() {
  if (next_ahead_ < ahead_.size()) return true;
  ahead_.clear();
  next_ahead_ = 0;
  Value next;
  if (!source_->Next(&next)) return false;
  ahead_.push_back(std::move(next));
  return true;
}

int64_t Loop::CountAll() {
  Value next;
  while (source_->Next(&next)) ahead_.push_back(next);
  return index_ + static_cast<int64_t>(ahead_.size() - next_ahead_);
}

bool Loop::Advance(Value* value) {
  if (!LookAhead()) return false;
  previous_ = std::exchange(current_, ahead_[next_ahead_++]);
  ++index_;
  *value = current_;
  return true;
}

Value Loop::Cycle(const std::vector<Value>& values) const {
  if (values.empty()) Refuse("loop.cycle: expected values");
  return values[static_cast<size_t>(index_ - 1) % values.size()];
}

bool Loop::HasChanged(std::vector<Value> values) {
  bool is_same = last_changed_ && last_changed_->size() == values.size();
  for (size_t i = 0; is_same && i < values.size(); ++i) is_same = Equals((*last_changed_)[i], values[i]);
  last_changed_ = std::move(values);
  return !is_same;
}

std::optional<Value> Loop::Attribute(Heap& heap, std::string_view name) {
  if (name == "index") return Value(index_);
  if (name == "index0") return Value(index_ - 1);
  if (name == "first") return Value(index_ == 1);
  if (name == "last") return Value(!LookAhead());
  if (name == "length") return Value(CountAll());
  if (name == "revindex") return Value(CountAll() - index_ + 1);
  if (name == "revindex0") return Value(CountAll() - index_);
  if (name == "depth") return Value(int64_t{1});
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem") return index_ == 1 ? heap.MakeUndefined("there is no previous item") : previous_;
  if (name == "nextitem") return LookAhead() ? ahead_[next_ahead_] : heap.MakeUndefined("there is no next item");
  LoopMethod::Apply method = nullptr;
  if (name == "cycle") {
    method = [](Loop& loop, const Arguments& arguments) { return loop.Cycle(arguments.positional); };
  } else if (name == "changed") {
    method = [](Loop& loop, const Arguments& arguments) { return Value(loop.HasChanged(arguments.positional)); };
  } else {
    return std::nullopt;
  }
  return Value(static_cast<Object*>(heap.MakeObject<LoopMethod>(*this, method)));
}

}  // namespace dgrt::jinja
