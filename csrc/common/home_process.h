// A reference that is safe to drop in a child of fork(). Threads do not survive fork(), so the last reference to an
// object that joins threads must not be dropped there: the object is left to the operating system instead.
// Used by the handles of capi/ and python/; both keep it in front of whatever else refers to the object.
#pragma once

#include <memory>
#include <utility>

#include <unistd.h>

namespace dgrt {

template <typename T>
class HomeProcessRef {
 public:
  explicit HomeProcessRef(std::shared_ptr<T> object) : object_(std::move(object)) {}
  HomeProcessRef(const HomeProcessRef&) = default;
  HomeProcessRef& operator=(const HomeProcessRef&) = delete;
  ~HomeProcessRef() {
    if (::getpid() != process_id_) new std::shared_ptr<T>(std::move(object_));
  }

  const std::shared_ptr<T>& get() const { return object_; }
  T* operator->() const { return object_.get(); }
  T& operator*() const { return *object_; }

 private:
  std::shared_ptr<T> object_;
  int process_id_ = ::getpid();
};

}  // namespace dgrt
