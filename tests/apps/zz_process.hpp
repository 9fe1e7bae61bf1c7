#pragma once

// The zz binary as its users see it: started with a command line, read from outside, ended by a signal.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace zz::test {

inline constexpr std::chrono::seconds kProcessDeadline{60};

// A directory that is gone afterwards. Short, because sockets lie in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "zz-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// One run of zz, with standard output and error in one file each.
class ZzProcess {
 public:
  explicit ZzProcess(std::vector<std::string> arguments) : out_(files_ / "out"), err_(files_ / "err") {
    arguments.insert(arguments.begin(), "zz");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int out = ::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int err = ::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    ::execv(ZZ_BINARY, argv.data());
    ::_exit(126);
  }
  ~ZzProcess() {
    if (status_ < 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  ZzProcess(const ZzProcess&) = delete;
  ZzProcess& operator=(const ZzProcess&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void send_signal(int number) const { ::kill(pid_, number); }
  // Waits for its end; the exit status, or 128 + signal. Fails the test and kills it when it does not end.
  int wait() {
    if (status_ >= 0) return status_;
    const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    const auto limit = std::chrono::duration_cast<std::chrono::milliseconds>(kProcessDeadline).count();
    if (::poll(&entry, 1, static_cast<int>(limit)) <= 0) {
      ADD_FAILURE() << "zz did not end; it said: " << out() << err();
      ::kill(pid_, SIGKILL);
    }
    ::close(fd);
    int raw = 0;
    ::waitpid(pid_, &raw, 0);
    status_ = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return status_;
  }
  [[nodiscard]] std::string out() const { return read_text(out_); }
  [[nodiscard]] std::string err() const { return read_text(err_); }
  // Waits until standard output holds `text`; false when it does not within the deadline, or zz ended without it.
  bool await_output(const std::string& text) {
    const auto deadline = std::chrono::steady_clock::now() + kProcessDeadline;
    const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
    bool found = false;
    bool ended = false;
    while (!found && !ended && std::chrono::steady_clock::now() < deadline) {
      pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
      ended = ::poll(&entry, 1, 10) > 0;
      found = out().find(text) != std::string::npos;
    }
    ::close(fd);
    return found;
  }

 private:
  TemporaryDirectory files_;
  std::string out_;
  std::string err_;
  pid_t pid_ = -1;
  int status_ = -1;
};

// Processes other than this one whose command line, working directory or environment names `text`.
inline std::vector<pid_t> processes_naming(const std::string& text) {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename().string();
    if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) continue;
    const pid_t pid = std::stoi(name);
    const std::string place = "/proc/" + name;
    const std::string all = read_text(place + "/cmdline") + read_text(place + "/environ") +
                            std::filesystem::read_symlink(place + "/cwd", error).string();
    if (pid != ::getpid() && all.find(text) != std::string::npos) found.push_back(pid);
  }
  return found;
}

// Waits until no process names `text`; the number of those that are left at the deadline.
inline std::size_t await_no_process(const std::string& text, std::chrono::seconds limit = kProcessDeadline) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  std::vector<pid_t> left = processes_naming(text);
  while (!left.empty() && std::chrono::steady_clock::now() < deadline) {
    ::poll(nullptr, 0, 10);
    left = processes_naming(text);
  }
  return left.size();
}

}  // namespace zz::test
