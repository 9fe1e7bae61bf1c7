// The warden's side of warden.hpp: one thread, blocking calls, no Asio. Runs in a forked child and never returns.

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <thread>

#include "vmpool/process/mounts.hpp"
#include "vmpool/process/process_table.hpp"
#include "vmpool/process/warden.hpp"

namespace zz::vmpool {
namespace {

constexpr int kControlFd = 3;   // of guests
constexpr int kSweepMinMs = 2;  // between rounds of killing orphans, doubled
constexpr int kSweepMaxMs = 20;
constexpr std::array kIgnored = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};

// What went wrong between fork and exec, through a pipe that exec closes.
struct SpawnError {
  char doing[32];
  int code;
};

struct Guest {
  pid_t pid = 0;
  std::string work;
  bool exited = false;
  bool forget = false;
};

std::string describe_exit(int status) {
  if (WIFSIGNALED(status))
    return "killed by signal " + std::to_string(WTERMSIG(status)) + " (" + ::strsignal(WTERMSIG(status)) + ")";
  return "exited with status " + std::to_string(WEXITSTATUS(status));
}

// Empty, or what could not be removed.
std::string remove_work(const std::string& work) {
  if (const auto off = take_off_mounts(work); !off) return off.error();
  std::error_code error;
  std::filesystem::remove_all(work, error);
  return error ? work + ": " + error.message() : std::string();
}

void send_report(int socket, const WardenReport& report) {
  const std::string message = encode_report(report);
  (void)::send(socket, message.data(), message.size(), MSG_NOSIGNAL);
}

class WardenProcess {
 public:
  WardenProcess(int socket, int signals, FreezerHome home)
      : socket_(socket), signals_(signals), home_(std::move(home)), self_(::getpid()) {}

  // Serves until the daemon is gone.
  void serve() {
    for (;;) {
      std::array<pollfd, 2> ready = {pollfd{socket_, POLLIN, 0}, pollfd{signals_, POLLIN, 0}};
      const int count = ::poll(ready.data(), ready.size(), sweeping_ ? sweep_ms_ : -1);
      if (count < 0 && errno != EINTR) return;
      if (count < 0) continue;
      if (ready[1].revents != 0) {
        signalfd_siginfo ignored;
        while (::read(signals_, &ignored, sizeof ignored) > 0) {
        }
        reap();
      }
      if (ready[0].revents != 0 && !take_command()) return;
      if (sweeping_) sweep();
      answer_forgets();
    }
  }

  // The daemon is gone: so is everything else.
  int finish() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kWardenKillTimeoutMs);
    std::string left;
    if (auto cleared = clear_freezer(home_, kWardenKillTimeoutMs); !cleared) left = cleared.error();
    for (auto& [number, guest] : guests_) guest.exited = true;  // no child is spared
    for (int wait_ms = 1; !childless(); wait_ms = std::min(2 * wait_ms, kSweepMaxMs)) {
      if (std::chrono::steady_clock::now() >= deadline) {
        left += " processes of guests are still there";
        break;
      }
      sweep();
      std::this_thread::sleep_for(std::chrono::milliseconds(wait_ms));
    }
    for (const auto& [number, guest] : guests_) {
      if (const std::string failed = remove_work(guest.work); !failed.empty()) left += " " + failed;
    }
    if (!left.empty()) std::fprintf(stderr, "zz warden: %s\n", left.c_str());
    return left.empty() ? 0 : 1;
  }

 private:
  // The kernel's own word that there is no descendant: all of them would be children in the end.
  [[nodiscard]] static bool childless() {
    siginfo_t ignored{};
    return ::waitid(P_ALL, 0, &ignored, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == ECHILD;
  }

  void report(WardenReport::Kind kind, std::uint64_t number, pid_t pid, std::string text) const {
    send_report(socket_, {kind, number, pid, std::move(text)});
  }

  void reap() {
    for (;;) {
      int status = 0;
      const pid_t pid = ::waitpid(-1, &status, WNOHANG);
      if (pid <= 0) return;
      bool first = false;
      for (auto& [number, guest] : guests_) {
        if (guest.pid != pid || guest.exited) continue;
        first = guest.exited = true;
        report(WardenReport::Kind::kExited, number, pid, describe_exit(status));
        // What it left behind is ours now.
        sweeping_ = true;
        sweep_ms_ = kSweepMinMs;
      }
      if (!first) stray_reaped_ = true;
    }
  }

  // Kills the children that are nobody's first process: orphans of guests that ended. They are gone when none was
  // seen and none ended unseen since the last look.
  void sweep() {
    stray_reaped_ = false;
    bool seen = false;
    std::vector<ProcessInfo> doomed;
    std::vector<ProcessInfo> table = list_processes();
    for (const ProcessInfo& process : table) {
      if (process.parent != self_ || is_first(process.pid)) continue;
      seen = true;
      const std::vector<ProcessInfo> family = family_of(table, process.pid);
      doomed.insert(doomed.end(), family.begin(), family.end());
    }
    const bool gone = killer_.round(doomed);
    kill_fresh_strays();
    reap();
    sweeping_ = seen || stray_reaped_ || !gone;
    sweep_ms_ = std::min(2 * sweep_ms_, kSweepMaxMs);
  }

  // Who forks and ends without pause is gone before its family is known; it is caught in the moment it is seen.
  void kill_fresh_strays() const {
    std::vector<pid_t> pids = list_pids();
    std::sort(pids.begin(), pids.end(), std::greater<>());
    for (const pid_t pid : pids) {
      const auto process = read_process(pid);
      if (process && process->parent == self_ && process->state != 'Z' && !is_first(pid))
        send_signal(*process, SIGKILL);
    }
  }

  [[nodiscard]] bool is_first(pid_t pid) const {
    return std::any_of(guests_.begin(), guests_.end(),
                       [pid](const auto& entry) { return entry.second.pid == pid && !entry.second.exited; });
  }

  void answer_forgets() {
    for (auto it = guests_.begin(); it != guests_.end();) {
      // Control groups already told the daemon that nobody is left; without them the orphans are ours to end.
      const bool orphans = sweeping_ && home_.kind == FreezerKind::kSignals;
      if (!it->second.forget || !it->second.exited || orphans) {
        ++it;
        continue;
      }
      report(WardenReport::Kind::kForgotten, it->first, 0, remove_work(it->second.work));
      it = guests_.erase(it);
    }
  }

  // False when the daemon is gone.
  bool take_command() {
    std::string buffer(kWardenMessageMax, '\0');
    iovec part{buffer.data(), buffer.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> extra{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = extra.data();
    header.msg_controllen = extra.size();
    const ssize_t size = ::recvmsg(socket_, &header, MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EINTR) return true;
    if (size <= 0) return false;
    buffer.resize(static_cast<std::size_t>(size));
    int fd = -1;
    const cmsghdr* item = CMSG_FIRSTHDR(&header);
    if (item != nullptr && item->cmsg_type == SCM_RIGHTS) std::memcpy(&fd, CMSG_DATA(item), sizeof(int));
    const auto command = parse_command(buffer);
    if (command && command->spawn) {
      spawn(*command->spawn, fd);
    } else if (command) {
      const auto it = guests_.find(command->forget);
      if (it != guests_.end()) {
        it->second.forget = true;
      } else {
        // Its spawn failed before the command got here: there is nothing to wait for.
        report(WardenReport::Kind::kForgotten, command->forget, 0, {});
      }
    }
    if (fd >= 0) ::close(fd);
    return command.has_value();
  }

  void spawn(const SpawnCommand& command, int control_fd) {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) {
      not_spawned(command, std::string("no pipe: ") + std::strerror(errno));
      return;
    }
    std::vector<char*> argv;
    for (const std::string& part : command.argv) argv.push_back(const_cast<char*>(part.c_str()));  // NOLINT
    argv.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) become_guest(command, argv, control_fd, pipe[1]);
    const int code = errno;
    ::close(pipe[1]);
    SpawnError error{};
    const bool failed = pid > 0 && ::read(pipe[0], &error, sizeof error) == sizeof error;
    ::close(pipe[0]);
    if (pid < 0) {
      not_spawned(command, std::string("cannot fork: ") + std::strerror(code));
    } else if (failed) {
      while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
      not_spawned(command, std::string(error.doing) + ": " + std::strerror(error.code));
    } else {
      guests_[command.number] = Guest{pid, command.work, false, false};
      report(WardenReport::Kind::kSpawned, command.number, pid, {});
    }
  }

  // The daemon forgets it like any other: its directory is still there.
  void not_spawned(const SpawnCommand& command, std::string why) {
    guests_[command.number] = Guest{0, command.work, true, false};
    report(WardenReport::Kind::kNotSpawned, command.number, 0,
           (command.argv.empty() ? std::string("no program") : command.argv.front()) + ": " + why);
  }

  // Between fork and exec: only system calls.
  [[noreturn]] void become_guest(const SpawnCommand& command, const std::vector<char*>& argv, int control_fd,
                                 int errors) const {
    const auto give_up = [errors](const char* doing) {
      SpawnError error{};
      error.code = errno;
      std::strncpy(error.doing, doing, sizeof error.doing - 1);
      (void)!::write(errors, &error, sizeof error);
      ::_exit(127);
    };
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != self_) ::_exit(127);
    // Its orphans stay below it, so that its family can be found without control groups.
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    const rlimit no_core{0, 0};  // it will hold a key
    ::setrlimit(RLIMIT_CORE, &no_core);
    if (!command.join.empty()) {
      const int group = ::open(command.join.c_str(), O_WRONLY | O_CLOEXEC);
      if (group < 0 || ::write(group, "0", 1) != 1) give_up("join the control group");
    }
    if (::chdir(command.work.c_str()) != 0) give_up("enter the work directory");
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const int log = ::open(command.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (null < 0) give_up("open /dev/null");
    if (log < 0) give_up("open the log");
    if (::dup2(null, 0) < 0 || ::dup2(log, 1) < 0 || ::dup2(log, 2) < 0) give_up("set up descriptors");
    if (::dup2(control_fd, kControlFd) < 0) give_up("set up the control channel");
    ::close_range(kControlFd + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    for (const int signal : kIgnored) ::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execv(argv[0], argv.data());
    give_up("execute");
    ::_exit(127);
  }

  const int socket_;
  const int signals_;
  const FreezerHome home_;
  const pid_t self_;
  std::map<std::uint64_t, Guest> guests_;
  FamilyKiller killer_;
  bool sweeping_ = false;
  bool stray_reaped_ = false;
  int sweep_ms_ = kSweepMinMs;
};

// Leaves only standard output and error, the socket and what is to be kept; returns the socket's new number.
int keep_only(int socket, int keep_fd) {
  const int high = ::fcntl(socket, F_DUPFD_CLOEXEC, 100);
  const int kept = keep_fd >= 0 ? ::fcntl(keep_fd, F_DUPFD_CLOEXEC, 101) : -1;
  ::dup3(high, 3, O_CLOEXEC);
  if (kept >= 0) ::dup3(kept, 4, O_CLOEXEC);
  ::close_range(kept >= 0 ? 5 : 4, ~0U, 0);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(null, 0);
  return 3;
}

}  // namespace

void run_warden(int socket, const Warden::Options& options) {
  ::setsid();
  ::prctl(PR_SET_NAME, "zz-warden");
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (const int signal : kIgnored) ::signal(signal, SIG_IGN);
  ::signal(SIGCHLD, SIG_DFL);
  const int kept = keep_only(socket, options.keep_fd);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGCHLD);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  const int signals = ::signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
  auto home = open_freezer(options.name, options.freezer);
  if (!home) {
    send_report(kept, {WardenReport::Kind::kNoHome, 0, 0, home.error()});
    ::_exit(1);
  }
  send_report(kept, {WardenReport::Kind::kHome, static_cast<std::uint64_t>(home->kind), 0, home->directory});
  WardenProcess warden(kept, signals, *home);
  warden.serve();
  ::_exit(warden.finish());
}

}  // namespace zz::vmpool
