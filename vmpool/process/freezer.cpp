#include "vmpool/process/freezer.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "vmpool/process/process_table.hpp"

namespace zz::vmpool {
namespace {

namespace fs = std::filesystem;

// Rounds of waiting for everything to stop before it is killed anyway.
constexpr int kStopRoundsMax = 50;
// Rounds in which the killed may end before the rest is stopped again.
constexpr int kDyingRounds = 10;

Error failed(const std::string& path, std::string_view doing, int code) {
  return Error{path + ": cannot " + std::string(doing) + ": " + std::strerror(code)};
}

// Control files take one write, and report by its result.
Result<void> write_control(const std::string& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return failed(path, "open", errno);
  const ssize_t written = ::write(fd, text.data(), text.size());
  const int code = errno;
  ::close(fd);
  if (written < 0) return failed(path, "write", code);
  return {};
}

std::string read_text(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// Directories below `root` and itself, deepest last. A guest with rights may have made groups of its own.
std::vector<std::string> tree_of(const std::string& root) {
  std::vector<std::string> out = {root};
  std::error_code ignored;
  for (fs::recursive_directory_iterator it(root, ignored), end; it != end; it.increment(ignored)) {
    if (it->is_directory(ignored)) out.push_back(it->path().string());
  }
  return out;
}

std::vector<pid_t> group_processes(const std::string& root) {
  std::vector<pid_t> out;
  for (const std::string& directory : tree_of(root)) {
    std::ifstream in(directory + "/cgroup.procs");
    for (pid_t pid = 0; in >> pid;) out.push_back(pid);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<void> remove_group(const std::string& root) {
  std::vector<std::string> tree = tree_of(root);
  std::reverse(tree.begin(), tree.end());
  for (const std::string& directory : tree) {
    if (::rmdir(directory.c_str()) != 0 && errno != ENOENT) return failed(directory, "remove", errno);
  }
  return {};
}

void kill_group(const std::string& root) {
  for (const pid_t pid : group_processes(root)) {
    if (const auto process = read_process(pid)) send_signal(*process, SIGKILL);
  }
}

class CgroupV2 final : public Freezer {
 public:
  explicit CgroupV2(std::string directory) : directory_(std::move(directory)) {}
  [[nodiscard]] std::string join_path() const override { return directory_ + "/cgroup.procs"; }
  void set_first(pid_t) override {}
  Result<void> freeze() override { return write_control(directory_ + "/cgroup.freeze", "1"); }
  [[nodiscard]] bool frozen() override { return has_event("frozen 1"); }
  Result<void> thaw() override { return write_control(directory_ + "/cgroup.freeze", "0"); }
  [[nodiscard]] bool kill_round() override {
    if (!has_event("populated 1")) return true;
    // Linux 5.14 kills a group at once, also frozen. Before that: stop it, so that it cannot fork, then kill.
    if (write_control(directory_ + "/cgroup.kill", "1")) {
      // That misses a process whose first thread has ended (seen on Linux 6.18); a signal to the process does not.
      kill_group(directory_);
      return false;
    }
    if (!frozen() && ++rounds_ < kStopRoundsMax) {
      (void)freeze();
    } else {
      rounds_ = 0;
      kill_group(directory_);
    }
    return false;
  }
  Result<void> remove() override { return remove_group(directory_); }
  [[nodiscard]] std::vector<pid_t> processes() const override { return group_processes(directory_); }

 private:
  [[nodiscard]] bool has_event(std::string_view line) const {
    return read_text(directory_ + "/cgroup.events").find(line) != std::string::npos;
  }
  std::string directory_;
  int rounds_ = 0;
};

class CgroupV1 final : public Freezer {
 public:
  explicit CgroupV1(std::string directory) : directory_(std::move(directory)) {}
  [[nodiscard]] std::string join_path() const override { return directory_ + "/cgroup.procs"; }
  void set_first(pid_t) override {}
  Result<void> freeze() override { return write_control(state_file(), "FROZEN"); }
  [[nodiscard]] bool frozen() override {
    const std::string state = read_text(state_file());
    if (state.rfind("FROZEN", 0) == 0) return true;
    // The kernel may miss a task that was between two states; writing again looks at all of them again.
    if (state.rfind("FREEZING", 0) == 0) (void)freeze();
    return false;
  }
  Result<void> thaw() override { return write_control(state_file(), "THAWED"); }
  [[nodiscard]] bool kill_round() override {
    if (group_processes(directory_).empty()) return true;
    // Those that were killed need a moment to die; freezing them again would only keep them from it.
    if (dying_rounds_ > 0) {
      --dying_rounds_;
      return false;
    }
    if (!frozen() && ++rounds_ < kStopRoundsMax) {
      (void)freeze();
      return false;
    }
    // A frozen task takes no signal before it thaws, and then dies of this one first.
    rounds_ = 0;
    dying_rounds_ = kDyingRounds;
    kill_group(directory_);
    for (const std::string& nested : tree_of(directory_)) {
      (void)write_control(nested + "/freezer.state", "THAWED");
    }
    return false;
  }
  Result<void> remove() override { return remove_group(directory_); }
  [[nodiscard]] std::vector<pid_t> processes() const override { return group_processes(directory_); }

 private:
  [[nodiscard]] std::string state_file() const { return directory_ + "/freezer.state"; }
  std::string directory_;
  int rounds_ = 0;
  int dying_rounds_ = 0;
};

class Signals final : public Freezer {
 public:
  [[nodiscard]] std::string join_path() const override { return {}; }
  void set_first(pid_t pid) override { first_ = read_process(pid); }
  Result<void> freeze() override {
    for (const ProcessInfo& process : family()) send_signal(process, SIGSTOP);
    return {};
  }
  [[nodiscard]] bool frozen() override {
    bool all = true;
    for (const ProcessInfo& process : family()) {
      if (is_stopped(process)) continue;
      all = false;
      send_signal(process, SIGSTOP);  // forked since, or resumed by its parent
    }
    return all;
  }
  Result<void> thaw() override {
    for (const ProcessInfo& process : family()) send_signal(process, SIGCONT);
    return {};
  }
  [[nodiscard]] bool kill_round() override { return killer_.round(family()); }
  Result<void> remove() override { return {}; }
  [[nodiscard]] std::vector<pid_t> processes() const override {
    std::vector<pid_t> out;
    for (const ProcessInfo& process : family()) out.push_back(process.pid);
    return out;
  }

 private:
  [[nodiscard]] std::vector<ProcessInfo> family() const {
    if (!first_ || is_gone(*first_)) return {};
    return family_of(list_processes(), first_->pid);
  }
  std::optional<ProcessInfo> first_;
  FamilyKiller killer_;
};

std::unique_ptr<Freezer> attach(FreezerKind kind, const std::string& directory) {
  switch (kind) {
    case FreezerKind::kCgroupV2:
      return std::make_unique<CgroupV2>(directory);
    case FreezerKind::kCgroupV1:
      return std::make_unique<CgroupV1>(directory);
    case FreezerKind::kSignals:
      break;
  }
  return std::make_unique<Signals>();
}

// ---- finding a home ----------------------------------------------------------------------------------------------

// Where the hierarchy of that kind is mounted; empty when it is not.
std::string mount_of(FreezerKind kind) {
  std::ifstream in("/proc/self/mounts");
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string device, where, type, options;
    fields >> device >> where >> type >> options;
    if (kind == FreezerKind::kCgroupV2 && type == "cgroup2") return where;
    const std::string padded = "," + options + ",";
    if (kind == FreezerKind::kCgroupV1 && type == "cgroup" && padded.find(",freezer,") != std::string::npos)
      return where;
  }
  return {};
}

// This process's own group in that hierarchy, relative to its mount ("/" for the root).
std::string own_group(FreezerKind kind) {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool ours =
        kind == FreezerKind::kCgroupV2 ? line.rfind("0::", 0) == 0 : controllers.find(",freezer,") != std::string::npos;
    if (ours) return line.substr(second + 1);
  }
  return "/";
}

bool process_can_join(const Freezer& freezer) {
  const std::string path = freezer.join_path();
  const pid_t child = ::fork();
  if (child < 0) return false;
  if (child == 0) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    ::_exit(fd >= 0 && ::write(fd, "0", 1) == 1 ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Result<void> try_home(const FreezerHome& home) {
  if (::mkdir(home.directory.c_str(), 0755) != 0 && errno != EEXIST)
    return failed(home.directory, "make the control group", errno);
  auto probe = Freezer::make(home, "probe");
  if (!probe) return Error{probe.error()};
  Result<void> works = (*probe)->freeze();
  if (works) works = (*probe)->thaw();
  if (works && !process_can_join(**probe)) works = Error{home.directory + ": processes cannot join"};
  if (!works) {
    (void)clear_freezer(home, 1'000);
    return works;
  }
  return (*probe)->remove();
}

Result<FreezerHome> find_home(FreezerKind kind, std::string_view name) {
  const std::string mount = mount_of(kind);
  if (mount.empty()) return Error{std::string(to_string(kind)) + " is not mounted"};
  // Inside a container the path of our own group may not exist below the mount: then the mount is our root.
  std::string parent = mount + own_group(kind);
  if (!fs::is_directory(parent)) parent = mount;
  if (parent.back() == '/') parent.pop_back();
  FreezerHome home{kind, parent + "/" + std::string(name)};
  // What a host daemon left behind that was killed together with its warden.
  if (fs::is_directory(home.directory)) {
    if (auto cleared = clear_freezer(home, 5'000); !cleared) return Error{cleared.error()};
  }
  if (auto works = try_home(home); !works) return Error{works.error()};
  return home;
}

}  // namespace

std::string_view to_string(FreezerKind kind) {
  switch (kind) {
    case FreezerKind::kCgroupV2:
      return "cgroup-v2";
    case FreezerKind::kCgroupV1:
      return "cgroup-v1";
    case FreezerKind::kSignals:
      return "signals";
  }
  return "unknown";
}

Result<FreezerHome> open_freezer(std::string_view name, std::optional<FreezerKind> wanted) {
  if (wanted == FreezerKind::kSignals) return FreezerHome{};
  if (wanted) return find_home(*wanted, name);
  for (const FreezerKind kind : {FreezerKind::kCgroupV2, FreezerKind::kCgroupV1}) {
    if (auto home = find_home(kind, name)) return home;
  }
  return FreezerHome{};
}

Result<void> clear_freezer(const FreezerHome& home, int timeout_ms) {
  if (home.directory.empty()) return {};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  const std::unique_ptr<Freezer> all = attach(home.kind, home.directory);
  for (;;) {
    // Killing and removing both cover nested groups.
    if (all->kill_round() && all->remove()) return {};
    if (std::chrono::steady_clock::now() >= deadline)
      return Error{home.directory + ": processes or groups of former guests are still there"};
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

Result<std::unique_ptr<Freezer>> Freezer::make(const FreezerHome& home, std::string_view guest) {
  const std::string directory = home.directory + "/" + std::string(guest);
  if (home.kind != FreezerKind::kSignals && ::mkdir(directory.c_str(), 0755) != 0)
    return failed(directory, "make the control group", errno);
  return attach(home.kind, directory);
}

}  // namespace zz::vmpool
