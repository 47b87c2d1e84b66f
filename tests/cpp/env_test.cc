// What the user has set in the environment stays.
#include "common/env.h"

#include <cstdlib>
#include <string>

#include "test.h"

namespace dgrt {

TEST(AVariableOfAnotherLibraryIsSetOnlyWhereTheUserHasNot) {
  constexpr char kName[] = "DGRT_TEST_OF_SET_UNLESS_SET";
  ::unsetenv(kName);
  CHECK(!SetUnlessSet(kName, "1").has_value());
  CHECK_EQ(std::string(std::getenv(kName)), std::string("1"));
  ::setenv(kName, "0", 1);
  CHECK_EQ(SetUnlessSet(kName, "1").value_or("none"), std::string("0"));
  CHECK_EQ(std::string(std::getenv(kName)), std::string("0"));
  ::unsetenv(kName);
}

}  // namespace dgrt
