// Implementation of json_input.h: values are made while the text is read, without a document in between.
#include "text/jinja/values/json_input.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/json_reader.h"
#include "text/jinja/limits.h"

namespace dgrt::jinja {
namespace {

// An array or object that is being read.
struct Open {
  bool is_object = false;
  std::vector<Value> items{};
  DictBuilder dict{};
  Value key{};
};

// The names of these functions are those that the JSON library calls.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(Heap& heap) : heap_(heap) {}

  Value Take() { return std::move(result_); }

  bool null() override { return Put(None{}); }
  bool boolean(bool value) override { return Put(value); }
  bool number_integer(number_integer_t value) override { return Put(int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) NotSupported("an integer beyond 64 bits: ", value);
    return Put(static_cast<int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") == std::string::npos) NotSupported("an integer beyond 64 bits");
    return Put(double{value});
  }
  bool string(string_t& value) override { return Put(heap_.MakeString(value)); }
  bool binary(binary_t&) override { return false; }
  bool key(string_t& value) override {
    open_.back().key = heap_.MakeString(value);
    return true;
  }
  bool start_object(std::size_t) override { return Begin(true); }
  bool start_array(std::size_t) override { return Begin(false); }
  bool end_object() override {
    Open closed = Close();
    return Put(heap_.MakeDict(std::move(closed.dict)));
  }
  bool end_array() override {
    Open closed = Close();
    return Put(heap_.MakeSequence(std::move(closed.items)));
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    Refuse("expected JSON, found an error at byte ", position);
  }

 private:
  bool Begin(bool is_object) {
    if (open_.size() >= static_cast<size_t>(kMaxValueDepth)) {
      NotSupported("nested more than ", kMaxValueDepth, " levels deep");
    }
    open_.push_back({is_object});
    return true;
  }

  Open Close() {
    Open closed = std::move(open_.back());
    open_.pop_back();
    return closed;
  }

  bool Put(Value value) {
    heap_.Spend(1);
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().dict.Set(open_.back().key, std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  Heap& heap_;
  std::vector<Open> open_{};
  Value result_{};
};

}  // namespace

Value ParseInput(Heap& heap, std::string_view json) {
  if (json.size() > kMaxInputBytes) {
    Refuse("expected at most ", kMaxInputBytes, " bytes, found ", json.size());
  }
  Reader reader(heap);
  nlohmann::json::sax_parse(json, &reader);
  return reader.Take();
}

}  // namespace dgrt::jinja
