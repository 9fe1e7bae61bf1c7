#include "tests/sim/run.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "tests/sim/plan.hpp"
#include "tests/sim/sometimes.hpp"

namespace zz::sim {

namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr auto kSeedMax = std::chrono::seconds(120);  // of real time: then it hangs
constexpr auto kProgressEvery = std::chrono::seconds(2);

volatile std::sig_atomic_t stop_wanted = 0;
void on_stop(int) { stop_wanted = 1; }

struct Job {
  std::uint64_t seed = 0;
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  std::uint32_t requests = 300;
};

// ---- what is to be run -----------------------------------------------------------------------------------------

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return out;
}

struct Jobs {
  std::vector<Job> listed;  // or a range:
  Job first;
  std::uint64_t count = 0;

  [[nodiscard]] std::uint64_t size() const { return listed.empty() ? count : listed.size(); }
  [[nodiscard]] Job at(std::uint64_t i) const {
    if (!listed.empty()) return listed[i];
    Job out = first;
    out.seed += i;
    return out;
  }
};

Result<Jobs> jobs_of_file(const std::string& path) {
  std::ifstream in(path);
  if (!in) return Error{path + ": cannot read it"};
  Jobs out;
  std::string line;
  for (int at = 1; std::getline(in, line); ++at) {
    std::istringstream words(line.substr(0, line.find('#')));
    Job job;
    if (!(words >> job.seed)) {
      if (line.find_first_not_of(" \t") == line.find('#')) continue;
      return Error{path + ":" + std::to_string(at) + ": expected: seed f g requests  # why"};
    }
    std::string more;
    if (!(words >> job.f >> job.g >> job.requests) || words >> more || job.f < 1 || job.f > 5 || job.g < 1 ||
        job.g > 5) {
      return Error{path + ":" + std::to_string(at) + ": expected: seed f g requests  # why"};
    }
    out.listed.push_back(job);
  }
  return out;
}

Result<Jobs> jobs_of(const SimOptions& options) {
  if (!options.file.empty()) return jobs_of_file(options.file);
  const std::string_view text = options.seeds;
  const std::size_t dots = text.find("..");
  const auto from = number(text.substr(0, dots));
  const auto to = dots == std::string_view::npos ? from : number(text.substr(dots + 2));
  if (!from || !to || *to < *from) return Error{"--seeds wants A..B with A <= B, or one number: " + options.seeds};
  Jobs out;
  out.first = {*from, options.f, options.g, options.requests};
  out.count = *to - *from + 1;
  return out;
}

Plan plan_of(const Job& job) {
  Plan plan;
  plan.seed = job.seed;
  plan.f = job.f;
  plan.g = job.g;
  plan.requests = job.requests;
  return plan;
}

// ---- what came of it -------------------------------------------------------------------------------------------

json to_json(const RunResult& result) {
  return {{"violation", result.violation.value_or("")},
          {"submitted", result.submitted},
          {"virtual", result.virtual_time.value},
          {"outage", result.outage.value},
          {"events", result.events},
          {"hash", result.trace_hash},
          {"counters", result.counters}};
}

struct Failure {
  Job job;
  std::string what;
};

struct Totals {
  std::uint64_t seeds = 0;
  std::uint64_t requests = 0;
  std::uint64_t events = 0;
  std::uint64_t virtual_us = 0;
  std::uint64_t worst_outage_us = 0;
  std::uint64_t hash = 0;
  Counters counters;
  std::vector<Failure> failures;

  void add(const Job& job, const json& result) {
    ++seeds;
    requests += result.at("submitted").get<std::uint64_t>();
    events += result.at("events").get<std::uint64_t>();
    virtual_us += result.at("virtual").get<std::uint64_t>();
    worst_outage_us = std::max(worst_outage_us, result.at("outage").get<std::uint64_t>());
    // A sum: the order in which workers finish does not matter.
    hash += (result.at("hash").get<std::uint64_t>() ^ job.seed) * 0x9e3779b97f4a7c15ULL;
    for (const auto& [name, value] : result.at("counters").items()) count(counters, name, value.get<std::uint64_t>());
    const auto violation = result.at("violation").get<std::string>();
    if (!violation.empty()) failures.push_back({job, violation});
  }
  void add_dead(const Job& job, const std::string& how) {
    ++seeds;
    failures.push_back({job, how});
  }
};

std::string replay(const SimOptions& options, const Job& job) {
  const std::string seed = std::to_string(job.seed);
  return options.program + " --seeds " + seed + ".." + seed + " --f " + std::to_string(job.f) + " --g " +
         std::to_string(job.g) + " --requests " + std::to_string(job.requests) + " --trace";
}

std::string hex(std::uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4) out[i] = kDigits[value & 15];
  return out;
}

void report(const SimOptions& options, const Totals& totals, const std::vector<std::string>& missing, double seconds) {
  json faults = json::object();
  json sometimes = json::object();
  for (const auto& [name, value] : totals.counters) {
    if (name.starts_with("fault.")) {
      faults[name.substr(6)] = value;
    } else {
      sometimes[name] = value;
    }
  }
  json failures = json::array();
  for (const Failure& failure : totals.failures) {
    failures.push_back({{"seed", failure.job.seed},
                        {"f", failure.job.f},
                        {"g", failure.job.g},
                        {"requests", failure.job.requests},
                        {"violation", failure.what},
                        {"replay", replay(options, failure.job)}});
  }
  if (options.json) {
    std::cout << json{{"seeds", totals.seeds},
                      {"failures", std::move(failures)},
                      {"requests", totals.requests},
                      {"virtual_seconds", totals.virtual_us / 1'000'000},
                      {"events", totals.events},
                      {"worst_outage_ms", totals.worst_outage_us / 1'000},
                      {"faults", std::move(faults)},
                      {"sometimes", std::move(sometimes)},
                      {"never", missing},
                      {"trace_hash", hex(totals.hash)},
                      {"seconds", seconds}}
                     .dump()
              << '\n';
    return;
  }
  for (const Failure& failure : totals.failures) {
    std::cout << "seed " << failure.job.seed << ": " << failure.what << "\n  replay: " << replay(options, failure.job)
              << '\n';
  }
  for (const std::string& name : missing) std::cout << "never happened: " << name << '\n';
  std::cout << totals.seeds << " seeds, " << totals.failures.size() << " failures, " << totals.requests << " requests, "
            << totals.virtual_us / 1'000'000 << " virtual seconds in " << seconds << " s, trace " << hex(totals.hash)
            << '\n';
}

// ---- workers ---------------------------------------------------------------------------------------------------

bool read_all(int fd, void* to, std::size_t size) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    const ssize_t got = ::read(fd, at, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool write_all(int fd, const void* from, std::size_t size) {
  const auto* at = static_cast<const char*>(from);
  while (size > 0) {
    const ssize_t put = ::write(fd, at, size);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    at += put;
    size -= static_cast<std::size_t>(put);
  }
  return true;
}

[[noreturn]] void work(int in, int out) {
  Job job;
  while (read_all(in, &job, sizeof job)) {
    const std::string text = to_json(run(plan_of(job))).dump();
    const std::uint64_t size = text.size();
    if (!write_all(out, &size, sizeof size) || !write_all(out, text.data(), text.size())) break;
  }
  std::exit(0);
}

struct Worker {
  pid_t pid = -1;
  int to = -1;
  int from = -1;
  std::optional<Job> job;
  Clock::time_point since;
};

class Pool {
 public:
  Pool(const SimOptions& options, const Jobs& jobs) : options_(options), jobs_(jobs) {
    workers_.resize(std::min<std::uint64_t>(std::max(options.jobs, 1u), jobs.size()));
    progress_ = ::isatty(STDERR_FILENO) != 0;
  }

  Totals run() {
    for (Worker& worker : workers_) {
      hire(worker);
      give(worker);
    }
    while (busy() > 0 && stop_wanted == 0) step();
    for (Worker& worker : workers_) dismiss(worker, worker.job.has_value());
    if (progress_) std::cerr << '\n';
    std::sort(totals_.failures.begin(), totals_.failures.end(),
              [](const Failure& a, const Failure& b) { return a.job.seed < b.job.seed; });
    return std::move(totals_);
  }

 private:
  [[nodiscard]] std::size_t busy() const {
    return static_cast<std::size_t>(
        std::count_if(workers_.begin(), workers_.end(), [](const Worker& worker) { return worker.job.has_value(); }));
  }

  void hire(Worker& worker) {
    int down[2];
    int up[2];
    if (::pipe2(down, O_CLOEXEC) != 0 || ::pipe2(up, O_CLOEXEC) != 0) throw std::runtime_error("cannot make a pipe");
    std::cout.flush();
    worker.pid = ::fork();
    if (worker.pid < 0) throw std::runtime_error("cannot make a process");
    if (worker.pid == 0) {
      ::signal(SIGINT, SIG_IGN);  // the parent decides
      ::signal(SIGTERM, SIG_DFL);
      for (const Worker& other : workers_) {
        if (other.to >= 0) ::close(other.to);
        if (other.from >= 0) ::close(other.from);
      }
      ::close(down[1]);
      ::close(up[0]);
      work(down[0], up[1]);
    }
    ::close(down[0]);
    ::close(up[1]);
    worker.to = down[1];
    worker.from = up[0];
  }

  // How it ended.
  int dismiss(Worker& worker, bool by_force) {
    if (worker.pid < 0) return 0;
    ::close(worker.to);
    ::close(worker.from);
    if (by_force) ::kill(worker.pid, SIGKILL);
    int status = 0;
    while (::waitpid(worker.pid, &status, 0) < 0 && errno == EINTR) {
    }
    worker = Worker{};
    return status;
  }

  void give(Worker& worker) {
    const bool enough = options_.first_failure && !totals_.failures.empty();
    if (next_ >= jobs_.size() || enough || stop_wanted != 0) return;
    const Job job = jobs_.at(next_++);
    worker.job = job;
    worker.since = Clock::now();
    static_cast<void>(write_all(worker.to, &job, sizeof job));  // a dead worker shows at the other pipe
  }

  // Its run is over without a result: `how`, or the way it died.
  void replace(Worker& worker, std::string how) {
    const Job job = *worker.job;
    const int status = dismiss(worker, true);
    if (how.empty()) {
      how = WIFSIGNALED(status) ? "the program stopped by signal " + std::to_string(WTERMSIG(status))
                                : "the program ended with status " + std::to_string(WEXITSTATUS(status));
    }
    totals_.add_dead(job, how);
    hire(worker);
    give(worker);
  }

  void take(Worker& worker) {
    std::uint64_t size = 0;
    if (!read_all(worker.from, &size, sizeof size)) return replace(worker, "");
    std::string text(size, '\0');
    if (!read_all(worker.from, text.data(), size)) return replace(worker, "");
    totals_.add(*worker.job, json::parse(text));
    worker.job.reset();
    give(worker);
  }

  void step() {
    std::vector<pollfd> wanted;
    std::vector<Worker*> owners;
    for (Worker& worker : workers_) {
      if (!worker.job) continue;
      wanted.push_back({worker.from, POLLIN, 0});
      owners.push_back(&worker);
    }
    ::poll(wanted.data(), wanted.size(), 500);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i].revents != 0) take(*owners[i]);
    }
    const auto now = Clock::now();
    for (Worker& worker : workers_) {
      if (worker.job && now - worker.since > kSeedMax) replace(worker, "L6 the run does not end");
    }
    if (progress_ && now - said_ >= kProgressEvery) {
      said_ = now;
      std::cerr << '\r' << totals_.seeds << " of " << jobs_.size() << " seeds, " << totals_.failures.size()
                << " failures" << std::flush;
    }
  }

  const SimOptions& options_;
  const Jobs& jobs_;
  std::vector<Worker> workers_;
  std::uint64_t next_ = 0;
  Totals totals_;
  bool progress_ = false;
  Clock::time_point said_ = Clock::now();
};

}  // namespace

void add_sim_options(CLI::App& command, SimOptions& options) {
  command.add_option("--seeds", options.seeds, "which runs: A..B, or one number")->capture_default_str();
  command.add_option("--seeds-file", options.file, "runs of a file instead: lines of \"seed f g requests  # why\"");
  command.add_option("--f", options.f, "agreement nodes that may be faulty")
      ->check(CLI::Range(1u, 5u))
      ->capture_default_str();
  command.add_option("--g", options.g, "execution slots that may be faulty")
      ->check(CLI::Range(1u, 5u))
      ->capture_default_str();
  command.add_option("--requests", options.requests, "requests per run")
      ->check(CLI::Range(1u, 1'000'000u))
      ->capture_default_str();
  command.add_option("--jobs", options.jobs, "processes that share the work")
      ->check(CLI::Range(1u, 256u))
      ->capture_default_str();
  command.add_flag("--trace", options.trace, "print every event, one line each (of one run)");
  command.add_flag("--json", options.json, "print the result as one JSON object");
  command.add_flag("--first-failure", options.first_failure, "stop at the first failure");
  command.add_flag("--require-sometimes", options.require_sometimes,
                   "fail when a fault, a message or a recovery that must happen now and then never did");
}

int run_sim(const SimOptions& options) {
  const auto jobs = jobs_of(options);
  if (!jobs) {
    std::cerr << options.program << ": " << jobs.error() << '\n';
    return 2;
  }
  if (options.trace && jobs->size() != 1) {
    std::cerr << options.program << ": --trace is for one run\n";
    return 2;
  }
  const auto began = Clock::now();
  Totals totals;
  if (options.trace) {
    Plan plan = plan_of(jobs->at(0));
    plan.trace = stdout;
    totals.add(jobs->at(0), to_json(run(plan)));
  } else if (jobs->size() > 0) {
    struct sigaction action {};
    action.sa_handler = on_stop;
    struct sigaction before_int {};
    struct sigaction before_term {};
    ::sigaction(SIGINT, &action, &before_int);
    ::sigaction(SIGTERM, &action, &before_term);
    const auto before_pipe = ::signal(SIGPIPE, SIG_IGN);
    totals = Pool(options, *jobs).run();
    ::sigaction(SIGINT, &before_int, nullptr);
    ::sigaction(SIGTERM, &before_term, nullptr);
    ::signal(SIGPIPE, before_pipe);
  }
  std::vector<std::string> missing;
  if (options.require_sometimes) {
    for (const std::string& name : must_happen()) {
      const auto found = totals.counters.find(name);
      if (found == totals.counters.end() || found->second == 0) missing.push_back(name);
    }
  }
  const double seconds =
      static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began).count()) / 1'000;
  report(options, totals, missing, seconds);
  return totals.failures.empty() && missing.empty() ? 0 : 1;
}

}  // namespace zz::sim
