// What the fuzz programs share: an input, a folder in memory, and the one rule. A reader may take an input or refuse it
// with an error of dgrt. Anything else, another exception too, ends the program and is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include <nlohmann/json.hpp>

#include "common/check.h"

namespace dgrt::fuzz {

// Runs `read`. An internal error counts as a finding: it is a defect by definition.
template <typename Read>
void MayRefuse(Read read) {
  try {
    read();
  } catch (const InternalError&) {
    throw;
  } catch (const Error&) {
  }
}

inline std::string Text(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// A folder of this process, made once.
inline const std::filesystem::path& Folder() {
  static const std::filesystem::path folder = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "dgrt-fuzz-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    std::atexit([] { std::filesystem::remove_all(Folder()); });
    return std::filesystem::path(pattern);
  }();
  return folder;
}

inline void Write(const std::string& name, const std::string& content) {
  std::ofstream(Folder() / name, std::ios::binary | std::ios::trunc) << content;
}

// One value of a JSON document, chosen by chance.
inline nlohmann::json& AnyValue(nlohmann::json& value, std::mt19937& random) {
  if (!value.is_structured() || value.empty() || random() % 4 == 0) return value;
  auto place = value.begin();
  std::advance(place, static_cast<std::ptrdiff_t>(random() % value.size()));
  return AnyValue(*place, random);
}

// Changes one value of a JSON document: bytes changed at random rarely leave one. The text in front of the first zero
// byte is the document; what stands behind it stays. False: it is no JSON, or the result would be too long.
inline bool MutateJson(uint8_t* data, size_t* size, size_t max_size, unsigned seed) {
  const std::string input = Text(data, *size);
  const size_t cut = std::min(input.find('\0'), input.size());
  nlohmann::json document = nlohmann::json::parse(input.substr(0, cut), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return false;
  std::mt19937 random(seed);
  static const nlohmann::json kOthers = {nullptr, -1, 0, 1, 7, 1e308, 1ull << 63, "", "x", "model.safetensors", true,
                                         nlohmann::json::array(), nlohmann::json::object()};
  nlohmann::json& value = AnyValue(document, random);
  if (value.is_number_integer() && random() % 2 == 0) {
    value = value.get<uint64_t>() + random() % 9 - 4;
  } else if (random() % 3 == 0) {
    value = nlohmann::json(AnyValue(document, random));  // a copy from elsewhere
  } else {
    value = kOthers[random() % kOthers.size()];
  }
  const std::string text = document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + input.substr(cut);
  if (text.size() > max_size) return false;
  std::copy(text.begin(), text.end(), data);
  *size = text.size();
  return true;
}

}  // namespace dgrt::fuzz

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// For readers of JSON: every second input is changed as JSON.
#define DGRT_FUZZ_JSON                                                                                     \
  extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) { \
    if (seed % 2 == 0 && dgrt::fuzz::MutateJson(data, &size, max_size, seed)) return size;                 \
    return LLVMFuzzerMutate(data, size, max_size);                                                         \
  }
