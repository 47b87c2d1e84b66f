// From ONNX Runtime's exceptions to ours. Used by ort_engine.cc and ort_executor.cc.
#pragma once

#include <string_view>
#include <utility>

#include <onnxruntime_cxx_api.h>

#include "common/check.h"

namespace dgrt {

inline bool IsOutOfMemory(const Ort::Exception& error) {
  const std::string_view text = error.what();
  return text.find("bad_alloc") != text.npos || text.find("Failed to allocate memory") != text.npos;
}

// Runs `body`; `what` names the action and the file for the message. T: the class of failures other than memory.
template <typename T, typename Body>
decltype(auto) TranslateOrtErrors(std::string_view what, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const Ort::Exception& error) {
    const std::string message = Message(what, ": ONNX Runtime: ", error.what());
    if (IsOutOfMemory(error)) throw OutOfMemory(message);
    if (error.GetOrtErrorCode() == ORT_NOT_IMPLEMENTED) throw Unsupported(message);
    throw T(message);
  }
}

}  // namespace dgrt
