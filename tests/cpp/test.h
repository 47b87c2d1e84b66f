// A test harness in one page, used by every *_test.cc here. Why not a framework: the suite must build on a machine
// with a compiler and nothing else, without network; this is all of a framework that it needs.
//   TEST(ASentenceThatHolds) { CHECK(...); CHECK_EQ(found, expected); CHECK_THROWS(Type, "part of the message", call); }
// A failed check ends its test (by exception) and prints both values; the others still run.
#pragma once

#include <cmath>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace dgrt::test {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& Cases() {
  static std::vector<Case> cases;
  return cases;
}

struct Registration {
  Registration(const char* name, void (*run)()) { Cases().push_back({name, run}); }
};

template <typename... Parts>
[[noreturn]] void Fail(const char* file, int line, const Parts&... parts) {
  std::ostringstream out;
  out.precision(9);
  out << file << ":" << line << ": ";
  (out << ... << parts);
  throw std::runtime_error(out.str());
}

template <typename Found, typename Expected>
void CheckEqual(const char* file, int line, const char* what, const Found& found, const Expected& expected) {
  if (!(found == expected)) Fail(file, line, what, ": expected ", expected, ", found ", found);
}

inline void CheckNear(const char* file, int line, const char* what, double found, double expected, double tolerance) {
  if (std::abs(found - expected) <= tolerance) return;
  Fail(file, line, what, ": expected ", expected, " +- ", tolerance, ", found ", found);
}

}  // namespace dgrt::test

#define TEST(name)                                                        \
  static void name();                                                     \
  static const ::dgrt::test::Registration registration_##name(#name, name); \
  static void name()

#define CHECK(condition) \
  ((condition) ? void() : ::dgrt::test::Fail(__FILE__, __LINE__, "not so: " #condition))

#define CHECK_EQ(found, expected) ::dgrt::test::CheckEqual(__FILE__, __LINE__, #found, found, expected)

#define CHECK_NEAR(found, expected, tolerance) \
  ::dgrt::test::CheckNear(__FILE__, __LINE__, #found, found, expected, tolerance)

#define CHECK_THROWS(type, message_part, ...)                                                                \
  do {                                                                                                       \
    std::string thrown_ = "nothing";                                                                         \
    try {                                                                                                    \
      __VA_ARGS__;                                                                                           \
    } catch (const type& error_) {                                                                           \
      thrown_ = error_.what();                                                                               \
      if (thrown_.find(message_part) != std::string::npos) break;                                            \
    } catch (const std::exception& error_) {                                                                 \
      thrown_ = std::string("another exception: ") + error_.what();                                          \
    }                                                                                                        \
    ::dgrt::test::Fail(__FILE__, __LINE__, #__VA_ARGS__ ": expected " #type " with '", message_part, "', found ", \
                       thrown_);                                                                             \
  } while (false)
