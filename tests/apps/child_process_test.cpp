#include "apps/child_process.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <thread>

#include "apps/orphans.hpp"
#include "apps/stop_signals.hpp"
#include "tests/apps/zz_process.hpp"

namespace zz::apps {
namespace {

using ::testing::HasSubstr;

std::chrono::steady_clock::time_point soon() { return std::chrono::steady_clock::now() + test::kProcessDeadline; }

class Children : public ::testing::Test {
 protected:
  Result<ChildProcess> shell(const std::string& script) {
    return ChildProcess::start(
        {.name = "child", .program = "/bin/sh", .arguments = {"sh", "-c", script}, .log = directory_ / "log"});
  }
  // Waits until the log holds `text`.
  void await_log(const std::string& text) {
    const auto deadline = soon();
    while (test::read_text(directory_ / "log").find(text) == std::string::npos &&
           std::chrono::steady_clock::now() < deadline) {
      ::poll(nullptr, 0, 5);
    }
    EXPECT_THAT(test::read_text(directory_ / "log"), HasSubstr(text));
  }

  test::TemporaryDirectory directory_;
};

TEST_F(Children, TellHowTheyEndedAndWhatTheySaidLast) {
  Result<ChildProcess> child = shell("echo first; echo '[2024-01-01 10:00:00.000] [error] it is all over' >&2; exit 3");
  ASSERT_TRUE(child.ok()) << child.error();
  ASSERT_TRUE(child->wait_until(soon()));
  EXPECT_EQ(child->how_it_ended(), "ended with status 3");
  EXPECT_FALSE(child->was_killed());
  EXPECT_EQ(child->last_words(), "it is all over");
}

TEST_F(Children, AreToldApartWhenASignalEndedThem) {
  Result<ChildProcess> child = shell("kill -9 $$");
  ASSERT_TRUE(child.ok()) << child.error();
  ASSERT_TRUE(child->wait_until(soon()));
  EXPECT_EQ(child->how_it_ended(), "was killed by signal 9 (Killed)");
  EXPECT_TRUE(child->was_killed());
  EXPECT_EQ(child->last_words(), "");
}

TEST_F(Children, ThatCannotBeExecutedAreAnError) {
  const Result<ChildProcess> child = ChildProcess::start(
      {.name = "ghost", .program = "/no/such/program", .arguments = {"x"}, .log = directory_ / "log"});
  ASSERT_FALSE(child.ok());
  EXPECT_EQ(child.error(), "cannot start ghost: /no/such/program: No such file or directory");
}

TEST_F(Children, KeepTheLogOfTheRunBefore) {
  for (const char* script : {"echo one", "echo two"}) {
    Result<ChildProcess> child = shell(script);
    ASSERT_TRUE(child.ok()) << child.error();
    ASSERT_TRUE(child->wait_until(soon()));
  }
  EXPECT_EQ(test::read_text(directory_ / "log"), "two\n");
  EXPECT_EQ(test::read_text(directory_ / "log.1"), "one\n");
}

TEST_F(Children, InheritNoDescriptorAndNoBlockedSignal) {
  StopSignals signals;
  const int open_here = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC
  ASSERT_GE(open_here, 0);
  Result<ChildProcess> child = shell("ls /proc/self/fd | wc -l; grep SigBlk /proc/self/status");
  ASSERT_TRUE(child.ok()) << child.error();
  ASSERT_TRUE(child->wait_until(soon()));
  ::close(open_here);
  const std::string log = test::read_text(directory_ / "log");
  EXPECT_THAT(log, ::testing::StartsWith("4\n"));  // 0, 1, 2 and the directory that ls reads
  EXPECT_THAT(log, HasSubstr("SigBlk:\t0000000000000000"));
}

TEST_F(Children, AreKilledWithTheirObject) {
  pid_t pid = -1;
  {
    Result<ChildProcess> child = shell("trap '' TERM; echo up; while :; do sleep 1; done");
    ASSERT_TRUE(child.ok()) << child.error();
    await_log("up");
    pid = child->pid();
    EXPECT_TRUE(child->running());
  }
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST_F(Children, GetSigtermWhenTheThreadThatStartedThemEnds) {
  std::optional<ChildProcess> child;
  std::thread([&] {
    Result<ChildProcess> started = shell("trap 'echo told; exit 7' TERM; echo up; while :; do sleep 0.01; done");
    ASSERT_TRUE(started.ok()) << started.error();
    await_log("up");
    child.emplace(std::move(started).value());
  }).join();
  ASSERT_TRUE(child.has_value());
  ASSERT_TRUE(child->wait_until(soon()));
  EXPECT_EQ(child->how_it_ended(), "ended with status 7");
  EXPECT_EQ(child->last_words(), "told");
}

TEST_F(Children, LeaveOrphansThatAreFoundAndKilled) {
  Orphans orphans;
  Result<ChildProcess> child = shell("setsid sh -c 'trap \"\" TERM; echo $$ up; while :; do sleep 1; done' & exit 0");
  ASSERT_TRUE(child.ok()) << child.error();
  ASSERT_TRUE(child->wait_until(soon()));
  await_log("up");
  const pid_t orphan = std::stoi(test::read_text(directory_ / "log"));
  EXPECT_EQ(::kill(orphan, 0), 0);
  orphans.clear(std::chrono::steady_clock::now());
  EXPECT_EQ(::kill(orphan, 0), -1);
}

TEST_F(Children, OfOurOwnGroupAreNobodysOrphans) {
  Orphans orphans;
  const pid_t own = ::fork();
  if (own == 0) {
    ::pause();
    ::_exit(0);
  }
  orphans.clear(std::chrono::steady_clock::now());
  EXPECT_EQ(::kill(own, 0), 0);
  ::kill(own, SIGKILL);
  ::waitpid(own, nullptr, 0);
}

TEST(StopSignalsTest, AreSeenAndDoNotEndTheProcess) {
  StopSignals signals;
  EXPECT_FALSE(signals.requested());
  ::kill(::getpid(), SIGTERM);
  EXPECT_TRUE(signals.requested());
  EXPECT_TRUE(signals.requested());
}

}  // namespace
}  // namespace zz::apps
