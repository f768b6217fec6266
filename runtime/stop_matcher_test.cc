#include "runtime/stop_matcher.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

struct Shown {
  std::string text;
  bool stopped = false;
};

// Pushes `text` in pieces of `piece` bytes.
Shown Match(const std::vector<std::string>& stops, absl::string_view text,
            size_t piece) {
  absl::StatusOr<StopMatcher> matcher = StopMatcher::Create(stops);
  EXPECT_TRUE(matcher.ok()) << matcher.status();
  Shown shown;
  for (size_t i = 0; i < text.size() && !shown.stopped; i += piece) {
    shown.stopped = matcher->Push(text.substr(i, piece), &shown.text);
  }
  matcher->Flush(&shown.text);
  return shown;
}

// What the header promises, said slowly: the first byte at which any string is
// complete, cut at the start of the longest of those that end there.
Shown Reference(const std::vector<std::string>& stops, absl::string_view text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end &&
          text.substr(end - stop.size(), stop.size()) == stop) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {std::string(text.substr(0, end - longest)), true};
  }
  return {std::string(text), false};
}

TEST(StopMatcherTest, WithoutStringsShowsAllTextAtOnce) {
  absl::StatusOr<StopMatcher> matcher = StopMatcher::Create({});
  ASSERT_TRUE(matcher.ok());
  std::string out;
  EXPECT_FALSE(matcher->Push("Hello", &out));
  EXPECT_EQ(out, "Hello");
}

TEST(StopMatcherTest, StopsWithinOnePiece) {
  const Shown shown = Match({"END"}, "The END of it", 100);
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.text, "The ");
}

TEST(StopMatcherTest, NeverShowsTheBeginningOfAStringThatIsCompletedLater) {
  absl::StatusOr<StopMatcher> matcher = StopMatcher::Create({"\nUser:"});
  ASSERT_TRUE(matcher.ok());
  std::string out;
  EXPECT_FALSE(matcher->Push("Hello\n", &out));
  EXPECT_EQ(out, "Hello");
  EXPECT_FALSE(matcher->Push("Us", &out));
  EXPECT_EQ(out, "Hello");
  EXPECT_TRUE(matcher->Push("er: I", &out));
  EXPECT_EQ(out, "Hello");
  EXPECT_TRUE(matcher->stopped());
  matcher->Flush(&out);
  EXPECT_EQ(out, "Hello");
}

TEST(StopMatcherTest, ReleasesHeldTextAsSoonAsItCannotMatch) {
  absl::StatusOr<StopMatcher> matcher = StopMatcher::Create({"\nUser:"});
  ASSERT_TRUE(matcher.ok());
  std::string out;
  EXPECT_FALSE(matcher->Push("Hello\nUs", &out));
  EXPECT_FALSE(matcher->Push("ual", &out));
  EXPECT_EQ(out, "Hello\nUsual");
}

TEST(StopMatcherTest, FlushShowsWhatWasHeldBack) {
  const Shown shown = Match({"abcd"}, "xyzabc", 2);
  EXPECT_FALSE(shown.stopped);
  EXPECT_EQ(shown.text, "xyzabc");
}

TEST(StopMatcherTest, FindsAStringInsideTheFailedBeginningOfAnother) {
  const Shown shown = Match({"abcx", "bc"}, "abcd", 1);
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.text, "a");
}

TEST(StopMatcherTest, FindsAStringThatOverlapsItself) {
  EXPECT_EQ(Match({"aab"}, "aaab", 1).text, "a");
  EXPECT_EQ(Match({"abab"}, "ababa", 1).text, "");
}

TEST(StopMatcherTest, OfStringsThatEndTogetherTheLongestIsCut) {
  EXPECT_EQ(Match({"c", "bc", "abc"}, "xabc", 1).text, "x");
}

TEST(StopMatcherTest, BytesAboveAsciiMatch) {
  const Shown shown = Match({"конец"}, "это конец.", 1);
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.text, "это ");
}

TEST(StopMatcherTest, NulBytesMatch) {
  const std::string stop("\0x", 2);
  const Shown shown = Match({stop}, absl::string_view("a\0xb", 4), 1);
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.text, "a");
}

TEST(StopMatcherTest, AgreesWithSearchByHandOnRandomText) {
  std::mt19937 random(7);
  int stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + random() % 4);
    for (std::string& stop : stops) {
      const size_t length = 1 + random() % 5;
      for (size_t i = 0; i < length; ++i) stop += 'a' + random() % 3;
    }
    std::string text;
    const size_t length = random() % 30;
    for (size_t i = 0; i < length; ++i) text += 'a' + random() % 3;
    const Shown expected = Reference(stops, text);
    stopped += expected.stopped;
    for (size_t piece : {1, 2, 5, 100}) {
      const Shown shown = Match(stops, text, piece);
      ASSERT_EQ(shown.text, expected.text) << text << " by " << piece;
      ASSERT_EQ(shown.stopped, expected.stopped) << text << " by " << piece;
    }
  }
  EXPECT_GT(stopped, 500);
  EXPECT_LT(stopped, 2900);
}

TEST(StopMatcherTest, ThousandStringsFindTheRightOne) {
  std::vector<std::string> stops;
  for (int i = 0; i < 1000; ++i)
    stops.push_back(absl::StrCat("<stop ", i, ">"));
  const Shown shown =
      Match(stops, "a <stop x> b <stop 1000> c <stop 731> d", 3);
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.text, "a <stop x> b <stop 1000> c ");
}

TEST(StopMatcherTest, RejectsEmptyString) {
  absl::StatusOr<StopMatcher> matcher = StopMatcher::Create({"a", ""});
  EXPECT_EQ(matcher.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(matcher.status().message().find("stop"), std::string::npos);
}

TEST(StopMatcherTest, RejectsMoreBytesThanTheLimit) {
  const std::vector<std::string> stops = {std::string(kMaxStopBytes, 'a'), "b"};
  EXPECT_EQ(StopMatcher::Create(stops).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(StopMatcherTest, TakesALongStringOfOneCharacter) {
  const std::string stop(100000, 'a');
  const Shown shown = Match({stop}, absl::StrCat("b", stop, "c"), 1000);
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.text, "b");
}

}  // namespace
}  // namespace nibble
