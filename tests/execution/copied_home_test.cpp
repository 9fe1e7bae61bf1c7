// An HttpAdapter whose $STATE is a plain directory that checkpoints copy.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include "tests/execution/home_slot.hpp"

namespace zz::execution::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

HttpAdapterConfig copied(HttpAdapterConfig config) {
  config.http.copy_state = true;
  return config;
}

TEST(CopiedHome, ReplicasOfNginxAreEqualAtEachCheckpointAndAThirdGoesOnFromThere) {
  TempDir dir;
  const HttpAdapterConfig config = copied(webdav(dir));
  Slot a(config);
  Slot b(config);
  ASSERT_EQ(a.start(), "");
  ASSERT_EQ(b.start(), "");
  EXPECT_FALSE(a.driven->adapter->state_is_in_store());
  EXPECT_EQ(a.driven->warned, "") << "it is as it was asked for";
  EXPECT_EQ(a.root(), b.root()) << "of the initial state";
  std::optional<Slot> woken;
  int n = 0;
  for (const SharedBytes& op : webdav_script()) {
    const std::string reply = a.call(op);
    ASSERT_EQ(reply, b.call(op));
    if (woken) {
      ASSERT_EQ(reply, woken->call(op)) << op.text();
    }
    if (++n % 7 != 0) continue;
    ASSERT_TRUE(a.save());
    ASSERT_TRUE(b.save());
    ASSERT_EQ(a.root(), b.root()) << "after " << n;
    if (woken) {
      ASSERT_TRUE(woken->save());
      ASSERT_EQ(a.root(), woken->root()) << "after " << n;
    }
    if (n != 28) continue;
    woken.emplace(config);
    ASSERT_EQ(woken->start(), "");
    ASSERT_EQ(woken->adopt(a), "");
    EXPECT_GT(woken->asked, 0u);
    woken->driven->calls = a.driven->calls;
  }
  ASSERT_TRUE(woken);
  EXPECT_GT(n, 60);
}

TEST(CopiedHome, ARequestThatEndsTheServiceIsUndoneAndWhatCameBeforeItIsNot) {
  HttpAdapterConfig config = copied(odd_service());
  config.http.request_timeout_ms = 500;
  Slot a(config);
  Slot b(config);
  ASSERT_EQ(a.start(), "");
  ASSERT_EQ(b.start(), "");
  int lines = 0;
  for (const char* const target : {"/write-crash", "/write-close", "/write-hang", "/crash"}) {
    for (int i = 0; i < 3; ++i) {
      const std::string now = "\r\n\r\n" + std::to_string(++lines);
      EXPECT_THAT(a.get("/write"), EndsWith(now));
      EXPECT_THAT(b.get("/write"), EndsWith(now));
      if (i == 0) {
        ASSERT_TRUE(a.save() && b.save());
      }
    }
    const std::string reply = a.get(target);
    EXPECT_EQ(reply, target == std::string("/write-hang") ? kNotInTime : kNoAnswer);
    EXPECT_EQ(reply, b.get(target));
  }
  std::string log;
  for (int i = 0; i < lines; ++i) log += "line\n";
  for (Slot* const slot : {&a, &b}) EXPECT_THAT(slot->get("/state"), EndsWith("\r\n\r\n" + log));
  ASSERT_TRUE(a.save() && b.save());
  EXPECT_EQ(a.root(), b.root());
  EXPECT_EQ(a.driven->died, "");
}

TEST(CopiedHome, AServiceThatDiesBetweenRequestsLosesNothing) {
  Slot slot(copied(odd_service()));
  ASSERT_EQ(slot.start(), "");
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n1"));
  ASSERT_TRUE(slot.save());
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n2"));
  const pid_t first = slot.driven->adapter->service_pid();
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  slot.until([&] { return slot.driven->adapter->service_pid() != first && slot.driven->adapter->service_pid() > 0; });
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n3"));
}

TEST(CopiedHome, WhatAMappingHoldsIsInTheStateAtEachCheckpoint) {
  Slot a(copied(odd_service()));
  ASSERT_EQ(a.start(), "");
  Digest before = a.root();
  const auto map = a.driven->dir.path / "work/state/map";
  int silent = 0;  // changes that the file's times do not show, long after the last that they showed
  struct stat last {};
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (auto shown = std::chrono::steady_clock::now(); silent < 5 && std::chrono::steady_clock::now() < deadline;) {
    EXPECT_THAT(a.get("/map"), EndsWith("mapped"));
    struct stat now {};
    ASSERT_EQ(::stat(map.c_str(), &now), 0);
    const bool is_same = now.st_ctim.tv_sec == last.st_ctim.tv_sec && now.st_ctim.tv_nsec == last.st_ctim.tv_nsec;
    if (!is_same) shown = std::chrono::steady_clock::now();
    silent += std::chrono::steady_clock::now() - shown > std::chrono::milliseconds(60) ? 1 : 0;
    last = now;
    ASSERT_TRUE(a.save());
    ASSERT_NE(a.root(), before);
    before = a.root();
  }
  EXPECT_EQ(silent, 5) << "the fault did not happen";
}

TEST(CopiedHome, AStateThatComesWhileAnotherIsFetchedIsTakenInstead) {
  Slot first(copied(odd_service()));
  ASSERT_EQ(first.start(), "");
  first.get("/write");
  ASSERT_TRUE(first.save());
  Slot woken(copied(odd_service()));
  ASSERT_EQ(woken.start(), "");
  {
    const state::Snapshot of = first.take();
    const std::lock_guard lock(woken.head);
    woken.store->adopt(*state::ObjectStore::root(of));
  }
  bool is_called = false;
  woken.driven->adapter->replaced([&](const Result<void>&) { is_called = true; });
  woken.until([&] { return !woken.wanted.empty(); });
  first.get("/write");
  ASSERT_TRUE(first.save());
  ASSERT_EQ(woken.adopt(first), "") << "nobody ever supplied what the first waits for";
  EXPECT_FALSE(is_called);
  EXPECT_THAT(woken.get("/write"), EndsWith("\r\n\r\n3"));
  EXPECT_EQ(woken.driven->died, "");
}

TEST(CopiedHome, WhatCannotBeCopiedEndsTheServiceAndIsNamed) {
  Slot slot(copied(odd_service()));
  ASSERT_EQ(slot.start(), "");
  const std::string pipe = (slot.driven->dir.path / "work/state/pipe").string();
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_FALSE(slot.save());
  EXPECT_EQ(slot.driven->died,
            "service \"web\" is of no use any more: the state cannot be copied: " + pipe + " is a pipe");
  EXPECT_EQ(slot.get("/write"), kNoAnswer);
}

TEST(CopiedHome, OneThatCopiesAndOneThatMountsAreNotToBeMixed) {
  Slot mounted(odd_service());
  ASSERT_EQ(mounted.start(), "");
  SKIP_WITHOUT_FUSE(mounted);
  Slot copied_one(copied(odd_service()));
  ASSERT_EQ(copied_one.start(), "");
  EXPECT_EQ(mounted.root(), copied_one.root());
  for (int i = 0; i < 2; ++i) EXPECT_EQ(mounted.get("/write"), copied_one.get("/write"));
  ASSERT_TRUE(copied_one.save());
  EXPECT_NE(mounted.root(), copied_one.root()) << "the file's first time is that of the first request there";
}

TEST(CopiedHome, AStateWhoseCheckpointsWereCopiedIsClearedToTheInitialOne) {
  TempDir dir;
  Slot slot(copied(webdav(dir)));
  ASSERT_EQ(slot.start(), "");
  slot.call(operation(http::verb::put, "/f", "x"));
  ASSERT_TRUE(slot.save());
  {
    const std::lock_guard lock(slot.head);
    slot.store->clear();
  }
  ASSERT_EQ(slot.replaced(), "");
  EXPECT_THAT(slot.get("/f"), HasSubstr("404 Not Found"));
  EXPECT_THAT(slot.call(operation(http::verb::put, "/f", "x")), HasSubstr("201 Created"));
}

}  // namespace
}  // namespace zz::execution::testing
