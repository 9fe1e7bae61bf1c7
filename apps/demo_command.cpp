// zz demo: a tour of a whole cluster around an unmodified web server, with three faults.

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>

#include "apps/commands.hpp"
#include "apps/demo_teller.hpp"
#include "apps/demo_tour.hpp"
#include "apps/local_cluster.hpp"
#include "apps/stop_signals.hpp"
#include "apps/supervisor.hpp"
#include "apps/webdav_client.hpp"
#include "execution/webdav_sample.hpp"

namespace zz::apps {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kRequestsMin = 100;
constexpr std::uint64_t kRequestsMax = 100'000;
constexpr std::uint64_t kFaults = 3;

struct DemoFlags {
  bool as_json = false;
  bool keep = false;
  std::uint64_t requests = 3'000;
  std::string dir;
};

// The demo's directory; removed at the end unless it is to be kept.
class DemoDirectory {
 public:
  static Result<DemoDirectory> make(const DemoFlags& flags) {
    std::error_code error;
    if (flags.dir.empty()) {
      std::string name = (fs::temp_directory_path(error) / "zz-demo-XXXXXX").string();
      if (error || ::mkdtemp(name.data()) == nullptr) return Error{name + ": cannot make a temporary directory"};
      return DemoDirectory(name, flags.keep);
    }
    const std::string name = fs::absolute(flags.dir, error).string();
    if (fs::exists(name, error) && (!fs::is_directory(name, error) || !fs::is_empty(name, error))) {
      return Error{flags.dir + ": exists and is not an empty directory"};
    }
    fs::create_directories(name, error);
    if (error) return Error{fmt::format("{}: cannot make directory: {}", flags.dir, error.message())};
    return DemoDirectory(name, true);
  }
  DemoDirectory(DemoDirectory&& other) noexcept
      : path_(std::move(other.path_)), keep_(std::exchange(other.keep_, true)) {}
  DemoDirectory& operator=(DemoDirectory&&) = delete;
  ~DemoDirectory() {
    std::error_code ignored;
    if (!keep_) fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] bool keeps() const { return keep_; }

 private:
  DemoDirectory(std::string path, bool keep) : path_(std::move(path)), keep_(keep) {}
  std::string path_;
  bool keep_;
};

Result<crypto::ClusterFile> make_cluster(const std::string& root) {
  auto sample = execution::make_webdav_sample(root + "/webdav");
  if (!sample) return Error{sample.error()};
  LocalClusterOptions options;
  options.dir = root + "/cluster";
  options.name = "demo";
  options.service_name = "webdav";
  options.adapter = "http";
  options.command = sample->command;
  options.initial_state = sample->initial_state;
  options.http = sample->http;
  options.allow_faults = true;
  return make_local_cluster(options);
}

void show_summary(DemoTeller& teller, const DemoSummary& s) {
  teller.headline("Summary");
  teller.table({{"requests", std::to_string(s.users.requests)},
                {"correct replies", std::to_string(s.users.accepted)},
                {"wrong replies", std::to_string(s.users.wrong)},
                {"divergences noticed", std::to_string(s.divergences)},
                {"replicas woken", std::to_string(s.wakes)},
                {"replicas evicted and made anew", std::to_string(s.evictions)},
                {"longest from notice to correct reply",
                 fmt::format("{:.1f} ms", static_cast<double>(s.first_correct_us) / 1e3)},
                {"replicas active now", std::to_string(s.active_after)},
                {"replicas asleep now", std::to_string(s.asleep_after)},
                {"whole demo", fmt::format("{:.1f} s", teller.seconds())}});
}

// What the demo promises; nothing, or the first promise that was not kept.
Result<void> judge(const DemoSummary& s, const crypto::ServiceEntry& service) {
  if (s.users.wrong > 0) return Error{fmt::format("{} replies were wrong", s.users.wrong)};
  if (s.users.accepted != s.users.requests) {
    return Error{fmt::format("{} requests were not answered", s.users.requests - s.users.accepted)};
  }
  if (s.wakes < kFaults) return Error{fmt::format("only {} of {} faults led to a wake-up", s.wakes, kFaults)};
  if (s.evictions < kFaults)
    return Error{fmt::format("only {} of {} faulty replicas were evicted", s.evictions, kFaults)};
  if (s.active_after != service.g + 1 || s.asleep_after != service.g) {
    return Error{fmt::format("{} replicas are active and {} asleep at the end", s.active_after, s.asleep_after)};
  }
  return {};
}

Result<void> tour(const DemoFlags& flags, const std::string& root, StopSignals& signals, DemoTeller& teller,
                  DemoSummary& summary) {
  auto cluster = make_cluster(root);
  if (!cluster) return Error{cluster.error()};
  const crypto::ServiceEntry& service = cluster->services.front();
  teller.headline("zz demo: an unmodified nginx with WebDAV, replicated so that lies, freezes and crashes do no harm");
  teller.step(
      fmt::format("a cluster of {} agreement nodes (f = {}) and {} replicas (g = {}: {} work, {} asleep) is made",
                  cluster->nodes.size(), cluster->f, service.slots.size(), service.g, service.g + 1, service.g));
  teller.detail(fmt::format("in {}; all on this machine, so that its hosts are only processes", root));
  LocalRunOptions options;
  options.dir = root + "/cluster";
  options.cancelled = [&signals] { return signals.requested(); };
  options.progress = [&teller](std::string_view line) { teller.progress(line); };
  auto run = LocalRun::start(std::move(options));
  if (!run) return Error{run.error()};
  teller.step(fmt::format("it serves: plain HTTP on http://{}/", crypto::to_string(service.gateway)));
  DemoTourOptions tour_options;
  tour_options.dir = root + "/cluster";
  tour_options.requests = flags.requests;
  tour_options.cancelled = [&signals] { return signals.requested(); };
  Result<void> seen;
  {
    DemoTour demo(std::move(tour_options), **run, teller);
    seen = demo.go();
    summary = demo.summary();
    demo.halt();
    teller.progress("stopping");
    (*run)->stop();  // before the users are waited for: one may still hope for a reply
  }
  if (!seen) return seen;
  teller.step("everything is stopped, no process is left");
  return judge(summary, service);
}

Result<void> run_demo(const DemoFlags& flags) {
  StopSignals signals;
  if (auto ready = crypto::init(); !ready) return ready;
  if (!init_webdav_clients()) return Error{"libcurl cannot be initialised"};
  auto directory = DemoDirectory::make(flags);
  if (!directory) return Error{directory.error()};
  DemoSummary summary;
  summary.service = "webdav";
  Result<void> done;
  {
    DemoTeller teller(stdout, ::isatty(STDOUT_FILENO) == 1);
    done = tour(flags, directory->path(), signals, teller, summary);
    if (summary.users.requests > 0) show_summary(teller, summary);
    if (directory->keeps()) teller.line(fmt::format("\nkept: {}", directory->path()));
  }
  if (flags.as_json) std::cout << render_json(summary) << std::endl;
  return done;
}

}  // namespace

void add_demo(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<DemoFlags>();
  CLI::App* command = app.add_subcommand("demo", "shows a web server surviving a lie, a freeze and a crash");
  command->add_flag("--json", flags->as_json, "end with one line of JSON");
  command->add_option("--requests", flags->requests, "requests to make, at least")
      ->check(CLI::Range(kRequestsMin, kRequestsMax))
      ->capture_default_str();
  command->add_flag("--keep", flags->keep, "keep the cluster's directory, with its logs");
  command->add_option("--dir", flags->dir, "a new directory for the cluster, kept afterwards");
  command->callback([flags, &exit_code] {
    const Result<void> done = run_demo(*flags);
    exit_code = done ? 0 : 1;
    if (!done) std::cerr << "zz demo: " << done.error() << '\n';
  });
}

}  // namespace zz::apps
