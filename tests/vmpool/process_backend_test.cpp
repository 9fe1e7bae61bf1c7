#include "vmpool/process/process_backend.hpp"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/vmpool/process_fixture.hpp"
#include "vmpool/process/mounts.hpp"
#include "vmpool/process/warden.hpp"

namespace zz::vmpool {
namespace {

namespace fs = std::filesystem;

class ProcessBackendTest : public ::testing::TestWithParam<FreezerKind> {
 protected:
  void SetUp() override {
    const std::string missing = world.open();
    if (!missing.empty()) GTEST_SKIP() << missing;
    ASSERT_EQ(world.backend->freezer(), GetParam());
  }
  // Boots a guest of that behaviour, and waits until it has so many processes.
  void boot(const std::string& behaviour, std::size_t processes = 1) {
    world.backend.reset();
    world.behaviour = behaviour;
    ASSERT_EQ(world.open(), "");
    const auto booted = world.boot(kGuest);
    ASSERT_TRUE(booted) << booted.error();
    ASSERT_TRUE(world.until([&] { return noted_processes(world.work(kGuest)).size() >= processes; }));
  }
  [[nodiscard]] std::vector<ProcessInfo> noted() const { return noted_processes(world.work(kGuest)); }
  [[nodiscard]] bool nothing_left_of(const GuestId& guest) const {
    return world.backend->processes(guest).empty() && !fs::exists(world.work(guest));
  }

  const GuestId kGuest = guest_id(1);
  ProcessWorld world{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Freezers, ProcessBackendTest,
                         ::testing::Values(FreezerKind::kCgroupV2, FreezerKind::kCgroupV1, FreezerKind::kSignals),
                         [](const auto& param) {
                           std::string name(to_string(param.param));
                           std::erase(name, '-');
                           return name;
                         });

std::uint64_t cpu_ticks(const std::vector<ProcessInfo>& processes) {
  std::uint64_t out = 0;
  for (const ProcessInfo& process : processes) {
    if (const auto now = read_process(process.pid)) out += now->cpu_ticks;
  }
  return out;
}

bool has_group(const std::string& name) {
  for (const auto* root : {"/sys/fs/cgroup/unified/", "/sys/fs/cgroup/freezer/", "/sys/fs/cgroup/"}) {
    if (fs::exists(root + name)) return true;
  }
  return false;
}

// ---- the life of a guest -----------------------------------------------------------------------------------------

TEST_P(ProcessBackendTest, BootsFreezesThawsHandsOverAndDestroysAGuest) {
  boot("");
  EXPECT_EQ(world.backend->processes(kGuest).size(), 1u);
  EXPECT_TRUE(world.freeze(kGuest));
  Identity identity{kGuest, Epoch{4}, {}, {}};
  identity.key_seed[0] = 0xab;
  identity.entropy[31] = 0xcd;
  EXPECT_FALSE(world.hand_over(identity)) << "a frozen agent cannot take it";
  EXPECT_TRUE(world.thaw(kGuest));
  ASSERT_TRUE(world.hand_over(identity));
  ASSERT_TRUE(world.until([&] { return world.has_file(kGuest, "identity"); }));
  EXPECT_EQ(read_file(world.work(kGuest) + "/identity"),
            "0 0 1 4 ab" + std::string(62, '0') + " " + std::string(62, '0') + "cd\n");
  const auto processes = noted();
  EXPECT_TRUE(world.destroy(kGuest));
  EXPECT_TRUE(all_gone(processes));
  EXPECT_TRUE(nothing_left_of(kGuest));
  EXPECT_TRUE(world.dead.empty()) << "it did not end by itself";
}

TEST_P(ProcessBackendTest, FreezesThawsAndDestroysTwiceAsOnce) {
  boot("");
  EXPECT_TRUE(world.freeze(kGuest));
  EXPECT_TRUE(world.freeze(kGuest));
  EXPECT_TRUE(world.thaw(kGuest));
  EXPECT_TRUE(world.thaw(kGuest));
  EXPECT_TRUE(world.destroy(kGuest));
  EXPECT_TRUE(world.destroy(kGuest));
}

TEST_P(ProcessBackendTest, AnswersTwoDestroysOfOneGuest) {
  boot("");
  int answers = 0;
  for (int i = 0; i < 2; ++i) {
    world.backend->destroy(kGuest, [&](const Result<void>& result) {
      EXPECT_TRUE(result);
      ++answers;
    });
  }
  EXPECT_TRUE(world.until([&] { return answers == 2; }));
}

TEST_P(ProcessBackendTest, KeepsTwoGuestsApart) {
  boot("");
  const GuestId other = guest_id(2, 1);
  ASSERT_TRUE(world.boot(other));
  EXPECT_TRUE(world.freeze(kGuest));
  EXPECT_TRUE(world.hand_over({other, Epoch{}, {}, {}}));
  EXPECT_TRUE(world.until([&] { return world.has_file(other, "identity"); }));
  EXPECT_TRUE(world.destroy(kGuest));
  EXPECT_EQ(world.backend->processes(other).size(), 1u);
  EXPECT_FALSE(world.boot(other)) << "a name is used once";
}

TEST_P(ProcessBackendTest, RefusesCallsForAGuestThatDoesNotRun) {
  EXPECT_FALSE(world.freeze(kGuest));
  EXPECT_FALSE(world.thaw(kGuest));
  EXPECT_FALSE(world.hand_over({kGuest, Epoch{}, {}, {}}));
  EXPECT_FALSE(world.inject(kGuest, FaultKind::kCrash));
  EXPECT_TRUE(world.destroy(kGuest)) << "nothing is left of nothing";
}

TEST_P(ProcessBackendTest, PutsTheGuestsOutputIntoItsLog) {
  boot("");
  EXPECT_TRUE(fs::exists(world.dir.path() + "/log/s0-slot0.log"));
}

TEST_P(ProcessBackendTest, GivesTheGuestNothingButItsChannelAndItsLog) {
  boot("");
  std::set<std::string> open;
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(noted().at(0).pid) + "/fd"))
    open.insert(entry.path().filename().string());
  EXPECT_EQ(open, (std::set<std::string>{"0", "1", "2", "3"}));
}

// ---- boots that fail ---------------------------------------------------------------------------------------------

class BootFailure : public ProcessBackendTest {
 protected:
  // The error of a boot that must fail and leave nothing.
  std::string failure(const std::string& behaviour, ProcessOptions options) {
    world.backend.reset();
    if (!behaviour.empty()) {
      options.command = [behaviour](const GuestId&, const std::string&) {
        return std::vector<std::string>{ZZ_TEST_GUEST, behaviour};
      };
    }
    auto made = ProcessBackend::make(world.loop, std::move(options));
    EXPECT_TRUE(made);
    world.backend = std::move(*made);
    const auto booted = world.boot(kGuest);
    EXPECT_FALSE(booted);
    EXPECT_TRUE(nothing_left_of(kGuest));
    EXPECT_TRUE(world.dead.empty());
    return booted ? "" : booted.error();
  }
};
INSTANTIATE_TEST_SUITE_P(Freezers, BootFailure,
                         ::testing::Values(FreezerKind::kCgroupV2, FreezerKind::kCgroupV1, FreezerKind::kSignals),
                         [](const auto& param) {
                           std::string name(to_string(param.param));
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(BootFailure, SaysWhatTheAgentSays) {
  EXPECT_NE(failure("fail", world.options()).find("the service is out of order"), std::string::npos);
}

TEST_P(BootFailure, SaysHowTheProgramEnded) {
  const std::string error = failure("exit", world.options());
  EXPECT_NE(error.find("exited with status 3"), std::string::npos) << error;
  EXPECT_NE(error.find("s0-slot0.log"), std::string::npos) << error;
}

TEST_P(BootFailure, NamesAProgramThatIsNotThere) {
  ProcessOptions options = world.options();
  options.command = [](const GuestId&, const std::string&) { return std::vector<std::string>{"/nowhere/zz"}; };
  const std::string error = failure("", std::move(options));
  EXPECT_NE(error.find("/nowhere/zz"), std::string::npos) << error;
  EXPECT_NE(error.find("No such file"), std::string::npos) << error;
}

TEST_P(BootFailure, DoesNotWaitForeverForAProgramThatIsNeverReady) {
  ProcessOptions options = world.options();
  options.boot_timeout_ms = 100;
  const std::string error = failure("mute", std::move(options));
  EXPECT_NE(error.find("was not ready within 100 ms"), std::string::npos) << error;
}

TEST_P(BootFailure, IsForgottenAlsoWhenTheWardenNeverHeardOfTheGuest) {
  world.backend.reset();
  ASSERT_EQ(world.open(), "");
  fs::create_directories(world.work(kGuest));
  const auto booted = world.boot(kGuest);
  ASSERT_FALSE(booted);
  EXPECT_NE(booted.error().find("cannot make the directory"), std::string::npos) << booted.error();
  EXPECT_EQ(booted.error().find("still being removed"), std::string::npos) << booted.error();
  EXPECT_TRUE(nothing_left_of(kGuest));
  const auto again = world.boot(kGuest);
  EXPECT_TRUE(again) << again.error();
}

TEST_P(BootFailure, IsOvertakenByDestroy) {
  world.behaviour = "mute";
  world.backend.reset();
  ASSERT_EQ(world.open(), "");
  std::optional<Result<void>> booted;
  world.backend->boot(kGuest, [&](const Result<void>& result) { booted = result; });
  EXPECT_TRUE(world.destroy(kGuest));
  ASSERT_TRUE(booted) << "every call is answered";
  EXPECT_FALSE(*booted);
  EXPECT_TRUE(nothing_left_of(kGuest));
}

// ---- sleep -------------------------------------------------------------------------------------------------------

// The purpose of this test is to wait.
TEST_P(ProcessBackendTest, AFrozenGuestThatSpinsUsesNoCpuForFiveSeconds) {
  boot("family", 5);
  const auto processes = noted();
  const std::uint64_t before_freezing = cpu_ticks(processes);
  ASSERT_TRUE(world.until([&] { return cpu_ticks(processes) > before_freezing + 5; })) << "it does not even spin";
  ASSERT_TRUE(world.freeze(kGuest));
  const std::uint64_t frozen = cpu_ticks(processes);
  boost::asio::steady_timer timer(world.loop, std::chrono::seconds(5));
  bool over = false;
  timer.async_wait([&](const boost::system::error_code&) { over = true; });
  ASSERT_TRUE(world.until([&] { return over; }));
  EXPECT_EQ(cpu_ticks(processes), frozen);
  ASSERT_TRUE(world.thaw(kGuest));
  EXPECT_TRUE(world.until([&] { return cpu_ticks(processes) > frozen + 5; })) << "it does not spin again";
}

TEST_P(ProcessBackendTest, FreezesAGuestThatForksWithoutEndByItsControlGroup) {
  if (GetParam() == FreezerKind::kSignals) GTEST_SKIP() << "signals cannot hold it";
  boot("bomb");
  ASSERT_TRUE(world.freeze(kGuest));
  const auto frozen = world.backend->processes(kGuest);
  EXPECT_GE(frozen.size(), 2u);
  for (int i = 0; i < 100; ++i) {
    world.loop.run_one();
    ASSERT_EQ(world.backend->processes(kGuest), frozen);
  }
  EXPECT_TRUE(world.thaw(kGuest));
  EXPECT_TRUE(world.until([&] { return world.backend->processes(kGuest) != frozen; })) << "it does not fork again";
}

TEST_P(ProcessBackendTest, FreezesEveryThreadAlsoWhenTheFirstOneEnded) {
  boot("headless");
  const auto processes = noted();
  ASSERT_TRUE(world.freeze(kGuest));
  const std::uint64_t frozen = cpu_ticks(processes);
  EXPECT_TRUE(world.thaw(kGuest));
  EXPECT_TRUE(world.until([&] { return cpu_ticks(processes) > frozen + 5; }));
  EXPECT_TRUE(world.destroy(kGuest));
  EXPECT_TRUE(all_gone(processes));
}

// ---- death -------------------------------------------------------------------------------------------------------

TEST_P(ProcessBackendTest, KillsAGuestThatSpinsForksAndLeavesItsSession) {
  for (const bool asleep : {false, true}) {
    boot("family", 5);
    const auto processes = noted();
    if (asleep) {
      ASSERT_TRUE(world.freeze(kGuest));
    }
    const auto destroyed = world.destroy(kGuest);
    EXPECT_TRUE(destroyed) << destroyed.error();
    EXPECT_TRUE(all_gone(processes));
    EXPECT_TRUE(nothing_left_of(kGuest));
  }
}

TEST_P(ProcessBackendTest, KillsAGuestThatForksWithoutEnd) {
  boot("bomb");
  const auto destroyed = world.destroy(kGuest);
  ASSERT_TRUE(destroyed) << destroyed.error();
  // Whoever escaped would still be below the warden.
  const auto family = family_of(list_processes(), static_cast<pid_t>(world.backend->warden()));
  EXPECT_EQ(family.size(), 1u);
}

TEST_P(ProcessBackendTest, ReportsAGuestThatEndsByItselfOnce) {
  boot("end");
  EXPECT_TRUE(world.hand_over({kGuest, Epoch{}, {}, {}}));
  ASSERT_TRUE(world.until([&] { return !world.dead.empty(); }));
  EXPECT_FALSE(world.freeze(kGuest));
  EXPECT_TRUE(world.destroy(kGuest));
  EXPECT_EQ(world.dead, std::vector<GuestId>{kGuest});
}

TEST_P(ProcessBackendTest, ReportsAGuestThatIsKilledFromOutsideAsleepOrAwake) {
  for (const bool asleep : {false, true}) {
    boot("family", 5);
    const auto processes = noted();
    world.dead.clear();
    if (asleep && GetParam() == FreezerKind::kCgroupV1) continue;  // its tasks take no signal while frozen
    if (asleep) {
      ASSERT_TRUE(world.freeze(kGuest));
    }
    ASSERT_EQ(::kill(processes.at(0).pid, SIGKILL), 0);
    ASSERT_TRUE(world.until([&] { return !world.dead.empty(); }));
    EXPECT_TRUE(world.destroy(kGuest));
    EXPECT_TRUE(all_gone(processes)) << "its family survived it";
  }
}

TEST_P(ProcessBackendTest, TakesAGuestThatBreaksTheProtocolForDead) {
  for (const auto* behaviour : {"garbage", "endless", "hang-up"}) {
    world.dead.clear();
    boot(behaviour);
    const auto processes = noted();
    EXPECT_TRUE(world.hand_over({kGuest, Epoch{}, {}, {}}));
    EXPECT_TRUE(world.until([&] { return !world.dead.empty(); })) << behaviour;
    EXPECT_TRUE(all_gone(processes)) << behaviour;
  }
}

// ---- faults ------------------------------------------------------------------------------------------------------

TEST_P(ProcessBackendTest, TellsTheAgentToMisbehave) {
  boot("");
  EXPECT_TRUE(world.inject(kGuest, FaultKind::kWrongReply));
  EXPECT_EQ(read_file(world.work(kGuest) + "/fault"), "wrong-reply");
  EXPECT_TRUE(world.inject(kGuest, FaultKind::kSlow));
  EXPECT_EQ(read_file(world.work(kGuest) + "/fault"), "slow");
}

TEST_P(ProcessBackendTest, TellsASleeperToMisbehaveWhenItWakes) {
  boot("");
  ASSERT_TRUE(world.freeze(kGuest));
  EXPECT_TRUE(world.inject(kGuest, FaultKind::kWrongReply));
  EXPECT_FALSE(world.has_file(kGuest, "fault"));
  ASSERT_TRUE(world.thaw(kGuest));
  EXPECT_TRUE(world.until([&] { return world.has_file(kGuest, "fault"); }));
}

TEST_P(ProcessBackendTest, SilencesAGuestForGoodWithoutItsDeathBeingReported) {
  boot("family", 5);
  const auto processes = noted();
  ASSERT_TRUE(world.inject(kGuest, FaultKind::kSilent));
  const std::uint64_t silent = cpu_ticks(processes);
  EXPECT_TRUE(world.thaw(kGuest));
  EXPECT_TRUE(world.hand_over({kGuest, Epoch{}, {}, {}}));
  EXPECT_FALSE(world.has_file(kGuest, "identity"));
  EXPECT_EQ(cpu_ticks(processes), silent);
  EXPECT_TRUE(world.dead.empty());
  EXPECT_TRUE(world.destroy(kGuest));
  EXPECT_TRUE(all_gone(processes));
}

TEST_P(ProcessBackendTest, CrashesAGuestAsleepOrAwakeAndReportsItsDeath) {
  for (const bool asleep : {false, true}) {
    world.dead.clear();
    boot("family", 5);
    const auto processes = noted();
    if (asleep) {
      ASSERT_TRUE(world.freeze(kGuest));
    }
    const auto crashed = world.inject(kGuest, FaultKind::kCrash);
    EXPECT_TRUE(crashed) << crashed.error();
    EXPECT_TRUE(world.until([&] { return !world.dead.empty(); }));
    EXPECT_TRUE(world.until([&] { return all_gone(processes); }));
    EXPECT_EQ(world.dead, std::vector<GuestId>{kGuest});
  }
}

// A daemon in a process of its own, that boots a waking and a sleeping guest, says so, and runs until it is killed.
[[noreturn]] void run_daemon(FreezerKind kind, const ProcessOptions& options, int tell) {
  boost::asio::io_context loop(1);
  ProcessOptions mine = options;
  mine.freezer = kind;
  auto made = ProcessBackend::make(loop, std::move(mine));
  if (!made) ::_exit(1);
  ProcessBackend& backend = **made;
  int ready = 0;
  const auto done = [&](const Result<void>& result) {
    if (!result) ::_exit(1);
    if (++ready < 2) return;
    const auto warden = static_cast<pid_t>(backend.warden());
    (void)!::write(tell, &warden, sizeof warden);
  };
  backend.boot(guest_id(1, 0), done);
  backend.boot(guest_id(2, 1), [&](const Result<void>& result) {
    if (!result) ::_exit(1);
    backend.freeze(guest_id(2, 1), done);
  });
  loop.run();
  ::_exit(2);
}

// ---- what a guest mounted ----------------------------------------------------------------------------------------

std::string without_fuse() {
  if (::geteuid() != 0) return "only root can mount without a helper";
  return ::access("/dev/fuse", R_OK | W_OK) == 0 ? "" : "no /dev/fuse";
}

TEST_P(ProcessBackendTest, AGuestThatIsKilledLeavesNoMount) {
  if (const std::string why = without_fuse(); !why.empty()) GTEST_SKIP() << why;
  boot("mount");
  const std::vector<std::string> mounts = {world.work(kGuest) + "/a place", world.work(kGuest) + "/state"};
  ASSERT_EQ(mounts_below(world.work(kGuest)), mounts);
  const auto processes = noted();
  ASSERT_EQ(::kill(processes.front().pid, SIGKILL), 0);
  ASSERT_TRUE(world.until([&] { return !world.dead.empty(); }));
  struct stat ignored {};
  EXPECT_EQ(::stat(mounts[1].c_str(), &ignored) == 0 ? 0 : errno, ENOTCONN) << "that is what it leaves";
  const auto destroyed = world.destroy(kGuest);
  EXPECT_TRUE(destroyed) << destroyed.error();
  EXPECT_TRUE(mounts_below(world.work(kGuest)).empty());
  EXPECT_TRUE(nothing_left_of(kGuest));
}

// The daemon, the warden and the guest are killed: nobody was left to take it off but the next daemon.
TEST_P(ProcessBackendTest, TakesOffWhatAnEarlierDaemonLeftMounted) {
  if (const std::string why = without_fuse(); !why.empty()) GTEST_SKIP() << why;
  world.backend.reset();
  world.behaviour = "mount";
  const ProcessOptions options = world.options();
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const pid_t daemon = ::fork();
  if (daemon == 0) run_daemon(GetParam(), options, pipe[1]);
  ::close(pipe[1]);
  pid_t warden = 0;
  ASSERT_EQ(::read(pipe[0], &warden, sizeof warden), static_cast<ssize_t>(sizeof warden));
  ::close(pipe[0]);
  auto processes = noted_processes(world.work(guest_id(1, 0)));
  const auto sleeping = noted_processes(world.work(guest_id(2, 1)));
  processes.insert(processes.end(), sleeping.begin(), sleeping.end());
  ASSERT_EQ(::kill(daemon, SIGSTOP), 0);  // or it clears up when the warden is gone
  ASSERT_EQ(::kill(warden, SIGKILL), 0);
  ASSERT_EQ(::kill(daemon, SIGKILL), 0);
  ASSERT_EQ(::waitpid(daemon, nullptr, 0), daemon);
  for (const ProcessInfo& process : processes) ::kill(process.pid, SIGKILL);
  ASSERT_EQ(mounts_below(options.work_dir).size(), 4u);
  EXPECT_EQ(world.open(), "");
  EXPECT_TRUE(world.until([&] { return all_gone(processes); })) << "a frozen group of version 1 dies only now";
  EXPECT_TRUE(mounts_below(options.work_dir).empty());
  EXPECT_TRUE(fs::is_empty(options.work_dir));
}

// ---- the end of the daemon ---------------------------------------------------------------------------------------

TEST_P(ProcessBackendTest, LeavesNothingWhenItIsClosed) {
  boot("family", 5);
  const auto processes = noted();
  const auto warden = read_process(static_cast<pid_t>(world.backend->warden()));
  const std::string name = world.options().name;
  world.backend.reset();
  EXPECT_TRUE(all_gone(processes));
  EXPECT_TRUE(is_gone(*warden));
  EXPECT_FALSE(has_group(name));
  EXPECT_FALSE(fs::exists(world.work(kGuest)));
}

TEST_P(ProcessBackendTest, RemovesWhatAnEarlierDaemonLeftOfItsSlotsOnly) {
  world.backend.reset();
  const std::string work = world.dir.path() + "/work/";
  for (const auto* name : {"s0-slot0-17", "s0-slot1-3", "s0-slot2-5", "s1-slot0-17"}) {
    fs::create_directories(work + name + "/below");
  }
  ASSERT_EQ(world.open(), "");
  EXPECT_FALSE(fs::exists(work + "s0-slot0-17"));
  EXPECT_FALSE(fs::exists(work + "s0-slot1-3"));
  EXPECT_TRUE(fs::exists(work + "s0-slot2-5"));
  EXPECT_TRUE(fs::exists(work + "s1-slot0-17"));
}

TEST_P(ProcessBackendTest, ReportsEveryGuestDeadAndItselfUselessWhenTheWardenIsKilled) {
  world.backend.reset();
  ProcessOptions options = world.options();
  const std::string options_name = options.name;
  std::string fatal;
  options.on_fatal = [&](const std::string& why) { fatal = why; };
  auto made = ProcessBackend::make(world.loop, std::move(options));
  ASSERT_TRUE(made);
  world.backend = std::move(*made);
  world.backend->set_on_dead([this](const GuestId& guest) { world.dead.push_back(guest); });
  ASSERT_TRUE(world.boot(kGuest));
  ASSERT_TRUE(world.freeze(kGuest));
  const auto processes = noted();
  ASSERT_EQ(::kill(static_cast<pid_t>(world.backend->warden()), SIGKILL), 0);
  EXPECT_TRUE(world.until([&] { return !fatal.empty(); }));
  EXPECT_EQ(world.dead, std::vector<GuestId>{kGuest});
  EXPECT_TRUE(world.until([&] { return all_gone(processes); }));
  EXPECT_FALSE(world.boot(guest_id(2)));
  world.backend.reset();
  EXPECT_FALSE(has_group(options_name));
}

TEST_P(ProcessBackendTest, KillingTheDaemonLeavesNoProcessAndNoFile) {
  world.backend.reset();
  world.behaviour = "family";
  const ProcessOptions options = world.options();
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const pid_t daemon = ::fork();
  if (daemon == 0) run_daemon(GetParam(), options, pipe[1]);
  ::close(pipe[1]);
  pid_t warden_pid = 0;
  ASSERT_EQ(::read(pipe[0], &warden_pid, sizeof warden_pid), static_cast<ssize_t>(sizeof warden_pid));
  ::close(pipe[0]);
  const auto warden = read_process(warden_pid);
  ASSERT_TRUE(warden);
  // The awake guest has all its family; the sleeping one was frozen somewhere on the way to it.
  std::vector<ProcessInfo> processes;
  ASSERT_TRUE(world.until([&] {
    processes = noted_processes(world.work(guest_id(1, 0)));
    return processes.size() >= 5;
  }));
  const auto sleeping = noted_processes(world.work(guest_id(2, 1)));
  ASSERT_FALSE(sleeping.empty());
  processes.insert(processes.end(), sleeping.begin(), sleeping.end());
  // What takes a whole terminal session down does not impress the warden.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ASSERT_EQ(::kill(warden_pid, signal), 0);
  ASSERT_EQ(::kill(daemon, SIGKILL), 0);
  ASSERT_EQ(::waitpid(daemon, nullptr, 0), daemon);
  EXPECT_TRUE(world.until([&] { return is_gone(*warden); }));
  EXPECT_TRUE(all_gone(processes));
  EXPECT_TRUE(fs::is_empty(options.work_dir));
  EXPECT_FALSE(has_group(options.name));
}

// ---- the messages between daemon and warden ------------------------------------------------------------------------

TEST(Warden, ReadsBackWhatItIsSentAndNothingElse) {
  const SpawnCommand command{7, {"/bin/x", "a b", ""}, "/work", "/log", "/group"};
  const auto spawn = parse_command(encode_spawn(command));
  ASSERT_TRUE(spawn && spawn->spawn);
  EXPECT_EQ(spawn->spawn->number, 7u);
  EXPECT_EQ(spawn->spawn->argv, command.argv);
  const auto forget = parse_command(encode_forget(9));
  ASSERT_TRUE(forget && !forget->spawn);
  EXPECT_EQ(forget->forget, 9u);
  const auto report = parse_report(encode_report({WardenReport::Kind::kExited, 7, 12, "why"}));
  ASSERT_TRUE(report);
  EXPECT_EQ(report->text, "why");
  EXPECT_EQ(report->pid, 12);
  for (const auto* bad : {"", "{", "[]", "{\"spawn\":1}", "{\"forget\":-\"x\"}", "{\"forget\":\"x\"}"}) {
    EXPECT_FALSE(parse_command(bad)) << bad;
    EXPECT_FALSE(parse_report(bad)) << bad;
  }
}

// ---- freezers ----------------------------------------------------------------------------------------------------

TEST(Freezer, FallsBackToSignalsOnlyWhenNoControlGroupWorks) {
  const std::string name = "zz-test-" + std::to_string(::getpid());
  const auto best = open_freezer(name);
  ASSERT_TRUE(best);
  const bool v2 = open_freezer(name, FreezerKind::kCgroupV2).ok();
  const bool v1 = open_freezer(name, FreezerKind::kCgroupV1).ok();
  const FreezerKind expected = v2 ? FreezerKind::kCgroupV2 : v1 ? FreezerKind::kCgroupV1 : FreezerKind::kSignals;
  EXPECT_EQ(best->kind, expected);
  for (const auto kind : {FreezerKind::kCgroupV2, FreezerKind::kCgroupV1}) {
    if (const auto home = open_freezer(name, kind)) {
      EXPECT_TRUE(clear_freezer(*home, 1'000));
    }
  }
}

TEST(ProcessTable, KnowsThisProcessAndNoLaterOneWithItsNumber) {
  auto self = read_process(::getpid());
  ASSERT_TRUE(self);
  EXPECT_EQ(self->parent, ::getppid());
  EXPECT_FALSE(is_gone(*self));
  EXPECT_TRUE(send_signal(*self, 0));
  self->start_ticks -= 1;
  EXPECT_TRUE(is_gone(*self));
  EXPECT_FALSE(send_signal(*self, 0));
}

}  // namespace
}  // namespace zz::vmpool
