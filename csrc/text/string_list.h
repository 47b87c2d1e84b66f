// Many short strings in one piece of memory: a vocabulary has a quarter of a million, its merges name a million.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace dgrt {

class StringList {
 public:
  void Add(std::string_view text) {
    bytes_.append(text);
    ends_.push_back(bytes_.size());
  }

  size_t size() const { return ends_.size(); }

  // Valid until the next Add.
  std::string_view operator[](size_t index) const {
    const size_t begin = index == 0 ? 0 : ends_[index - 1];
    return std::string_view(bytes_).substr(begin, ends_[index] - begin);
  }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

}  // namespace dgrt
