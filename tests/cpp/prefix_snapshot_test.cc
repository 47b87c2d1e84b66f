// PrefixCache::Save and Load: what comes back, and that no damaged, cut, foreign or newer file changes anything.
#include <filesystem>
#include <fstream>
#include <iterator>

#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "prefix_fixture.h"

namespace dgrt {
namespace {

namespace fs = std::filesystem;

struct SnapshotFile {
  SnapshotFile() { fs::create_directories(folder); }
  ~SnapshotFile() { fs::remove_all(folder); }

  std::string Bytes() const {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Store(const std::string& bytes) const { std::ofstream(path, std::ios::binary) << bytes; }

  const fs::path folder = fs::temp_directory_path() / ("dgrt_prefix_test_" + std::to_string(getpid()));
  const std::string path = (folder / "prefixes").string();
};

// Three prompts, of which two share a chunk; 6 chunks, used in this order.
void Fill(PrefixFixture& f) {
  auto one = TextOf(1, 192), two = TextOf(1, 64);
  const auto rest = TextOf(2, 64);
  two.insert(two.end(), rest.begin(), rest.end());
  for (const auto& prompt : {one, two, TextOf(3, 128)}) PrefixSequence(&f.cache, &f.budget).Prefill(prompt);
}

}  // namespace

TEST(ASnapshotGivesBackEveryPrefix) {
  SnapshotFile file;
  PrefixFixture f, g;
  Fill(f);
  f.cache.Save(file.path);
  CHECK_EQ(g.cache.Load(file.path), 6);
  g.Check();
  CHECK_EQ(g.cache.stats().bytes, f.cache.stats().bytes);
  for (const auto& [seed, length] : {std::pair{1, 192}, {3, 128}}) {
    PrefixSequence sequence(&g.cache, &g.budget);
    CHECK_EQ(sequence.Prefill(TextOf(seed, length)), length);
  }
  CHECK_EQ(g.cache.Load(file.path), 0);  // all there
  g.Check();
  CHECK_EQ(std::distance(fs::directory_iterator(file.folder), {}), 1);  // nothing is left beside it
}

TEST(AnEmptyCacheHasASnapshotToo) {
  SnapshotFile file;
  PrefixFixture f;
  f.cache.Save(file.path);
  CHECK_EQ(f.cache.Load(file.path), 0);
}

TEST(ASnapshotOfPrefixesWithoutWindowsGivesThemBackWithout) {
  SnapshotFile file;
  PrefixFixture f, g;
  Fill(f);
  f.cache.EvictUnused(1);
  CHECK_EQ(f.cache.stats().evicted_windows + f.cache.stats().evicted_chunks, 1);
  f.cache.Save(file.path);
  g.cache.Load(file.path);
  CHECK_EQ(g.cache.stats().bytes, f.cache.stats().bytes);
  g.Check();
}

TEST(LoadingFillsWhatRoomThereIsAndEvictsNothing) {
  SnapshotFile file;
  PrefixFixture f;
  Fill(f);
  f.cache.Save(file.path);
  for (const int64_t chunks : {1, 2, 3, 4}) {
    PrefixFixture small(chunks);
    PrefixSequence(&small.cache, &small.budget).Prefill(TextOf(9, 64));
    CHECK_EQ(small.cache.Load(file.path), chunks - 1);
    small.Check();
    CHECK_EQ(small.cache.Find(TextOf(9, 64), 64).num_tokens, 64);
    // The last prompt was used last: it comes first.
    CHECK_EQ(small.cache.Find(TextOf(3, 128), 128).num_tokens, 64 * std::min<int64_t>(2, chunks - 1));
  }
  PrefixFixture limited(1000, 3 * kChunkBytes);  // the limit of all sessions counts as well
  CHECK_EQ(limited.cache.Load(file.path), 3);
  limited.Check();
}

TEST(NoDamagedByteIsAccepted) {
  SnapshotFile file;
  PrefixFixture f, g;
  Fill(f);
  f.cache.Save(file.path);
  PrefixSequence(&g.cache, &g.budget).Prefill(TextOf(1, 64));
  const std::string good = file.Bytes();
  const auto before = g.cache.stats();
  const auto refused = [&](const std::string& bytes) {
    file.Store(bytes);
    CHECK_THROWS(ContractMismatch, "expected", g.cache.Load(file.path));
    g.Check();
    CHECK_EQ(g.cache.stats().bytes, before.bytes);
    CHECK_EQ(g.cache.stats().num_chunks, before.num_chunks);
  };
  std::vector<size_t> places;
  for (size_t at = 0; at < 400; ++at) places.push_back(at);  // header, first node, some of its tokens
  for (size_t at = 400; at + 70 < good.size(); at += 10'007) places.push_back(at);
  for (size_t at = good.size() - 70; at < good.size(); ++at) places.push_back(at);
  for (const size_t at : places) {
    for (const char flip : {char(1), char(0x80)}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      refused(bad);
    }
  }
  for (const size_t length : {size_t{0}, size_t{7}, size_t{8}, size_t{40}, size_t{100}, size_t{1000}, good.size() / 2,
                              good.size() - 65, good.size() - 64, good.size() - 1}) {
    refused(good.substr(0, length));
  }
  refused(good + "x");
  refused(std::string(5000, 'a'));
  file.Store(good);
  CHECK_EQ(g.cache.Load(file.path), 5);
  g.Check();
}

TEST(ASnapshotOfAnotherEngineVersionOrLayoutIsRefusedByName) {
  SnapshotFile file;
  PrefixFixture f;
  Fill(f);
  f.cache.Save(file.path);
  MemoryBudget budget(0);
  PrefixCache other(kPrefixShapes, kChunk, 100 * kChunkBytes, "engine two", &budget);
  CHECK_THROWS(ContractMismatch, "engine and machine: expected engine two, found engine one", other.Load(file.path));
  PrefixCache longer(kPrefixShapes, 2 * kChunk, 100 * kChunkBytes, "engine one", &budget);
  CHECK_THROWS(ContractMismatch, "tokens per chunk: expected 128, found 64", longer.Load(file.path));
  std::string bytes = file.Bytes();
  bytes[8] = 2;
  file.Store(bytes);
  CHECK_THROWS(ContractMismatch, "version: expected 1, found 2", f.cache.Load(file.path));
  bytes[0] = 'D';
  file.Store(bytes);
  CHECK_THROWS(ContractMismatch, "format: expected a prefix snapshot of dgrt", f.cache.Load(file.path));
}

TEST(PathsThatCannotBeReadOrWrittenAreNamed) {
  SnapshotFile file;
  PrefixFixture f;
  Fill(f);
  CHECK_THROWS(InvalidArgument, "cannot read: No such file", f.cache.Load(file.path));
  CHECK_THROWS(InvalidArgument, "cannot write: No such file", f.cache.Save(file.path + "/no/folder"));
  CHECK_THROWS(InvalidArgument, "cannot read", f.cache.Load(file.folder.string()));
  CHECK_THROWS(InvalidArgument, "cannot write: expected a regular file or none, found a folder",
               f.cache.Save(file.folder.string()));
  CHECK_EQ(::mkfifo(file.path.c_str(), 0600), 0);
  CHECK_THROWS(InvalidArgument, "cannot read: expected a regular file, found a pipe", f.cache.Load(file.path));
  CHECK_THROWS(InvalidArgument, "cannot write: expected a regular file or none, found a pipe", f.cache.Save(file.path));
  CHECK_EQ(std::distance(fs::directory_iterator(file.folder), {}), 1);
}

TEST(ASnapshotReplacesASnapshotAndAnotherFileOnlyWhereThatIsAllowed) {
  SnapshotFile file;
  PrefixFixture f;
  f.cache.Save(file.path);
  const std::string empty = file.Bytes();
  Fill(f);
  f.cache.Save(file.path);
  CHECK(file.Bytes().size() > empty.size());
  file.Store("mine");
  CHECK_THROWS(InvalidArgument, "found another kind of file", f.cache.Save(file.path));
  CHECK_EQ(file.Bytes(), std::string("mine"));
  f.cache.Save(file.path, Overwrite::kOtherFiles);
  CHECK_EQ(PrefixFixture().cache.Load(file.path), 6);
}

}  // namespace dgrt
