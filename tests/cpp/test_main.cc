// Runs the tests: all of them, or with --filter TEXT those whose name contains the text. Exit code 1 when one failed
// or none ran.
#include <cstdio>
#include <cstring>
#include <exception>
#include <string_view>

#include "test.h"

int main(int argc, char** argv) {
  std::string_view filter;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--filter") == 0 && i + 1 < argc) {
      filter = argv[++i];
    } else {
      std::fprintf(stderr, "usage: %s [--filter TEXT]\n", argv[0]);
      return 2;
    }
  }
  int passed = 0, failed = 0;
  for (const dgrt::test::Case& test : dgrt::test::Cases()) {
    if (std::string_view(test.name).find(filter) == std::string_view::npos) continue;
    try {
      test.run();
      ++passed;
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAILED %s\n  %s\n", test.name, error.what());
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || passed == 0 ? 1 : 0;
}
