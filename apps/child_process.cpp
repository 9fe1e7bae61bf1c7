#include "apps/child_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>
#include <utility>

namespace zz::apps {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(5);
constexpr std::streamoff kTailBytes = 4'096;
constexpr std::size_t kWordsMax = 400;
constexpr int kCannotExecute = 127;

// Between fork and exec: only calls that are safe there. Reports errno over `report` when it cannot go on.
[[noreturn]] void become(const char* program, char* const* arguments, int log, int report, pid_t parent) {
  const int nothing = ::open("/dev/null", O_RDONLY);
  sigset_t none;
  ::sigemptyset(&none);
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) ::sigaction(number, &plain, nullptr);
  const bool ready = ::setpgid(0, 0) == 0 && ::prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && nothing >= 0 &&
                     ::dup2(nothing, STDIN_FILENO) >= 0 && ::dup2(log, STDOUT_FILENO) >= 0 &&
                     ::dup2(log, STDERR_FILENO) >= 0 && ::sigprocmask(SIG_SETMASK, &none, nullptr) == 0 &&
                     ::close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
  if (::getppid() != parent) ::_exit(kCannotExecute);  // it ended before we asked to be told
  if (ready) ::execv(program, arguments);
  const int error = errno;
  if (::write(report, &error, sizeof error) < 0) ::_exit(kCannotExecute);
  ::_exit(kCannotExecute);
}

// "[2024-01-01 10:00:00.000] [info] text" gives "text".
std::string_view without_prefix(std::string_view line) {
  while (!line.empty() && line.front() == '[') {
    const std::size_t end = line.find("] ");
    if (end == std::string_view::npos) break;
    line.remove_prefix(end + 2);
  }
  return line;
}

}  // namespace

Result<ChildProcess> ChildProcess::start(ChildCommand command) {
  std::rename(command.log.c_str(), (command.log + ".1").c_str());  // there may be none
  const int log = ::open(command.log.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) return Error{fmt::format("{}: cannot make log file: {}", command.log, std::strerror(errno))};
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) {
    ::close(log);
    return Error{fmt::format("cannot make a pipe: {}", std::strerror(errno))};
  }
  std::vector<char*> arguments;
  for (std::string& argument : command.arguments) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) become(command.program.c_str(), arguments.data(), log, report[1], parent);
  const int fork_error = errno;
  ::close(log);
  ::close(report[1]);
  int error = 0;
  const bool failed = pid > 0 && ::read(report[0], &error, sizeof error) == sizeof error;
  ::close(report[0]);
  if (pid < 0) return Error{fmt::format("cannot start {}: {}", command.name, std::strerror(fork_error))};
  if (failed) {
    ::waitpid(pid, nullptr, 0);
    return Error{fmt::format("cannot start {}: {}: {}", command.name, command.program, std::strerror(error))};
  }
  return ChildProcess(std::move(command), pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : command_(std::move(other.command_)),
      pid_(std::exchange(other.pid_, -1)),
      ended_(other.ended_),
      status_(other.status_) {}

ChildProcess::~ChildProcess() {
  if (!running()) return;
  send_signal(SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
}

bool ChildProcess::running() {
  if (pid_ < 0 || ended_) return false;
  const pid_t reaped = ::waitpid(pid_, &status_, WNOHANG);
  ended_ = reaped == pid_ || (reaped < 0 && errno == ECHILD);
  return !ended_;
}

bool ChildProcess::wait_until(std::chrono::steady_clock::time_point deadline) {
  while (running()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kLookEvery);
  }
  return true;
}

void ChildProcess::send_signal(int number) {
  if (running()) ::kill(pid_, number);
}

std::string ChildProcess::how_it_ended() const {
  if (WIFSIGNALED(status_)) {
    return fmt::format("was killed by signal {} ({})", WTERMSIG(status_), ::strsignal(WTERMSIG(status_)));
  }
  return fmt::format("ended with status {}", WEXITSTATUS(status_));
}

bool ChildProcess::was_killed() const { return WIFSIGNALED(status_) && WTERMSIG(status_) == SIGKILL; }

std::string ChildProcess::last_words() const {
  std::ifstream file(command_.log, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const std::streamoff size = file.tellg();
  file.seekg(std::max<std::streamoff>(0, size - kTailBytes));
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  }
  std::string words(without_prefix(last).substr(0, kWordsMax));
  std::replace_if(
      words.begin(), words.end(), [](unsigned char c) { return c < 32 || c == 127; }, ' ');
  return words;
}

}  // namespace zz::apps
