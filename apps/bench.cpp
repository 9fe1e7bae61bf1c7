// zz bench: load on a key-value service, with a latency histogram and the CPU time of everything that took part.

#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "apps/bench_load.hpp"
#include "apps/bench_recovery.hpp"
#include "apps/bench_recovery_webdav.hpp"
#include "apps/bench_run.hpp"
#include "apps/caller.hpp"
#include "apps/commands.hpp"
#include "apps/local_cluster.hpp"
#include "apps/process_cpu.hpp"
#include "apps/supervisor.hpp"
#include "client/client.hpp"

namespace zz::apps {
namespace {

constexpr auto kFirstReplyWithin = std::chrono::seconds(30);
constexpr auto kDrainWithin = std::chrono::seconds(35);  // requests time out before that

struct BenchFlags {
  std::string dir;
  std::string service = "kv";
  std::optional<std::uint32_t> client;
  std::uint32_t outstanding = 100;
  std::size_t payload = 8;
  std::uint32_t seconds = 10;
  std::uint32_t warmup = 2;
  std::uint32_t sessions = 0;  // 0: as many as keep half of each window free
  std::string durability;      // of a cluster made for the run; empty: sync
  bool json = false;
};

struct Report {
  LatencyHistogram latency;
  std::uint64_t errors = 0;
  double seconds = 0;
  double cpu_us_per_op = 0;
  crypto::Durability durability{};
  std::size_t daemons = 0;  // whose CPU is counted, besides this process
};

std::uint32_t session_count(const BenchFlags& flags, const crypto::Limits& limits) {
  if (flags.sessions != 0) return flags.sessions;
  const std::uint32_t half = std::max(limits.client_window / 2, 1u);
  return std::clamp((flags.outstanding + half - 1) / half, 1u, limits.client_sessions_max);
}

// Waits for one agreed reply: then nodes, executors and this client are all in touch.
Result<void> await_first_reply(BenchLoop& loop, client::Client& client, const Caller& caller) {
  std::optional<client::Answer> answer;
  const Refusal refusal = client.submit(caller.service.id, SharedBytes::copy(std::string_view("put a a")),
                                        [&](const client::Answer& given) { answer = given; });
  if (refusal != Refusal::kNone) return Error{fmt::format("not sent: {}", to_string(refusal))};
  if (loop.run_until(BenchLoop::Clock::now() + kFirstReplyWithin, [&] { return answer.has_value(); }) &&
      answer->outcome == client::Outcome::kReply) {
    return {};
  }
  if (loop.interrupted()) return interrupted();
  return Error{
      fmt::format("no first reply ({} of {} agreement nodes reachable)", client.connected_nodes(), caller.cluster.n())};
}

std::string describe(const KvLoad::Interval& interval, double seconds) {
  const LatencyHistogram& latency = interval.latency;
  return fmt::format("{:.0f} ops/s, p50 {} us, p99 {} us, max {} us, {} errors",
                     static_cast<double>(latency.count()) / seconds, latency.percentile(500), latency.percentile(990),
                     latency.max(), interval.errors);
}

// Runs the load for `seconds`, adds what it did to `report`, and prints a line a second.
bool run_phase(BenchLoop& loop, KvLoad& load, std::string_view name, std::uint32_t seconds, Report& report) {
  for (std::uint32_t second = 1; second <= seconds; ++second) {
    const auto start = BenchLoop::Clock::now();
    loop.run_until(start + std::chrono::seconds(1), [] { return false; });
    if (loop.interrupted()) return false;
    const std::chrono::duration<double> taken = BenchLoop::Clock::now() - start;
    const KvLoad::Interval interval = load.take();
    say(fmt::format("{} {:>3} s: {}", name, second, describe(interval, taken.count())));
    report.latency.add(interval.latency);
    report.errors += interval.errors;
    report.seconds += taken.count();
  }
  return true;
}

// Lets the last requests end and reads every key back.
bool finish(BenchLoop& loop, KvLoad& load, Report& report) {
  load.stop();
  if (!loop.run_until(BenchLoop::Clock::now() + kDrainWithin, [&] { return load.idle(); })) return false;
  report.errors += load.take().errors;
  std::optional<std::uint64_t> wrong;
  load.read_back([&](std::uint64_t keys) { wrong = keys; });
  if (!loop.run_until(BenchLoop::Clock::now() + kDrainWithin, [&] { return wrong.has_value(); })) return false;
  report.errors += *wrong;
  return true;
}

Result<Report> measure(BenchLoop& loop, const BenchFlags& flags, const std::string& dir) {
  const auto caller = load_caller(dir, flags.client, flags.service);
  if (!caller) return Error{caller.error()};
  const crypto::Limits& limits = caller->cluster.limits;
  if (caller->service.adapter != "kv") {
    return Error{fmt::format("service \"{}\" has adapter \"{}\"; the load is for \"kv\"", caller->service.name,
                             caller->service.adapter)};
  }
  if (flags.payload > limits.op_bytes_max) {
    return Error{
        fmt::format("--payload {} is over the cluster's op_bytes_max ({})", flags.payload, limits.op_bytes_max)};
  }
  client::ClientOptions options;
  options.sessions = session_count(flags, limits);
  const std::uint64_t most = std::uint64_t{options.sessions} * limits.client_window;
  if (flags.outstanding > most) {
    return Error{fmt::format("--outstanding {} is over what {} sessions of {} requests carry", flags.outstanding,
                             options.sessions, limits.client_window)};
  }
  auto client = client::Client::open(loop.context(), caller->cluster, caller->key, options);
  if (!client) return Error{client.error()};
  if (auto ready = await_first_reply(loop, **client, *caller); !ready) return Error{ready.error()};

  std::vector<pid_t> processes = daemons_of_cluster(dir);
  Report report;
  report.durability = caller->cluster.durability;
  report.daemons = processes.size();
  processes.push_back(::getpid());
  KvLoad load(**client, caller->service.id, {flags.outstanding, flags.payload});
  load.start();
  Report warmup;
  if (!run_phase(loop, load, "warm-up", flags.warmup, warmup)) return interrupted();
  const Micros cpu_before = cpu_time_of_trees(processes);
  static_cast<void>(load.take());
  if (!run_phase(loop, load, "measured", flags.seconds, report)) return interrupted();
  const Micros cpu_after = cpu_time_of_trees(processes);
  const auto operations = static_cast<double>(std::max<std::uint64_t>(report.latency.count(), 1));
  report.cpu_us_per_op = static_cast<double>(cpu_after.value - cpu_before.value) / operations;
  report.errors += warmup.errors;
  if (!finish(loop, load, report)) {
    if (loop.interrupted()) return interrupted();
    return Error{"the last requests did not end"};
  }
  if (!load.first_error().empty()) say("first error: " + load.first_error());
  const client::SessionStats stats = (*client)->stats();
  say(fmt::format("client: {} requests, {} hedges, {} retransmissions, {} BUSY, {} conflicting words", stats.submitted,
                  stats.hedges, stats.retransmits, stats.busy, stats.conflicts));
  return report;
}

void print(const BenchFlags& flags, const Report& report) {
  const LatencyHistogram& latency = report.latency;
  const double rate = static_cast<double>(latency.count()) / report.seconds;
  if (!flags.json) {
    std::cout << fmt::format(
        "{:.0f} ops/s; latency p50 {} us, p99 {} us, p99.9 {} us, max {} us; {:.1f} us of CPU per operation; {} "
        "errors\n",
        rate, latency.percentile(500), latency.percentile(990), latency.percentile(999), latency.max(),
        report.cpu_us_per_op, report.errors);
    return;
  }
  nlohmann::ordered_json out;
  out["ops_per_s"] = rounded(rate);
  out["latency_us"] = {{"p50", latency.percentile(500)},
                       {"p99", latency.percentile(990)},
                       {"p999", latency.percentile(999)},
                       {"max", latency.max()}};
  out["cpu_us_per_op"] = rounded(report.cpu_us_per_op);
  out["errors"] = report.errors;
  out["seconds"] = rounded(report.seconds);
  out["outstanding"] = flags.outstanding;
  out["payload"] = flags.payload;
  out["durability"] = crypto::to_string(report.durability);
  std::cout << out.dump() << std::endl;
}

Result<void> run_bench(const BenchFlags& flags) {
  BenchLoop loop;
  std::optional<TemporaryDirectory> temporary;
  std::unique_ptr<LocalRun> cluster;  // before `temporary` goes, so it is declared after it
  std::string dir = flags.dir;
  if (!dir.empty() && !flags.durability.empty()) {
    return Error{"--durability is for a cluster made for the run; the one of --dir has its own"};
  }
  if (dir.empty()) {
    auto made = TemporaryDirectory::make();
    if (!made) return Error{made.error()};
    temporary.emplace(std::move(made).value());
    dir = temporary->path();
    LocalClusterOptions options;
    options.dir = dir;
    options.name = "bench";
    options.service_name = flags.service;
    options.durability = crypto::parse_durability(flags.durability).value_or(options.durability);
    if (auto written = make_local_cluster(options); !written) return Error{written.error()};
    auto started = LocalRun::start({.dir = dir, .progress = say, .cancelled = [&loop] { return loop.interrupted(); }});
    if (!started) return Error{started.error()};
    cluster = std::move(started).value();
  }
  const auto report = measure(loop, flags, dir);
  if (cluster) {
    for (const std::string& death : cluster->poll()) say("a process ended by itself: " + death);
  }
  if (!report) return Error{report.error()};
  if (report->daemons == 0) say("no daemon of the cluster runs on this machine: CPU is the client's only");
  print(flags, *report);
  if (report->errors > 0) return Error{fmt::format("{} errors", report->errors)};
  return {};
}

}  // namespace

void add_bench(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench", "puts load on a key-value service and measures it");
  command->add_option("--dir", flags->dir, "cluster directory (default: a local cluster made for the run)");
  command->add_option("--service", flags->service, "name of a service with adapter \"kv\"")->capture_default_str();
  command->add_option("--client", flags->client, "client identity to use (default: 2)");
  command->add_option("--outstanding", flags->outstanding, "requests in flight at any time")
      ->check(CLI::Range(1u, 65'536u))
      ->capture_default_str();
  command->add_option("--payload", flags->payload, "bytes of an operation")
      ->check(CLI::Range(KvLoad::kPayloadMin, std::size_t{64} << 20))
      ->capture_default_str();
  command->add_option("--seconds", flags->seconds, "how long to measure")
      ->check(CLI::Range(1u, 86'400u))
      ->capture_default_str();
  command->add_option("--warmup", flags->warmup, "seconds of load before that")
      ->check(CLI::Range(0u, 3'600u))
      ->capture_default_str();
  command->add_option("--sessions", flags->sessions, "client sessions (default: by --outstanding)")
      ->check(CLI::Range(1u, 4'096u));
  command->add_option("--durability", flags->durability, "of a cluster made for the run (default: sync)")
      ->check(CLI::IsMember({"sync", "async", "none"}));
  command->add_flag("--json", flags->json, "print the result as one JSON object");
  add_bench_recovery(*command, exit_code);
  add_bench_recovery_webdav(*command, exit_code);
  command->require_subcommand(0, 1);
  command->callback([flags, command, &exit_code] {
    if (!command->get_subcommands().empty()) return;
    const auto done = run_bench(*flags);
    exit_code = done ? 0 : 1;
    if (!done) std::cerr << "zz bench: " << done.error() << '\n';
  });
}

}  // namespace zz::apps
