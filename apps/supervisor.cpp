#include "apps/supervisor.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <thread>

#include "apps/child_process.hpp"
#include "apps/demo_status.hpp"
#include "apps/local_cluster.hpp"
#include "apps/orphans.hpp"
#include "apps/status_client.hpp"

namespace zz::apps {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kAskTimeoutMs = 500;
constexpr std::uint32_t kHostAskTimeoutMs = 200;
constexpr auto kHostsEvery = std::chrono::milliseconds(250);
constexpr std::uint64_t kSlotFailuresMax = 3;  // a service that cannot be started so often will not start
constexpr auto kLookEvery = std::chrono::milliseconds(20);

enum class Kind { kGateway, kHost, kNode };  // in the order of stopping

struct Child {
  Kind kind;
  std::uint16_t id = 0;                // of a node or host
  std::vector<std::string> arguments;  // without argv[0] and the directory
  std::unique_ptr<ChildProcess> process;
  bool reported = false;
  Clock::time_point started{};
  unsigned failures = 0;                             // in a row
  std::optional<Clock::time_point> restart_after{};  // nothing: it is not started again by itself
};

// Holds DIR/run/lock as long as it lives.
class DirectoryLock {
 public:
  static Result<DirectoryLock> take(const std::string& dir) {
    const std::string path = dir + "/run/lock";
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return Error{fmt::format("{}: cannot open: {}", path, std::strerror(errno))};
    DirectoryLock lock(fd);
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return lock;
    return Error{fmt::format("{}: this cluster is already running", dir)};
  }
  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
};

bool accepts(const crypto::Address& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found) != 0) return false;
  const int fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool connected = fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) == 0;
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return connected;
}

std::string count(std::size_t number, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", number, number == 1 ? one : many);
}

}  // namespace

struct LocalRun::State {
  State(LocalRunOptions given, crypto::ClusterFile file, DirectoryLock held)
      : options(std::move(given)), cluster(std::move(file)), lock(std::move(held)) {}

  void say(std::string_view line) const {
    if (options.progress) options.progress(line);
  }

  Result<void> launch(Kind kind, const std::string& name, std::vector<std::string> arguments, std::uint16_t id = 0) {
    children.push_back({.kind = kind, .id = id, .arguments = std::move(arguments), .process = nullptr});
    auto started = launch_again(children.back(), name);
    if (!started) children.pop_back();
    return started;
  }

  Result<void> launch_again(Child& child, const std::string& name) {
    std::vector<std::string> arguments = child.arguments;
    arguments.insert(arguments.begin(), "zz");
    arguments.insert(arguments.end(), {"--dir", options.dir});
    Result<ChildProcess> started = ChildProcess::start({.name = name,
                                                        .program = options.program,
                                                        .arguments = std::move(arguments),
                                                        .log = fmt::format("{}/log/{}.log", options.dir, name)});
    if (!started) return Error{started.error()};
    child.process = std::make_unique<ChildProcess>(std::move(started).value());
    child.reported = false;
    child.started = Clock::now();
    child.restart_after.reset();
    return {};
  }

  Result<void> launch_all() {
    say(fmt::format("starting {}", count(cluster.nodes.size(), "agreement node", "agreement nodes")));
    for (const crypto::NodeEntry& node : cluster.nodes) {
      const std::string id = std::to_string(node.id.value);
      if (auto started = launch(Kind::kNode, "node-" + id, {"agreement", "--id", id}, node.id.value); !started)
        return started;
    }
    std::set<HostId> hosts;
    std::size_t slots = 0;
    for (const crypto::ServiceEntry& service : cluster.services) {
      for (const crypto::SlotEntry& slot : service.slots) hosts.insert(slot.host);
      slots += service.slots.size();
    }
    say(fmt::format("starting {} for {}", count(hosts.size(), "host daemon", "host daemons"),
                    count(slots, "slot", "slots")));
    for (const HostId host : hosts) {
      const std::string id = std::to_string(host.value);
      if (auto started = launch(Kind::kHost, "host-" + id, {"host", "--id", id}, host.value); !started) return started;
    }
    for (const crypto::ServiceEntry& service : cluster.services) {
      if (service.gateway.port == 0) continue;
      if (auto started = launch(Kind::kGateway, "gateway-" + service.name, {"gateway", "--service", service.name});
          !started) {
        return started;
      }
    }
    return {};
  }

  // The first process that has ended by itself and was not told of yet, as one line.
  std::optional<std::string> next_death() {
    for (Child& child : children) {
      if (child.reported || child.process->running()) continue;
      child.reported = true;
      const std::string words = child.process->was_killed() ? "" : child.process->last_words();
      std::string line = fmt::format("{} {}{}", child.process->name(), child.process->how_it_ended(),
                                     words.empty() ? "" : ": " + words);
      if (options.restart_nodes && child.kind == Kind::kNode) line += plan_restart(child);
      return line;
    }
    return std::nullopt;
  }

  std::string plan_restart(Child& child) {
    const auto now = Clock::now();
    if (now - child.started >= std::chrono::milliseconds(kRestartMostMs)) child.failures = 0;
    std::uint32_t pause = kRestartLeastMs;
    for (unsigned i = 0; i < child.failures && pause < kRestartMostMs; ++i) pause *= 2;
    pause = std::min(pause, kRestartMostMs);
    ++child.failures;
    child.restart_after = now + std::chrono::milliseconds(pause);
    return fmt::format("; starting it again in {} ms", pause);
  }

  // Starts what is due again; one line each.
  void restart_due(std::vector<std::string>& lines) {
    for (Child& child : children) {
      if (!child.restart_after || Clock::now() < *child.restart_after) continue;
      const std::string name = child.process->name();
      const auto started = launch_again(child, name);
      if (!started) child.restart_after = Clock::now() + std::chrono::milliseconds(kRestartMostMs);
      lines.push_back(started ? name + " is started again" : started.error());
    }
  }

  Child& node(NodeId id) {
    const auto found = std::find_if(children.begin(), children.end(), [id](const Child& child) {
      return child.kind == Kind::kNode && child.id == id.value;
    });
    ZZ_ASSERT(found != children.end());
    return *found;
  }

  // What is still missing, or nothing when the cluster serves.
  [[nodiscard]] std::optional<std::string> missing(const std::vector<nlohmann::json>& answers) const {
    if (answers.size() < cluster.nodes.size()) {
      return fmt::format("{} of {} agreement nodes answer", answers.size(), cluster.nodes.size());
    }
    for (const crypto::ServiceEntry& service : cluster.services) {
      const ClusterStatus status = combine(answers, service.name, cluster.f);
      std::size_t joined = 0;
      std::size_t serving = 0;
      for (const SlotStatus& slot : status.slots) {
        joined += slot.incarnation > 0 ? 1 : 0;
        serving += slot.active && slot.connected ? 1 : 0;
      }
      if (joined < service.slots.size()) {
        return fmt::format("service \"{}\": {} of {} slots are ready", service.name, joined, service.slots.size());
      }
      if (serving < service.g + 1) {
        return fmt::format("service \"{}\": {} of {} active replicas are connected", service.name, serving,
                           service.g + 1);
      }
      if (service.gateway.port != 0 && !accepts(service.gateway)) {
        return fmt::format("the gateway of service \"{}\" does not accept yet", service.name);
      }
    }
    return std::nullopt;
  }

  // What a host daemon says of a slot that could not be started so many times, or nothing.
  [[nodiscard]] std::optional<std::string> failing_slot(std::uint64_t failures_min) const {
    for (const Child& child : children) {
      if (child.kind != Kind::kHost) continue;
      const Result<nlohmann::json> answer =
          query_host_socket(host_socket_path(options.dir, HostId{child.id}), {{"cmd", "status"}}, kHostAskTimeoutMs);
      if (!answer || !answer->contains("slots")) continue;
      for (const nlohmann::json& slot : answer->at("slots")) {
        const auto failures = slot.find("failures");
        const auto error = slot.find("error");
        if (failures != slot.end() && failures->is_number_unsigned() && error != slot.end() && error->is_string() &&
            failures->get<std::uint64_t>() >= failures_min) {
          return error->get<std::string>();
        }
      }
    }
    return std::nullopt;
  }

  Result<void> await_service() {
    boost::asio::io_context loop(1);
    Result<std::unique_ptr<StatusClient>> client = StatusClient::open(loop, options.dir);
    if (!client) return Error{client.error()};
    const auto deadline = Clock::now() + std::chrono::milliseconds(options.start_timeout_ms);
    std::optional<std::string> lacking = "nothing answers yet";
    std::string said;
    bool asked = false;
    auto look_at_hosts = Clock::now() + kHostsEvery;
    while (lacking) {
      if (!asked) {
        asked = true;
        (*client)->ask(kAskTimeoutMs, [&](const StatusClient::Answers& answers) {
          asked = false;
          lacking = missing(answers);
        });
      }
      loop.run_for(kLookEvery);
      loop.restart();
      if (std::optional<std::string> death = next_death()) return Error{std::move(*death)};
      if (options.cancelled && options.cancelled()) return Error{"stopped while it was starting"};
      if (!lacking) break;
      if (Clock::now() >= look_at_hosts) {
        look_at_hosts = Clock::now() + kHostsEvery;
        if (std::optional<std::string> failing = failing_slot(kSlotFailuresMax)) return Error{std::move(*failing)};
      }
      if (Clock::now() >= deadline) {
        const std::optional<std::string> failing = failing_slot(1);
        return Error{fmt::format("not serving after {} s: {}{}", options.start_timeout_ms / 1'000, *lacking,
                                 failing ? ": " + *failing : "")};
      }
      if (*lacking != said) say(said = *lacking);
    }
    return {};
  }

  void stop() {
    for (const Kind kind : {Kind::kGateway, Kind::kHost, Kind::kNode}) {
      const auto deadline = Clock::now() + std::chrono::milliseconds(kStopTimeoutMs);
      for (Child& child : children) {
        if (child.kind == kind) child.process->send_signal(SIGTERM);
      }
      for (Child& child : children) {
        if (child.kind == kind && !child.process->wait_until(deadline)) {
          say(fmt::format("{} does not end, killing it", child.process->name()));
          child.process->send_signal(SIGKILL);
          child.process->wait_until(Clock::time_point::max());
        }
      }
    }
    children.clear();
    orphans.clear(Clock::now() + std::chrono::milliseconds(kStopTimeoutMs));
  }

  LocalRunOptions options;
  crypto::ClusterFile cluster;
  DirectoryLock lock;
  Orphans orphans;
  std::vector<Child> children;
};

LocalRun::LocalRun(std::unique_ptr<State> state) : state_(std::move(state)) {}
LocalRun::~LocalRun() { stop(); }

Result<std::unique_ptr<LocalRun>> LocalRun::start(LocalRunOptions options) {
  if (auto ready = crypto::init(); !ready) return Error{ready.error()};
  if (!holds_cluster(options.dir)) return Error{fmt::format("{}: holds no cluster (zz init makes one)", options.dir)};
  std::error_code error;
  options.dir = std::filesystem::canonical(options.dir, error).string();
  if (error) return Error{fmt::format("{}: {}", options.dir, error.message())};
  Result<crypto::ClusterFile> cluster = crypto::load_cluster(cluster_path(options.dir));
  if (!cluster) return Error{cluster.error()};
  if (!cluster->local) {
    return Error{fmt::format("{}: not a local cluster; start its daemons on their hosts", cluster_path(options.dir))};
  }
  Result<DirectoryLock> lock = DirectoryLock::take(options.dir);
  if (!lock) return Error{lock.error()};
  std::unique_ptr<LocalRun> run(
      new LocalRun(std::make_unique<State>(std::move(options), std::move(cluster).value(), std::move(lock).value())));
  if (auto launched = run->state_->launch_all(); !launched) return Error{launched.error()};
  if (auto serving = run->state_->await_service(); !serving) return Error{serving.error()};
  return run;
}

void LocalRun::stop() { state_->stop(); }

std::vector<LocalRun::Process> LocalRun::pids() {
  std::vector<Process> out;
  for (Child& child : state_->children) {
    out.push_back({child.process->name(), child.process->pid(), child.process->running()});
  }
  return out;
}

std::vector<std::string> LocalRun::poll() {
  std::vector<std::string> out;
  while (std::optional<std::string> death = state_->next_death()) out.push_back(std::move(*death));
  state_->restart_due(out);
  return out;
}

void LocalRun::kill_node(NodeId node) {
  Child& child = state_->node(node);
  child.restart_after.reset();
  if (!child.process->running()) return;
  child.process->send_signal(SIGKILL);
  child.process->wait_until(Clock::time_point::max());
  child.reported = true;
}

Result<void> LocalRun::start_node(NodeId node) {
  Child& child = state_->node(node);
  if (child.process->running()) return {};
  return state_->launch_again(child, child.process->name());
}

const crypto::ClusterFile& LocalRun::cluster() const { return state_->cluster; }

}  // namespace zz::apps
