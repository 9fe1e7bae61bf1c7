#include "apps/bench_recovery_webdav.hpp"

#include <fmt/format.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "apps/bench_run.hpp"
#include "apps/dav_load.hpp"
#include "apps/local_cluster.hpp"
#include "apps/recovery_watch.hpp"
#include "apps/supervisor.hpp"
#include "apps/webdav_client.hpp"
#include "execution/webdav_sample.hpp"

namespace zz::apps {
namespace {

using std::chrono::milliseconds;
using Clock = BenchLoop::Clock;

constexpr auto kSayEvery = milliseconds(2'000);
constexpr auto kStandstill = milliseconds(60'000);  // without any progress in filling
constexpr auto kLimit = milliseconds(60'000);
constexpr std::uint64_t kLeastBytesPerMs = 2'000;  // of a state that is fetched whole
constexpr auto kQuiet = milliseconds(1'500);       // of load before each fault, besides waiting for health
constexpr std::uint32_t kDisturbedMax = 10;        // recoveries that something else came across

struct Flags {
  std::vector<std::uint32_t> files = {1'000, 10'000};
  std::uint64_t file_bytes = 105u << 10;
  std::uint32_t runs = 5;
  std::uint32_t rate = 100;
  std::string fault = "wrong-reply";
  bool json = false;
};

Result<crypto::ClusterFile> make_cluster(const std::string& root) {
  auto sample = execution::make_webdav_sample(root + "/webdav");
  if (!sample) return Error{sample.error()};
  LocalClusterOptions options;
  options.dir = root + "/cluster";
  options.name = "bench";
  options.service_name = "webdav";
  options.adapter = "http";
  options.command = sample->command;
  options.initial_state = sample->initial_state;
  options.http = sample->http;
  options.allow_faults = true;
  return make_local_cluster(options);
}

Result<void> right_so_far(const DavLoad& load) {
  const std::string wrong = load.first_error();
  return wrong.empty() ? Result<void>() : Error{wrong};
}

Result<void> fill(RecoveryWatch& watch, const DavLoad& load, const Flags& flags, std::uint32_t files) {
  const auto start = Clock::now();
  for (std::uint64_t before = 0; before < files; before = load.filled()) {
    const auto say_at = Clock::now() + kSayEvery;
    const auto moved = [&] {
      return !load.first_error().empty() || load.filled() == files ||
             (load.filled() > before && Clock::now() >= say_at);
    };
    if (auto done = watch.await(moved, kStandstill, "progress with filling"); !done) return done;
    if (auto right = right_so_far(load); !right) return right;
    say(fmt::format("{} files: {} are there, {} MiB", files, load.filled(), load.filled() * flags.file_bytes >> 20));
  }
  say(fmt::format("{} files: filled in {:.1f} s", files, std::chrono::duration<double>(Clock::now() - start).count()));
  return {};
}

Result<void> recover(BenchLoop& loop, RecoveryWatch& watch, DavLoad& load, const Flags& flags, std::uint32_t files) {
  RecoveryWatch::Episode episode;
  episode.fault = flags.fault;
  episode.limit = kLimit + milliseconds(files * flags.file_bytes / kLeastBytesPerMs);
  episode.watch_next = [&load] { load.watch_next(); };
  episode.answered_at = [&load] { return load.answered_at(); };
  std::vector<Recovery> runs;
  std::uint32_t disturbed = 0;
  load.start();
  while (runs.size() < flags.runs) {
    if (auto healthy = watch.await_health(); !healthy) return healthy;
    loop.run_until(Clock::now() + kQuiet, [] { return false; });
    const auto one = watch.recover(episode);
    if (!one) return Error{one.error()};
    if (auto right = right_so_far(load); !right) return right;
    say(fmt::format("{} files: recovery {}: {}", files, runs.size() + 1, *one ? describe(**one) : watch.disturbed()));
    if (!*one && ++disturbed == kDisturbedMax) return Error{"too many recoveries were disturbed by others"};
    if (*one) runs.push_back(**one);
  }
  load.stop();
  if (auto drained = watch.await([&load] { return load.idle(); }, kLimit, "the last reply"); !drained) return drained;
  if (auto right = right_so_far(load); !right) return right;
  nlohmann::ordered_json out = {{"files", files},      {"state_bytes", files * flags.file_bytes},
                                {"runs", runs.size()}, {"disturbed", disturbed},
                                {"rate", flags.rate},  {"fault", flags.fault}};
  out.update(medians(runs));
  // The first sleeper has never run: it holds nothing of the state.
  out["all_state_ms_first"] = rounded(runs.front().all_state_ms);
  if (flags.json) {
    std::cout << out.dump() << std::endl;
  } else {
    std::cout << fmt::format("{} files, medians of {}:", files, runs.size());
    for (const auto& [name, value] : out.items()) {
      if (value.is_number_float()) std::cout << fmt::format(" {} {:.1f}", name, value.get<double>());
    }
    std::cout << std::endl;
  }
  return {};
}

Result<void> run(const Flags& flags) {
  BenchLoop loop;
  if (!init_webdav_clients()) return Error{"libcurl cannot be initialised"};
  for (const std::uint32_t files : flags.files) {
    const auto directory = TemporaryDirectory::make();
    if (!directory) return Error{directory.error()};
    const auto cluster = make_cluster(directory->path());
    if (!cluster) return Error{cluster.error()};
    const std::string dir = directory->path() + "/cluster";
    const std::string url = fmt::format("http://{}", crypto::to_string(cluster->services.front().gateway));
    std::unique_ptr<DavLoad> load;  // goes after the cluster: no user waits for a reply then
    auto cluster_run =
        LocalRun::start({.dir = dir, .progress = say, .cancelled = [&loop] { return loop.interrupted(); }});
    if (!cluster_run) return Error{cluster_run.error()};
    const auto watch = RecoveryWatch::open(loop, **cluster_run, dir);
    if (!watch) return Error{watch.error()};
    load = std::make_unique<DavLoad>(DavLoad::Options{url, files, flags.file_bytes, flags.rate});
    auto done = fill(**watch, *load, flags, files);
    if (done) done = recover(loop, **watch, *load, flags, files);
    load->stop();  // what fails from now on is the end's doing
    if (!done) return done;
  }
  return {};
}

}  // namespace

void add_bench_recovery_webdav(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand(
      "recovery-webdav",
      "as recovery, of an nginx with WebDAV on the state file system: users fill it with files by COPY, then read nine "
      "and overwrite one in turn, and one replica becomes faulty again and again.");
  command->add_option("--files", flags->files, "numbers of files, such as 1000,10000")
      ->check(CLI::Range(DavLoad::kUsers, 1'000'000u))
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--file-bytes", flags->file_bytes, "size of each")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--runs", flags->runs, "recoveries per number of files")
      ->check(CLI::Range(1u, 10'000u))
      ->capture_default_str();
  command->add_option("--rate", flags->rate, "requests a second")
      ->check(CLI::Range(1u, 100'000u))
      ->capture_default_str();
  command->add_option("--fault", flags->fault, "what the replica does")
      ->check(CLI::IsMember({"wrong-reply", "silent", "crash"}))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print the result as one JSON object per number of files");
  command->callback([flags, &exit_code] {
    const auto done = run(*flags);
    exit_code = done ? 0 : 1;
    if (!done) std::cerr << "zz bench recovery-webdav: " << done.error() << '\n';
  });
}

}  // namespace zz::apps
