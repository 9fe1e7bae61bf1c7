// The real `zz demo`, as a user runs it.

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/apps/zz_process.hpp"

namespace zz::apps {
namespace {

namespace fs = std::filesystem;

// The last line of `text`.
std::string last_line(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

std::size_t demo_directories_in(const std::string& dir) {
  std::size_t count = 0;
  for (const auto& entry : fs::directory_iterator(dir)) {
    count += entry.path().filename().string().starts_with("zz-demo-") ? 1 : 0;
  }
  return count;
}

TEST(Demo, SurvivesALieAFreezeAndACrashWithoutOneWrongReply) {
  test::ZzProcess demo({"demo", "--json", "--requests", "600"});
  demo.await_output("At the end");
  EXPECT_EQ(demo.wait(), 0) << demo.err();
  const std::string told = demo.out();
  const auto summary = nlohmann::json::parse(last_line(told), nullptr, false);
  ASSERT_TRUE(summary.is_object()) << told;
  EXPECT_EQ(summary["service"], "webdav");
  EXPECT_GE(summary["requests"].get<std::uint64_t>(), 600U);
  EXPECT_EQ(summary["accepted_replies"], summary["requests"]);
  EXPECT_EQ(summary["wrong_replies"], 0);
  EXPECT_GE(summary["divergences"].get<std::uint64_t>(), 3U);
  EXPECT_GE(summary["wakes"].get<std::uint64_t>(), 3U);
  EXPECT_GE(summary["evictions"].get<std::uint64_t>(), 3U);
  EXPECT_GT(summary["first_correct_reply_ms"].get<double>(), 0.0);
  EXPECT_EQ(summary["active_after"], 2);
  EXPECT_EQ(summary["asleep_after"], 1);
  for (const char* words : {"Fault 1 of 3", "Fault 2 of 3", "Fault 3 of 3", "was woken", "is evicted", "Summary"}) {
    EXPECT_NE(told.find(words), std::string::npos) << words;
  }
}

TEST(Demo, LeavesNothingBehindWhenItIsInterrupted) {
  const test::TemporaryDirectory dir;
  test::ZzProcess demo({"demo", "--dir", dir / "demo", "--requests", "100000"});
  ASSERT_TRUE(demo.await_output("it serves")) << demo.out() << demo.err();
  EXPECT_FALSE(test::processes_naming(dir / "demo").empty());
  demo.send_signal(SIGINT);
  EXPECT_EQ(demo.wait(), 1);
  EXPECT_EQ(test::await_no_process(dir / "demo"), 0U);
}

TEST(Demo, RemovesItsTemporaryDirectory) {
  const test::TemporaryDirectory dir;
  ASSERT_EQ(::setenv("TMPDIR", dir.path().c_str(), 1), 0);
  test::ZzProcess demo({"demo"});
  ASSERT_EQ(::unsetenv("TMPDIR"), 0);
  ASSERT_TRUE(demo.await_output("it serves")) << demo.out() << demo.err();
  EXPECT_EQ(demo_directories_in(dir.path()), 1U);
  demo.send_signal(SIGTERM);
  EXPECT_EQ(demo.wait(), 1);
  EXPECT_EQ(demo_directories_in(dir.path()), 0U);
}

TEST(Demo, RefusesADirectoryThatIsNotEmpty) {
  const test::TemporaryDirectory dir;
  std::ofstream(dir / "precious") << "data";
  test::ZzProcess demo({"demo", "--dir", dir.path()});
  EXPECT_EQ(demo.wait(), 1);
  EXPECT_NE(demo.err().find(dir.path()), std::string::npos);
  EXPECT_TRUE(fs::exists(dir / "precious"));
}

}  // namespace
}  // namespace zz::apps
