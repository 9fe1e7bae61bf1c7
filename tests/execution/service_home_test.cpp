#include "execution/service_home.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "execution/state_import.hpp"
#include "tests/execution/home_slot.hpp"

namespace zz::execution::testing {
namespace {

using statefs::FileSystem;
using statefs::kRootInode;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Clock = std::chrono::steady_clock;

// ---- files in the store ------------------------------------------------------------------------------------------

TEST(ServiceHome, WhatNginxStoresIsInTheStateAtItsAgreedTimeAndNowhereElse) {
  TempDir dir;
  Slot slot(webdav(dir));
  ASSERT_EQ(slot.start(), "");
  SKIP_WITHOUT_FUSE(slot);
  EXPECT_TRUE(slot.driven->adapter->state_is_in_store());
  EXPECT_THAT(slot.get("/a.txt"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(slot.call(operation(http::verb::put, "/a.txt", "hello")), StartsWith("HTTP/1.1 201"));
  EXPECT_THAT(slot.get("/a.txt"), EndsWith("\r\n\r\nhello"));
  const auto configuration = slot.find("nginx.conf");
  ASSERT_TRUE(configuration);
  EXPECT_EQ(configuration->record.modified, statefs::Time{}) << "the initial state has no times";
  const auto files = slot.find("files");
  ASSERT_TRUE(files);
  const auto stored = slot.find("a.txt", files->inode);
  ASSERT_TRUE(stored);
  EXPECT_EQ(stored->record.size, 5u);
  EXPECT_EQ(stored->record.modified.seconds, 2) << "that of the second request";
  slot.driven->adapter.reset();
  EXPECT_TRUE(fs::is_empty(slot.driven->dir.path / "work/state"));
}

TEST(ServiceHome, TwoReplicasThatRanTheSameRequestsHaveEqualRoots) {
  TempDir dir;
  const HttpAdapterConfig config = webdav(dir);
  Slot a(config);
  ASSERT_EQ(a.start(), "");
  SKIP_WITHOUT_FUSE(a);
  fs::last_write_time(dir.path / "initial/nginx.conf", fs::file_time_type::clock::now() - std::chrono::hours(7));
  Slot b(config);
  ASSERT_EQ(b.start(), "");
  EXPECT_EQ(a.root(), b.root()) << "of the initial state";
  static_cast<void>(fs::exists(b.driven->dir.path / "work/state"));
  for (const SharedBytes& op : webdav_script()) {
    ASSERT_EQ(a.call(op), b.call(op));
    ASSERT_EQ(a.root(), b.root()) << op.text();
  }
}

TEST(ServiceHome, WhatAMappingHoldsIsInTheStateWhenTheReplyCounts) {
  Slot a(odd_service());
  ASSERT_EQ(a.start(), "");
  SKIP_WITHOUT_FUSE(a);
  Slot b(odd_service());
  ASSERT_EQ(b.start(), "");
  Digest before = a.root();
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(a.get("/map"), EndsWith("mapped"));
    EXPECT_THAT(b.get("/map"), EndsWith("mapped"));
    ASSERT_NE(a.root(), before);
    before = a.root();
    ASSERT_EQ(before, b.root());
  }
}

constexpr double kCostMax = 2.5;  // times a plain directory's

// What a home costs: ZZ_WEBDAV_ROUNDS rounds of PUT, two GETs, PROPFIND, MOVE and DELETE on either kind of directory,
// by turns, and of all turns the median, since the machine has other work.
TEST(ServiceHome, CostsOfWebdavAgainstAPlainDirectory) {
  const char* const text = std::getenv("ZZ_WEBDAV_ROUNDS");
  if (text == nullptr) GTEST_SKIP() << "a measurement: set ZZ_WEBDAV_ROUNDS";
  constexpr int kTurn = 10;
  const int rounds = std::max(std::atoi(text) / kTurn, 1) * kTurn;
  using Call = std::function<std::string(const SharedBytes&)>;
  const auto fill = [](const Call& call) {
    for (int i = 0; i < 20; ++i) call(operation(http::verb::put, "/kept" + std::to_string(i), std::string(9'000, 'k')));
  };
  const auto micros = [&](const Call& call, int from) {
    const Header to{"Destination", "http://example.org/moved"};
    const auto begin = Clock::now();
    for (int i = from; i < from + kTurn; ++i) {
      const std::string name = "/f" + std::to_string(i % 50);
      EXPECT_THAT(call(operation(http::verb::put, name, std::string(20'000, 'v'))), StartsWith("HTTP/1.1 20"));
      EXPECT_THAT(call(operation(http::verb::get, name)), StartsWith("HTTP/1.1 200"));
      EXPECT_THAT(call(operation(http::verb::get, "/kept" + std::to_string(i % 20))), StartsWith("HTTP/1.1 200"));
      EXPECT_THAT(call(operation(http::verb::propfind, "/", "", {{"Depth", "1"}})), StartsWith("HTTP/1.1 207"));
      EXPECT_THAT(call(operation(http::verb::move, name, "", {to})), StartsWith("HTTP/1.1 20"));
      EXPECT_THAT(call(operation(http::verb::delete_, "/moved")), StartsWith("HTTP/1.1 204"));
    }
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / (6.0 * kTurn);
  };
  const auto median = [](std::vector<double> of) {
    std::sort(of.begin(), of.end());
    return of[of.size() / 2];
  };
  TempDir dir;
  const HttpAdapterConfig config = webdav(dir);
  Driven plain(config);
  ASSERT_EQ(plain.start(), "");
  Slot slot(config);
  ASSERT_EQ(slot.start(), "");
  SKIP_WITHOUT_FUSE(slot);
  const Call on_plain = [&](const SharedBytes& op) { return plain.call(op); };
  const Call in_store = [&](const SharedBytes& op) { return slot.call(op); };
  fill(on_plain);
  fill(in_store);
  std::vector<double> plain_turns;
  std::vector<double> store_turns;
  for (int i = 0; i < rounds; i += kTurn) {
    plain_turns.push_back(micros(on_plain, i));
    store_turns.push_back(micros(in_store, i));
  }
  const double before = median(plain_turns);
  const double after = median(store_turns);
  std::printf("plain directory %.0f us a request, in the store %.0f us: %.2f times\n", before, after, after / before);
  EXPECT_LE(after / before, kCostMax);
}

// ---- requests that end the service -------------------------------------------------------------------------------

TEST(ServiceHome, ACrashIsA502WithoutATraceAndTheNextRequestGoesOn) {
  Slot slot(odd_service());
  ASSERT_EQ(slot.start(), "");
  SKIP_WITHOUT_FUSE(slot);
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n1"));
  const Digest before = slot.root();
  for (const char* const target : {"/write-crash", "/write-close", "/crash"}) {
    EXPECT_EQ(slot.get(target), kNoAnswer) << target;
    EXPECT_EQ(slot.root(), before) << target;
  }
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n2"));
  EXPECT_THAT(slot.get("/state"), EndsWith("\r\n\r\nline\nline\n"));
  EXPECT_EQ(slot.driven->died, "");
}

TEST(ServiceHome, AHangIsA504WithoutATraceAndTheNextRequestGoesOn) {
  HttpAdapterConfig config = odd_service();
  config.http.request_timeout_ms = 200;
  Slot slot(config);
  ASSERT_EQ(slot.start(), "");
  SKIP_WITHOUT_FUSE(slot);
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n1"));
  const Digest before = slot.root();
  EXPECT_EQ(slot.get("/write-hang"), kNotInTime);
  EXPECT_EQ(slot.root(), before);
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n2"));
  EXPECT_EQ(slot.driven->died, "");
}

TEST(ServiceHome, ReplicasAreEqualAfterAPoisonedRequestToo) {
  Slot a(odd_service());
  ASSERT_EQ(a.start(), "");
  SKIP_WITHOUT_FUSE(a);
  Slot b(odd_service());
  ASSERT_EQ(b.start(), "");
  for (const char* const target : {"/write", "/map", "/write-crash", "/write", "/map", "/write-close", "/write"}) {
    EXPECT_EQ(a.get(target), b.get(target)) << target;
    EXPECT_EQ(a.root(), b.root()) << target;
  }
}

TEST(ServiceHome, AServiceThatDiesBetweenRequestsIsStartedAgain) {
  Slot slot(odd_service());
  ASSERT_EQ(slot.start(), "");
  SKIP_WITHOUT_FUSE(slot);
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n1"));
  const pid_t first = slot.driven->adapter->service_pid();
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  slot.until([&] { return slot.driven->adapter->service_pid() != first && slot.driven->adapter->service_pid() > 0; });
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n2"));
  EXPECT_EQ(slot.driven->died, "");
}

TEST(ServiceHome, AServiceThatCannotBeStartedAgainIsDead) {
  HttpAdapterConfig config = odd_service();
  config.command = {"/bin/sh", "-c", "test -e once && exit 3; touch once; exec \"$0\" \"$1\"", ODD_SERVICE, "$PORT"};
  Slot slot(config);
  ASSERT_EQ(slot.start(), "");
  SKIP_WITHOUT_FUSE(slot);
  EXPECT_EQ(slot.get("/write-crash"), kNoAnswer);
  EXPECT_THAT(slot.driven->died, HasSubstr("service \"web\" could not be started again"));
  EXPECT_THAT(slot.driven->died, HasSubstr("exited with status 3"));
  EXPECT_EQ(slot.get("/write"), kNoAnswer);
}

// ---- a state from elsewhere --------------------------------------------------------------------------------------

TEST(ServiceHome, AnotherReplicaServesWhatItHasNotFetchedYet) {
  TempDir dir;
  const HttpAdapterConfig config = webdav(dir);
  Slot first(config);
  ASSERT_EQ(first.start(), "");
  SKIP_WITHOUT_FUSE(first);
  for (int i = 0; i < 60; ++i) {
    const std::string name = "/f" + std::to_string(i);
    first.call(operation(http::verb::put, name, std::string(50'000, static_cast<char>('a' + i % 26))));
  }
  Slot woken(config);
  ASSERT_EQ(woken.start(), "");
  ASSERT_EQ(woken.adopt(first), "");
  woken.driven->calls = first.driven->calls;
  for (const char* const target : {"/f7", "/f33", "/none", "/f7"}) EXPECT_EQ(woken.get(target), first.get(target));
  EXPECT_GT(woken.asked, 0u);
  {
    const std::scoped_lock both(first.head, woken.head);
    EXPECT_LT(woken.store->counters().supplied, first.store->totals().objects / 4) << "only what it touched";
  }
  for (const SharedBytes& op : webdav_script()) {
    ASSERT_EQ(first.call(op), woken.call(op));
    ASSERT_EQ(first.root(), woken.root()) << op.text();
  }
}

TEST(ServiceHome, TheTimeThatAFetchTakesIsNotTheServices) {
  HttpAdapterConfig config = odd_service();
  Slot first(config);
  ASSERT_EQ(first.start(), "");
  SKIP_WITHOUT_FUSE(first);
  first.get("/write");
  config.http.request_timeout_ms = 150;
  Slot woken(config);
  ASSERT_EQ(woken.start(), "");
  ASSERT_EQ(woken.adopt(first), "");
  woken.delay = std::chrono::milliseconds(200);
  EXPECT_THAT(woken.get("/write"), EndsWith("\r\n\r\n2"));
  EXPECT_EQ(woken.get("/write-hang"), kNotInTime) << "its own time is counted still";
  EXPECT_THAT(woken.get("/write"), EndsWith("\r\n\r\n3"));
}

TEST(ServiceHome, AStateThatComesWhileARequestWaitsEndsThatRequest) {
  Slot first(odd_service());
  ASSERT_EQ(first.start(), "");
  SKIP_WITHOUT_FUSE(first);
  first.get("/write");
  Slot woken(odd_service());
  ASSERT_EQ(woken.start(), "");
  ASSERT_EQ(woken.adopt(first), "");
  EXPECT_THAT(woken.get("/count"), EndsWith("\r\n\r\n1"));
  woken.source = nullptr;
  bool is_answered = false;
  woken.driven->adapter->execute({Seq{9}, Micros{9}, Digest{}, ClientId{0}, operation(http::verb::get, "/write")},
                                 [&](const SharedBytes&) { is_answered = true; });
  woken.until([&] { return !woken.wanted.empty(); });
  first.get("/write");
  ASSERT_EQ(woken.adopt(first), "") << "nobody ever supplied what the first waits for";
  EXPECT_FALSE(is_answered);
  EXPECT_THAT(woken.get("/write"), EndsWith("\r\n\r\n3"));
}

TEST(ServiceHome, AServiceCannotWriteIntoAStateThatReplacedItsOwn) {
  Slot slot(odd_service());
  ASSERT_EQ(slot.start(), "");
  SKIP_WITHOUT_FUSE(slot);
  slot.get("/write");
  const state::Snapshot agreed = slot.take();
  slot.get("/write");
  {
    const std::lock_guard lock(slot.head);
    slot.store->revert(agreed);
  }
  // The driver was not quick enough: the service runs on.
  EXPECT_EQ(slot.get("/write"), kNoAnswer) << "it can read and write nothing, and does not bear that";
  EXPECT_EQ(slot.root(), *state::ObjectStore::root(agreed));
  ASSERT_EQ(slot.replaced(), "");
  EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n2"));
}

// ---- waking ------------------------------------------------------------------------------------------------------

std::string wake(Slot& slot) {
  std::optional<std::string> outcome;
  slot.driven->adapter->woken([&](const Result<void>& result) { outcome = result.ok() ? "" : result.error(); });
  slot.until([&] { return outcome.has_value(); });
  return outcome.value_or("no answer");
}

TEST(ServiceHome, OnWakeTheServiceIsLeftAloneToldOrStartedAgain) {
  HttpAdapterConfig config = odd_service();
  for (const auto what : {crypto::OnWake::kNone, crypto::OnWake::kReload, crypto::OnWake::kRestart}) {
    config.http.on_wake = what;
    config.http.reload = {"/bin/sh", "-c", "echo \"$PID $STATE\" > reloaded; test \"$PID\" = $PID"};
    Slot slot(config);
    ASSERT_EQ(slot.start(), "");
    SKIP_WITHOUT_FUSE(slot);
    EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n1"));
    const pid_t before = slot.driven->adapter->service_pid();
    EXPECT_EQ(wake(slot), "");
    EXPECT_EQ(slot.driven->adapter->service_pid() == before, what != crypto::OnWake::kRestart);
    EXPECT_EQ(fs::exists(slot.driven->dir.path / "work/reloaded"), what == crypto::OnWake::kReload);
    EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n2"));
  }
}

TEST(ServiceHome, AServiceThatDiesAFourthTimeWithoutARequestIsDead) {
  Slot slot(odd_service());
  ASSERT_EQ(slot.start(), "");
  SKIP_WITHOUT_FUSE(slot);
  const auto kill_it = [&] {
    const pid_t pid = slot.driven->adapter->service_pid();
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    slot.until([&] { return slot.driven->adapter->service_pid() != pid; });
  };
  for (int round = 1; round <= 2; ++round) {
    for (int death = 1; death <= 3; ++death) {
      kill_it();
      ASSERT_EQ(wake(slot), "") << death;
    }
    EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n" + std::to_string(round))) << "a request begins anew";
  }
  for (int death = 1; death <= 3; ++death) {
    kill_it();
    ASSERT_EQ(wake(slot), "") << death;
  }
  EXPECT_EQ(slot.driven->died, "");
  kill_it();
  slot.until([&] { return !slot.driven->died.empty(); });
  EXPECT_THAT(slot.driven->died, HasSubstr("was killed by signal 9"));
  EXPECT_EQ(slot.get("/write"), kNoAnswer);
}

TEST(ServiceHome, AReloadThatFailsOrHangsBecomesARestart) {
  HttpAdapterConfig config = odd_service();
  config.http.on_wake = crypto::OnWake::kReload;
  config.http.start_timeout_ms = 500;
  for (const char* const command : {"/bin/false", "/no/such/program", "sleep 1000"}) {
    config.http.reload = {"/bin/sh", "-c", command};
    Slot slot(config);
    ASSERT_EQ(slot.start(), "");
    SKIP_WITHOUT_FUSE(slot);
    const pid_t before = slot.driven->adapter->service_pid();
    EXPECT_EQ(wake(slot), "");
    EXPECT_NE(slot.driven->adapter->service_pid(), before);
    EXPECT_THAT(slot.get("/write"), EndsWith("\r\n\r\n1"));
  }
}

// ---- no FUSE, and the import -------------------------------------------------------------------------------------

TEST(ServiceHome, WithoutFuseTheStateIsADirectoryThatIsCopiedAndThatIsSaid) {
  if (::geteuid() != 0 || ::access("/dev/fuse", F_OK) != 0)
    GTEST_SKIP() << "only root can become somebody without FUSE";
  struct stat device {};
  ASSERT_EQ(::stat("/dev/fuse", &device), 0);
  if ((device.st_mode & 0006) != 0) GTEST_SKIP() << "anybody may use FUSE here";
  const auto run = [] {
    if (::setgid(65'534) != 0 || ::setuid(65'534) != 0) ::_exit(1);
    Slot slot(odd_service());
    if (const std::string error = slot.start(); !error.empty()) {
      std::fprintf(stderr, "%s\n", error.c_str());
      ::_exit(2);
    }
    if (slot.driven->warned.find("/dev/fuse: Permission denied; so its state is a plain directory that each "
                                 "checkpoint copies") == std::string::npos)
      ::_exit(3);
    if (slot.driven->adapter->state_is_in_store() || !slot.get("/write").ends_with("\r\n\r\n1")) ::_exit(4);
    if (slot.find("log") || !slot.save() || !slot.find("log")) ::_exit(5);
    ::_exit(slot.get("/write-crash") == kNoAnswer && slot.get("/write").ends_with("\r\n\r\n2") ? 0 : 6);
  };
  EXPECT_EXIT(run(), ::testing::ExitedWithCode(0), "");
}

Result<void> import_all(state::ObjectStore& store, const std::string& from, std::size_t step) {
  std::mutex head;
  FileSystem files(store);
  StateImport import(files, head, from, {7, 8});
  for (;;) {
    const Result<bool> done = import.step(step);
    if (!done) return Error{done.error()};
    if (*done) return {};
  }
}

TEST(StateImport, EqualDirectoriesGiveEqualStatesWhateverTheirTimesAndTheSteps) {
  TempDir a;
  TempDir b;
  const std::string large(700'000, 'l');
  for (const TempDir* const dir : {&a, &b}) {
    std::vector<std::string> names = {"x", "y", "z", "a"};
    if (dir == &b) std::reverse(names.begin(), names.end());
    for (const std::string& name : names) {
      fs::create_directories(dir->path / name / "deep");
      std::ofstream(dir->path / name / "small") << name;
      std::ofstream(dir->path / name / "deep/large") << large;
    }
    fs::permissions(dir->path / "x/small", fs::perms{0640});
  }
  fs::last_write_time(b.path / "x/small", fs::file_time_type::clock::now() - std::chrono::hours(1'000));
  const auto one = state::testing::in_memory();
  const auto other = state::testing::in_memory();
  ASSERT_TRUE(import_all(*one, a.path, 1 << 30).ok());
  ASSERT_TRUE(import_all(*other, b.path, 1).ok());
  EXPECT_EQ(state::testing::root_of(*one), state::testing::root_of(*other));
  FileSystem files(*one);
  const auto x = files.lookup(kRootInode, "x");
  ASSERT_TRUE(x.ok());
  const auto small = files.lookup(x.attributes.inode, "small");
  ASSERT_TRUE(small.ok());
  EXPECT_EQ(small.attributes.record.mode, 0100640u);
  EXPECT_EQ(small.attributes.record.uid, 7u);
  const auto deep = files.lookup(x.attributes.inode, "deep");
  ASSERT_TRUE(deep.ok());
  EXPECT_EQ(files.lookup(deep.attributes.inode, "large").attributes.record.size, 700'000u);
}

TEST(StateImport, WhatCannotBeTakenIsNamed) {
  TempDir dir;
  const auto store = state::testing::in_memory();
  EXPECT_EQ(import_all(*store, "/no/such", 1).error(), "initial_state: /no/such is not a directory");
  fs::create_symlink("x", dir.path / "link");
  EXPECT_EQ(import_all(*store, dir.path, 1).error(),
            "initial_state: " + (dir.path / "link").string() + " is neither a regular file nor a directory");
  EXPECT_TRUE(import_all(*state::testing::in_memory(), "", 1).ok()) << "no initial state: an empty directory";
}

}  // namespace
}  // namespace zz::execution::testing
