#include "apps/orphans.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

namespace zz::apps {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(5);
constexpr auto kKillTime = std::chrono::seconds(5);

struct Family {
  pid_t parent = 0;
  pid_t group = 0;
};

Family family_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return {};
  std::istringstream rest(text.substr(name_end + 1));
  std::string state;
  Family family;
  rest >> state >> family.parent >> family.group;
  return family;
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename().string();
    pid_t pid = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad != std::errc{} || end != name.data() + name.size()) continue;
    if (family_of(pid).parent == parent) out.push_back(pid);
  }
  return out;
}

}  // namespace

Orphans::Orphans() {
  const std::vector<pid_t> children = children_of(::getpid());
  before_.insert(children.begin(), children.end());
  ::prctl(PR_GET_CHILD_SUBREAPER, &was_adopting_);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
}

Orphans::~Orphans() { ::prctl(PR_SET_CHILD_SUBREAPER, was_adopting_); }

std::vector<pid_t> Orphans::adopted() const {
  std::vector<pid_t> out;
  for (const pid_t pid : children_of(::getpid())) {
    if (!before_.contains(pid) && family_of(pid).group != ::getpgrp()) out.push_back(pid);
  }
  return out;
}

void Orphans::clear(std::chrono::steady_clock::time_point deadline) {
  for (std::vector<pid_t> left = adopted(); !left.empty(); left = adopted()) {
    const auto now = std::chrono::steady_clock::now();
    for (const pid_t pid : left) {
      if (now >= deadline) ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, WNOHANG);
    }
    if (now >= deadline + kKillTime) return;
    std::this_thread::sleep_for(kLookEvery);
  }
}

}  // namespace zz::apps
