// Opens ONNX Runtime's shared library at run time and hands its function table to the C++ wrapper of its headers. The
// wheel `onnxruntime` has the library but nothing to link with; loading also lets one build serve many versions.
#pragma once

#include <string>

struct OrtApi;

namespace dgrt {

// Loads the library once per process and initialises the Ort:: wrapper; later calls only check that they mean the
// same library. Order of search: `explicit_path` (if not empty; nothing else is tried then), DGRT_ORT_LIBRARY (the
// same), the folder of this binary, the system. Throws Unsupported that lists where it looked.
// Returns the version text of the library, e.g. "1.32.0". Any thread.
std::string LoadOrtLibrary(const std::string& explicit_path);

// For code that a program's own ONNX Runtime calls: the wrapper uses this table unless LoadOrtLibrary has given it one.
// Any thread.
void UseOrtApi(const OrtApi* api);

}  // namespace dgrt
