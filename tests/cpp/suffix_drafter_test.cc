// drafting/: the automaton against a search through the whole text, the drafter on edits.
#include "drafting/suffix_drafter.h"

#include <algorithm>
#include <random>
#include <string>

#include "drafting/suffix_automaton.h"
#include "test.h"

namespace dgrt {
namespace {

// What the automaton must say, by looking everywhere.
SuffixAutomaton::Match LongestByHand(const std::vector<int32_t>& text) {
  const auto size = static_cast<int64_t>(text.size());
  for (int64_t length = size - 1; length > 0; --length) {
    const auto found = std::search(text.begin(), text.end() - 1, text.end() - length, text.end());
    if (found != text.end() - 1) return {length, found - text.begin() + length};
  }
  return {};
}

std::vector<int32_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

// Emits `target` after `prompt` in the way of the causal stage: the draft's right part, then one token of its own.
// Returns the number of rounds.
int64_t RoundsFor(const std::string& prompt, const std::string& target, int64_t draft_len = 64) {
  SuffixDrafter drafter;
  drafter.Append(Bytes(prompt));
  const std::vector<int32_t> wanted = Bytes(target);
  std::vector<int32_t> draft(static_cast<size_t>(draft_len));
  std::vector<float> confidence(draft.size());
  int64_t rounds = 0;
  for (size_t done = 0; done < wanted.size(); ++rounds) {
    const int64_t count = drafter.Draft(draft, confidence);
    size_t end = done;
    while (end - done < static_cast<size_t>(count) && end < wanted.size() && wanted[end] == draft[end - done]) ++end;
    end = std::min(end + 1, wanted.size());
    drafter.Append(std::span(wanted).subspan(done, end - done));
    done = end;
  }
  return rounds;
}

}  // namespace

TEST(TheAutomatonFindsTheLongestEarlierSuffix) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    const uint32_t alphabet = 1 + seed % 5;  // few letters: many repeats and clones
    std::vector<int32_t> text;
    SuffixAutomaton automaton;
    CHECK_EQ(automaton.LongestEarlierSuffix().length, 0);
    for (int i = 0; i < 150; ++i) {
      text.push_back(static_cast<int32_t>(random() % alphabet) * 70000);
      automaton.Extend(text.back());
      const auto expected = LongestByHand(text);
      const auto found = automaton.LongestEarlierSuffix();
      CHECK_EQ(found.length, expected.length);
      CHECK_EQ(found.end, expected.end);
    }
  }
}

TEST(NothingIsDraftedFromATextThatDoesNotRepeat) {
  SuffixDrafter drafter;
  std::vector<int32_t> draft(8);
  std::vector<float> confidence(8);
  CHECK_EQ(drafter.Draft(draft, confidence), 0);
  drafter.Append(Bytes("abcdefgh"));
  CHECK_EQ(drafter.Draft(draft, confidence), 0);
}

TEST(ACopyTakesAFewRounds) {
  const std::string text = "def area(w, h):\n    total = w * h\n    return total\n\nprint(area(3, 4))\n";
  // The first letters have to be found without a draft, then 64 come at a time.
  CHECK(RoundsFor("edit: keep\n" + text + "|", text) <= 6);
}

TEST(ACopyGoesOnAfterARenamedWordAnInsertedAndADeletedLine) {
  const std::string line1 = "count = len(rows)\n", line2 = "print(count, step)\n", line3 = "rows.append(count)\n";
  const std::string rest = "while step < limit:\n    step += width\n", prompt = "edit\n" + line1 + line2 + line3 + rest + "|";
  const std::string renamed = "total = len(rows)\nprint(total, step)\nrows.append(total)\n" + rest;
  const std::string inserted = line1 + "mean = 7\n" + line2 + line3 + rest;
  const std::string deleted = line1 + line3 + rest;
  CHECK(RoundsFor(prompt, renamed) <= 24);
  CHECK(RoundsFor(prompt, inserted) <= 18);
  CHECK(RoundsFor(prompt, deleted) <= 10);
}

TEST(ADraftNeverReachesBeyondTheText) {
  std::mt19937 random(3);
  SuffixDrafter drafter;
  std::vector<int32_t> draft(200, -1);
  std::vector<float> confidence(200);
  for (int i = 0; i < 2000; ++i) {
    const int32_t token = static_cast<int32_t>(random() % 3);
    drafter.Append({&token, 1});
    const int64_t count = drafter.Draft(draft, confidence);
    CHECK(count >= 0 && count <= std::min<int64_t>(200, i));
    for (int64_t k = 0; k < count; ++k) CHECK(draft[static_cast<size_t>(k)] >= 0 && draft[static_cast<size_t>(k)] < 3);
  }
}

TEST(ConfidenceStartsWithTheAgreementAndFollowsTheText) {
  MatchConfidence confidence;
  float before = 0;
  for (const int64_t agreement : {1, 2, 4, 8, 16, 32}) {
    CHECK(confidence.Of(agreement) > before && confidence.Of(agreement) < 1);
    before = confidence.Of(agreement);
  }
  CHECK_EQ(confidence.Of(4), confidence.Of(7));
  CHECK_EQ(confidence.Of(32), confidence.Of(5000));
  std::mt19937 random(5);
  for (int i = 0; i < 2000; ++i) confidence.Learn(6, random() % 10 < 3);
  CHECK_NEAR(static_cast<double>(confidence.Of(5)), 0.3, 0.08);
  CHECK_EQ(confidence.Of(32), before);  // another class
  for (int i = 0; i < 600; ++i) confidence.Learn(6, true);  // the text changes its ways
  CHECK(confidence.Of(5) > 0.9f);
}

TEST(ConfidenceOfADraftFallsAlongItAndRisesWithSuccess) {
  const std::vector<int32_t> line = Bytes("the quick brown fox jumps over the lazy dog; ");
  SuffixDrafter drafter;
  std::vector<int32_t> draft(20);
  std::vector<float> first(20), later(20);
  drafter.Append(line);
  drafter.Append(std::span(line).first(6));
  CHECK_EQ(drafter.Draft(draft, first), 20);
  for (size_t i = 1; i < first.size(); ++i) CHECK(first[i] < first[i - 1] && first[i] > 0);
  drafter.Append(std::span(line).subspan(6, 21));
  for (int round = 0; round < 5; ++round) {
    drafter.Append(std::span(line).subspan(27));
    drafter.Append(std::span(line).first(27));
    drafter.Draft(draft, later);
  }
  drafter.Draft(draft, later);
  CHECK(later[19] > first[19]);
}

TEST(WrongDraftsLowerTheConfidence) {
  SuffixDrafter drafter;
  std::vector<int32_t> draft(8);
  std::vector<float> confidence(8);
  drafter.Append(Bytes("abcdX"));
  float last = 1;
  for (int32_t i = 0; i < 6; ++i) {
    drafter.Append(Bytes("abcd"));
    CHECK(drafter.Draft(draft, confidence) > 0);
    CHECK(i == 0 || confidence[0] < last);
    last = confidence[0];
    const int32_t other = 200 + i;  // never what followed before
    drafter.Append({&other, 1});
  }
  CHECK(last < 0.5f);
}

}  // namespace dgrt
