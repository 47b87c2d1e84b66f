// Input: a prefix snapshot without the hash at its end, which is put there, so that a change of the rest reaches every
// check. Whatever is read, the cache stays sound.
#include <span>

#include "common/sha256.h"
#include "fuzz.h"
#include "prefix_fixture.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dgrt;
  const std::string body = fuzz::Text(data, size);
  fuzz::Write("prefixes", body + Sha256Hex(std::as_bytes(std::span(body.data(), body.size()))));
  PrefixFixture fixture(/*chunks=*/2);
  fuzz::MayRefuse([&] { fixture.cache.Load((fuzz::Folder() / "prefixes").string()); });
  if (!fixture.cache.BrokenInvariant().empty()) std::abort();
  return 0;
}
