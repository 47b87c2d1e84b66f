// Threads do not survive fork(): what owns threads remembers the process that made it. In a child of fork() it must not
// be run, and its last reference must not be dropped (that would join threads that do not exist): the object is left to
// the operating system instead.
#pragma once

#include <memory>
#include <utility>

#include <unistd.h>

#include "common/check.h"

namespace dgrt {

// The process that an object was made in; copies remember the same one.
class HomeProcess {
 public:
  bool IsHere() const { return ::getpid() == id_; }

  // Throws InvalidArgument elsewhere. `what` was made here: "engine".
  void Require(const char* what) const {
    if (IsHere()) return;
    throw InvalidArgument(Message("the ", what, " was opened before fork(): open it in the child process instead"));
  }

 private:
  int id_ = ::getpid();
};

// A reference that is safe to drop in a child of fork(). Used by the handles of capi/ and python/; both keep it in front
// of whatever else refers to the object.
template <typename T>
class HomeProcessRef {
 public:
  explicit HomeProcessRef(std::shared_ptr<T> object) : object_(std::move(object)) {}
  HomeProcessRef(const HomeProcessRef&) = default;
  HomeProcessRef& operator=(const HomeProcessRef&) = delete;
  ~HomeProcessRef() {
    if (!home_.IsHere()) new std::shared_ptr<T>(std::move(object_));
  }

  const std::shared_ptr<T>& get() const { return object_; }
  T* operator->() const { return object_.get(); }
  T& operator*() const { return *object_; }

 private:
  std::shared_ptr<T> object_;
  HomeProcess home_;
};

}  // namespace dgrt
