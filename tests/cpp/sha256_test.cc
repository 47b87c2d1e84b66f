// SHA-256 in both codes.
#include "common/sha256.h"

#include <span>
#include <string>

#include "test.h"

namespace dgrt {
namespace {

std::string HashOf(const std::string& text) { return Sha256Hex(std::as_bytes(std::span(text.data(), text.size()))); }

TEST(Sha256GivesThePublishedDigests) {
  CHECK_EQ(HashOf(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_EQ(HashOf("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_EQ(HashOf("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK_EQ(HashOf(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256IsRightAtEveryLengthAroundAChunk) {
  // Digest of the concatenated digests of 0 .. 130 bytes of 'x', computed with Python's hashlib.
  std::string all;
  for (size_t n = 0; n <= 130; ++n) all += HashOf(std::string(n, 'x'));
  CHECK_EQ(HashOf(all), "87aca1c44bc7ba8897768170211f0a02063de70801131ff86c7edb9ce32c6a50");
}

TEST(Sha256InstructionsGiveTheDigestsOfThePlainCode) {
  std::string text;
  for (size_t i = 0; i < 5000; ++i) text.push_back(static_cast<char>(i * 2654435761u >> 24));
  for (size_t n = 0; n <= text.size(); n += n < 300 ? 1 : 97) {
    const auto bytes = std::as_bytes(std::span(text.data(), n));
    Sha256 plain(Sha256::Code::kPlain), pieces;
    plain.Update(bytes);
    pieces.Update(bytes.first(n / 3));
    pieces.Update(bytes.subspan(n / 3));
    const std::string expected = plain.Hex();
    CHECK_EQ(Sha256Hex(bytes), expected);
    CHECK_EQ(pieces.Hex(), expected);
  }
}

}  // namespace
}  // namespace dgrt
