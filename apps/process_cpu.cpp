#include "apps/process_cpu.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>

namespace zz::apps {
namespace {

namespace fs = std::filesystem;

struct Process {
  pid_t parent = 0;
  std::int64_t ticks = 0;
};

std::vector<pid_t> all_processes() {
  std::vector<pid_t> out;
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    pid_t pid = 0;
    const auto [stop, failed] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (failed == std::errc() && stop == name.data() + name.size()) out.push_back(pid);
  }
  return out;
}

// /proc/PID/stat, see proc(5). The name in parentheses may hold anything, so fields are counted from the last ')'.
std::optional<Process> read_stat(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  std::string skipped;
  Process out;
  fields >> skipped >> out.parent;                 // state, ppid
  for (int i = 5; i < 14; ++i) fields >> skipped;  // pgrp .. cmajflt
  for (int i = 0; i < 4; ++i) {                    // utime, stime, cutime, cstime
    std::int64_t ticks = 0;
    fields >> ticks;
    out.ticks += ticks;
  }
  if (!fields) return std::nullopt;
  return out;
}

std::vector<std::string> read_arguments(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  std::vector<std::string> out;
  for (std::string word; std::getline(file, word, '\0');) out.push_back(std::move(word));
  return out;
}

}  // namespace

Micros cpu_time_of_trees(const std::vector<pid_t>& roots) {
  std::map<pid_t, Process> all;
  std::multimap<pid_t, pid_t> children;
  for (const pid_t pid : all_processes()) {
    const auto process = read_stat(pid);
    if (!process) continue;  // it ended meanwhile
    all.emplace(pid, *process);
    children.emplace(process->parent, pid);
  }
  std::int64_t ticks = 0;
  std::set<pid_t> seen;
  std::vector<pid_t> left = roots;
  while (!left.empty()) {
    const pid_t pid = left.back();
    left.pop_back();
    const auto process = all.find(pid);
    if (process == all.end() || !seen.insert(pid).second) continue;
    ticks += process->second.ticks;
    const auto [begin, end] = children.equal_range(pid);
    std::transform(begin, end, std::back_inserter(left), [](const auto& child) { return child.second; });
  }
  return Micros{ticks * 1'000'000 / sysconf(_SC_CLK_TCK)};
}

std::vector<pid_t> daemons_of_cluster(const std::string& dir) {
  static const std::set<std::string> kRoles = {"agreement", "host", "gateway"};
  std::error_code error;
  const fs::path wanted = fs::canonical(dir, error);
  std::vector<pid_t> out;
  for (const pid_t pid : all_processes()) {
    const std::vector<std::string> words = read_arguments(pid);
    if (words.size() < 4 || !kRoles.contains(words[1])) continue;
    const auto flag = std::find(words.begin(), words.end(), "--dir");
    if (flag == words.end() || std::next(flag) == words.end()) continue;
    const fs::path found = fs::canonical(*std::next(flag), error);
    if (!error && found == wanted) out.push_back(pid);
  }
  return out;
}

}  // namespace zz::apps
