#include "vmpool/process/process_table.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

namespace zz::vmpool {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using DirPtr = std::unique_ptr<DIR, CloseDir>;

std::optional<pid_t> parse_pid(const char* text) {
  pid_t pid = 0;
  const char* end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, pid);
  if (error != std::errc() || rest != end || pid <= 0) return std::nullopt;
  return pid;
}

// The whole of a small file under /proc; empty when it is not there (any more).
std::string_view read_small(const char* path, std::array<char, 1'024>& buffer) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const ssize_t size = ::read(fd, buffer.data(), buffer.size());
  ::close(fd);
  return size > 0 ? std::string_view(buffer.data(), static_cast<std::size_t>(size)) : std::string_view();
}

// Fields of /proc/<pid>/stat after the command's name (proc(5)); the name may hold anything, so the last ')' counts.
std::optional<ProcessInfo> parse_stat(pid_t pid, std::string_view text) {
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= text.size()) return std::nullopt;
  ProcessInfo out;
  out.pid = pid;
  const std::string rest(text.substr(name_end + 2));
  long parent = 0;
  unsigned long long user = 0;
  unsigned long long system = 0;
  unsigned long long start = 0;
  // state ppid, pgrp session tty tpgid flags, four fault counts, utime stime, cutime cstime priority nice
  // threads itrealvalue, starttime
  const int found =
      std::sscanf(rest.c_str(), "%c %ld %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu",
                  &out.state, &parent, &user, &system, &start);
  if (found != 5) return std::nullopt;
  out.parent = static_cast<pid_t>(parent);
  out.cpu_ticks = user + system;
  out.start_ticks = start;
  return out;
}

// Rounds of waiting for everything to stop before it is killed anyway.
constexpr int kStopRoundsMax = 50;

bool dead_state(char state) { return state == 'Z' || state == 'X' || state == 'x'; }

// States of all threads; empty when the process is not there.
std::string thread_states(pid_t pid) {
  std::string out;
  const std::string path = "/proc/" + std::to_string(pid) + "/task";
  const DirPtr dir(::opendir(path.c_str()));
  if (!dir) return out;
  std::array<char, 1'024> buffer;
  while (const dirent* entry = ::readdir(dir.get())) {
    const auto thread = parse_pid(entry->d_name);
    if (!thread) continue;
    const std::string stat = path + "/" + std::to_string(*thread) + "/stat";
    if (const auto info = parse_stat(*thread, read_small(stat.c_str(), buffer))) out.push_back(info->state);
  }
  return out;
}

}  // namespace

std::optional<ProcessInfo> read_process(pid_t pid) {
  std::array<char, 1'024> buffer;
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  return parse_stat(pid, read_small(path.c_str(), buffer));
}

std::vector<pid_t> list_pids() {
  std::vector<pid_t> out;
  const DirPtr dir(::opendir("/proc"));
  if (!dir) return out;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (const auto pid = parse_pid(entry->d_name)) out.push_back(*pid);
  }
  return out;
}

std::vector<ProcessInfo> list_processes() {
  std::vector<ProcessInfo> out;
  for (const pid_t pid : list_pids()) {
    if (const auto info = read_process(pid)) out.push_back(*info);
  }
  return out;
}

std::vector<ProcessInfo> family_of(const std::vector<ProcessInfo>& table, pid_t root) {
  std::vector<pid_t> members = {root};
  // Every pass finds one more generation at least.
  for (std::size_t before = 0; before != members.size();) {
    before = members.size();
    for (const ProcessInfo& process : table) {
      const bool parent_in = std::find(members.begin(), members.end(), process.parent) != members.end();
      const bool in = std::find(members.begin(), members.end(), process.pid) != members.end();
      if (parent_in && !in) members.push_back(process.pid);
    }
  }
  std::vector<ProcessInfo> out;
  for (const ProcessInfo& process : table) {
    const bool in = std::find(members.begin(), members.end(), process.pid) != members.end();
    if (in && !is_gone(process)) out.push_back(process);
  }
  std::sort(out.begin(), out.end(), [](const ProcessInfo& a, const ProcessInfo& b) { return a.pid < b.pid; });
  return out;
}

bool is_gone(const ProcessInfo& process) {
  const auto now = read_process(process.pid);
  if (!now || !now->same_as(process)) return true;
  if (!dead_state(now->state)) return false;
  const std::string states = thread_states(process.pid);
  return std::all_of(states.begin(), states.end(), dead_state);
}

bool is_stopped(const ProcessInfo& process) {
  const std::string states = thread_states(process.pid);
  return std::all_of(states.begin(), states.end(), [](char s) { return s == 'T' || s == 't' || dead_state(s); });
}

bool send_signal(const ProcessInfo& process, int signal) {
  // The descriptor holds on to one process; if that is still the one looked at, the signal cannot miss.
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0));
  if (fd < 0 && errno != ENOSYS) return false;
  const auto now = read_process(process.pid);
  bool sent = now && now->same_as(process);
  if (sent) {
    sent = fd >= 0 ? ::syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0) == 0 : ::kill(process.pid, signal) == 0;
  }
  if (fd >= 0) ::close(fd);
  return sent;
}

bool FamilyKiller::round(const std::vector<ProcessInfo>& family) {
  for (const ProcessInfo& process : family) {
    const auto same = [&](const ProcessInfo& known) { return known.same_as(process); };
    if (std::none_of(doomed_.begin(), doomed_.end(), same)) doomed_.push_back(process);
  }
  std::erase_if(doomed_, is_gone);
  if (doomed_.empty()) return true;
  if (!std::all_of(doomed_.begin(), doomed_.end(), is_stopped) && ++rounds_ < kStopRoundsMax) {
    for (const ProcessInfo& process : doomed_) send_signal(process, SIGSTOP);
    return false;
  }
  rounds_ = 0;
  for (const ProcessInfo& process : doomed_) send_signal(process, SIGKILL);
  return false;
}

}  // namespace zz::vmpool
