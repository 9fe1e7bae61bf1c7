#include "apps/bench_recovery.hpp"

#include <fmt/format.h>

#include <array>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/bench_run.hpp"
#include "apps/caller.hpp"
#include "apps/demo_status.hpp"
#include "apps/local_cluster.hpp"
#include "apps/paced_load.hpp"
#include "apps/status_client.hpp"
#include "apps/supervisor.hpp"

namespace zz::apps {
namespace {

using Clock = BenchLoop::Clock;
using nlohmann::json;
using std::chrono::milliseconds;

constexpr std::uint64_t kValueBytes = 65'000;  // of the state's bulk: one object each, with its key
constexpr std::uint64_t kValuesPerFill = 16;
constexpr std::uint32_t kFillsOutstanding = 4;
constexpr std::uint32_t kSessions = 8;
constexpr std::uint32_t kLookTimeoutMs = 500;
constexpr std::uint32_t kHostLookTimeoutMs = 2'000;
constexpr auto kLookEvery = milliseconds(100);
constexpr auto kFillLimit = milliseconds(60'000);  // without any progress
constexpr auto kHealLimit = milliseconds(60'000);
constexpr std::uint64_t kLeastBytesPerMs = 4'000;  // of a state that is fetched whole
constexpr auto kQuiet = milliseconds(1'500);       // of load before each fault, besides waiting for health
constexpr std::uint32_t kDisturbedMax = 10;        // recoveries that something else came across

struct Flags {
  std::vector<std::uint64_t> state = {10u << 20};
  std::uint32_t runs = 10;
  std::uint32_t rate = 2'000;
  std::uint32_t outstanding = 100;
  std::uint32_t keys = 10'000;
  std::string fault = "wrong-reply";
  bool json = false;
};

// Milliseconds since the fault.
struct Recovery {
  double detect_ms = 0;
  double wake_ms = 0;
  double first_vote_ms = 0;
  double first_correct_reply_ms = 0;
  double all_state_ms = 0;
  double bytes_on_demand = 0;
};
struct Column {
  const char* name;
  double Recovery::*value;
};
constexpr std::array kColumns = {
    Column{"detect_ms", &Recovery::detect_ms},
    Column{"wake_ms", &Recovery::wake_ms},
    Column{"first_vote_ms", &Recovery::first_vote_ms},
    Column{"first_correct_reply_ms", &Recovery::first_correct_reply_ms},
    Column{"all_state_ms", &Recovery::all_state_ms},
    Column{"bytes_on_demand", &Recovery::bytes_on_demand},
};

double median(const std::vector<Recovery>& runs, double Recovery::*value) {
  std::vector<double> all;
  for (const Recovery& run : runs) all.push_back(run.*value);
  std::sort(all.begin(), all.end());
  return (all[(all.size() - 1) / 2] + all[all.size() / 2]) / 2;
}

std::string in_units(std::uint64_t bytes) {
  if (bytes >= 1u << 30 && bytes % (1u << 30) == 0) return fmt::format("{} GiB", bytes >> 30);
  return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (1u << 20));
}

std::string describe(const Recovery& run) {
  return fmt::format(
      "detected {:.1f} ms, awake {:.1f} ms, first vote {:.1f} ms, first right reply {:.1f} ms, all state {:.0f} ms, "
      "{:.0f} bytes on demand",
      run.detect_ms, run.wake_ms, run.first_vote_ms, run.first_correct_reply_ms, run.all_state_ms, run.bytes_on_demand);
}

// One cluster with a state of one size.
class Patient {
 public:
  Patient(BenchLoop& loop, const Flags& flags, std::uint64_t bytes) : loop_(loop), flags_(flags), bytes_(bytes) {}

  Result<void> start(const std::string& dir);
  Result<void> fill();
  Result<std::vector<Recovery>> recover();
  // Recoveries that do not count: the sleeper was awake already, or was replaced before it had all of the state.
  [[nodiscard]] std::uint32_t disturbed() const { return disturbed_; }

 private:
  Result<void> await(const std::function<bool()>& done, milliseconds limit, std::string_view what);
  void look();
  [[nodiscard]] json host_slot(std::uint32_t slot) const;
  [[nodiscard]] bool is_asleep(const SlotStatus& slot) const;
  [[nodiscard]] bool is_healthy() const;
  Result<void> inject(std::uint32_t slot);
  Result<std::optional<Recovery>> recover_once(std::size_t number);
  [[nodiscard]] std::optional<Recovery> measured(const json& told, Clock::time_point fault) const;

  BenchLoop& loop_;
  const Flags& flags_;
  std::uint64_t bytes_;
  std::string dir_;
  std::unique_ptr<LocalRun> run_;
  std::optional<Caller> caller_;
  std::unique_ptr<client::Client> client_;
  std::unique_ptr<StatusClient> watcher_;
  std::unique_ptr<PacedLoad> load_;
  ClusterStatus status_;
  bool asking_ = false;
  Clock::time_point look_at_;
  std::optional<std::uint32_t> woken_;
  std::uint32_t disturbed_ = 0;
};

Result<void> Patient::start(const std::string& dir) {
  dir_ = dir;
  LocalClusterOptions options;
  options.dir = dir;
  options.name = "bench";
  options.allow_faults = true;
  if (auto written = make_local_cluster(options); !written) return Error{written.error()};
  auto started = LocalRun::start({.dir = dir, .progress = say, .cancelled = [this] { return loop_.interrupted(); }});
  if (!started) return Error{started.error()};
  run_ = std::move(started).value();
  auto caller = load_caller(dir, std::nullopt, options.service_name);
  if (!caller) return Error{caller.error()};
  caller_ = std::move(caller).value();
  client::ClientOptions client_options;
  client_options.sessions = kSessions;
  auto client = client::Client::open(loop_.context(), caller_->cluster, caller_->key, client_options);
  if (!client) return Error{client.error()};
  client_ = std::move(client).value();
  auto watcher = StatusClient::open(loop_.context(), dir);
  if (!watcher) return Error{watcher.error()};
  watcher_ = std::move(watcher).value();
  load_ = std::make_unique<PacedLoad>(loop_.context(), *client_, caller_->service.id,
                                      PacedLoad::Options{flags_.keys, flags_.rate, flags_.outstanding});
  return await([this] { return client_->connected_nodes() == caller_->cluster.n(); }, kHealLimit, "a whole cluster");
}

Result<void> Patient::await(const std::function<bool()>& done, milliseconds limit, std::string_view what) {
  const auto deadline = Clock::now() + limit;
  while (!done()) {
    look();
    loop_.run_until(Clock::now() + milliseconds(10), [] { return false; });
    if (loop_.interrupted()) return interrupted();
    if (const std::vector<std::string> deaths = run_->poll(); !deaths.empty()) return Error{deaths.front()};
    if (Clock::now() >= deadline) return Error{fmt::format("{} was not seen in {} s", what, limit.count() / 1'000)};
  }
  return {};
}

void Patient::look() {
  if (asking_ || Clock::now() < look_at_) return;
  asking_ = true;
  watcher_->ask(kLookTimeoutMs, [this](const StatusClient::Answers& answers) {
    asking_ = false;
    look_at_ = Clock::now() + kLookEvery;
    status_ = combine(answers, caller_->service.name, caller_->cluster.f);
  });
}

// Values of the bulk, many per request; then the small ones, which the load is about.
Result<void> Patient::fill() {
  const std::uint64_t small_bytes = std::uint64_t{flags_.keys} * 200;
  const std::uint64_t values = bytes_ > small_bytes ? (bytes_ - small_bytes) / kValueBytes : 0;
  const std::uint64_t fills = (values + kValuesPerFill - 1) / kValuesPerFill;
  const auto start = Clock::now();
  std::uint64_t sent = 0;
  std::uint64_t done = 0;
  std::string wrong;
  std::function<void()> send = [&] {
    while (wrong.empty() && sent < fills && sent - done < kFillsOutstanding) {
      const std::string op = fmt::format("fill bulk-{}- {} {}", sent, kValuesPerFill, kValueBytes);
      const Refusal refusal =
          client_->submit(caller_->service.id, SharedBytes::copy(std::string_view(op)), [&](const client::Answer& a) {
            ++done;
            if (a.outcome != client::Outcome::kReply || a.reply.text() != "ok") wrong = a.reply.text();
            send();
          });
      if (refusal != Refusal::kNone) return;
      ++sent;
    }
  };
  send();
  for (std::uint64_t before = 0; done < fills; before = done) {
    auto moved = await([&] { return done == fills || done >= before + 256 || !wrong.empty(); }, kFillLimit,
                       "progress with filling");
    if (!moved) return moved;
    if (!wrong.empty()) return Error{"filling the state: " + wrong};
    say(fmt::format("{}: filled {} MiB", in_units(bytes_), done * kValuesPerFill * kValueBytes >> 20));
  }
  load_->fill();
  if (auto filled = await([this] { return load_->idle(); }, kFillLimit, "the end of filling"); !filled) return filled;
  say(fmt::format("{}: filled in {:.1f} s", in_units(bytes_),
                  std::chrono::duration<double>(Clock::now() - start).count()));
  return {};
}

// What its host says of the slot; null: nothing.
json Patient::host_slot(std::uint32_t slot) const {
  const crypto::ServiceEntry& service = caller_->service;
  const auto answer =
      query_host_socket(host_socket_path(dir_, service.slots[slot].host), {{"cmd", "status"}}, kHostLookTimeoutMs);
  if (!answer || !answer->contains("slots")) return nullptr;
  for (const json& told : answer->at("slots")) {
    if (told.value("service", 0u) == service.id.value && told.value("slot", 0u) == slot) return told;
  }
  return nullptr;
}

bool Patient::is_asleep(const SlotStatus& slot) const {
  const json told = host_slot(slot.slot);
  return told.is_object() && told.value("incarnation", std::uint64_t{0}) == slot.incarnation &&
         told.value("state", "") == "asleep";
}

bool Patient::is_healthy() const {
  const crypto::ServiceEntry& service = caller_->service;
  if (status_.slots.size() != service.slots.size() || status_.active() != service.g + 1) return false;
  for (const SlotStatus& slot : status_.slots) {
    if (slot.active ? !slot.connected : slot.incarnation == 0) return false;
  }
  return std::ranges::all_of(status_.slots, [this](const SlotStatus& s) { return s.active || is_asleep(s); });
}

Result<void> Patient::inject(std::uint32_t slot) {
  const auto answer = query_host_socket(
      host_socket_path(dir_, caller_->service.slots[slot].host),
      {{"cmd", "fault"}, {"service", caller_->service.id.value}, {"slot", slot}, {"kind", flags_.fault}});
  if (!answer) return Error{answer.error()};
  if (answer->value("ok", false)) return {};
  return Error{fmt::format("the fault was not injected: {}", answer->value("error", "no reason given"))};
}

// From what its host tells of the woken slot.
std::optional<Recovery> Patient::measured(const json& told, Clock::time_point fault) const {
  if (!told.is_object() || !told.contains("waking") || !load_->answered_at()) return std::nullopt;
  const json& waking = told["waking"];
  const auto fault_us = std::chrono::duration_cast<std::chrono::microseconds>(fault.time_since_epoch()).count();
  const auto ms = [&](const char* name) {
    return static_cast<double>(waking[name].get<std::int64_t>() - fault_us) / 1'000;
  };
  for (const char* name : {"asked_us", "handed_us", "voted_us", "whole_us"}) {
    if (!waking.contains(name)) return std::nullopt;
  }
  Recovery out;
  out.detect_ms = ms("asked_us");
  out.wake_ms = ms("handed_us");
  out.first_vote_ms = ms("voted_us");
  out.first_correct_reply_ms = std::chrono::duration<double, std::milli>(*load_->answered_at() - fault).count();
  out.all_state_ms = ms("whole_us");
  out.bytes_on_demand = waking.value("touched_bytes", 0.0);
  return out;
}

// Nothing: the sleeper was awake before the fault, or was put to sleep before it had all of the state; it does not
// count.
Result<std::optional<Recovery>> Patient::recover_once(std::size_t number) {
  status_ = ClusterStatus();
  if (auto healthy = await([this] { return is_healthy(); }, kHealLimit, "a healthy cluster"); !healthy) {
    return Error{healthy.error()};
  }
  loop_.run_until(Clock::now() + kQuiet, [] { return false; });
  std::vector<std::uint32_t> active;
  std::uint32_t sleeper = 0;
  std::uint64_t incarnation = 0;
  for (const SlotStatus& slot : status_.slots) {
    if (slot.active) active.push_back(slot.slot);
    if (slot.active) continue;
    sleeper = slot.slot;
    incarnation = slot.incarnation;
  }
  // Not the one that was woken last, so that each life lasts for two runs.
  const std::uint32_t victim = active.front() == woken_ ? active.back() : active.front();
  const auto fault = Clock::now();
  if (auto injected = inject(victim); !injected) return Error{injected.error()};
  load_->watch_next();
  std::optional<Recovery> out;
  bool replaced = false;
  const milliseconds limit = kHealLimit + milliseconds(bytes_ / kLeastBytesPerMs);
  auto look_at = Clock::now();
  const auto seen = [&] {
    if (Clock::now() < look_at) return false;
    look_at = Clock::now() + kLookEvery;
    const json told = host_slot(sleeper);
    replaced = told.is_object() && told.value("incarnation", incarnation) != incarnation;
    if (!replaced) out = measured(told, fault);
    return replaced || out.has_value();
  };
  if (auto done = await(seen, limit, "the end of a recovery"); !done) return Error{done.error()};
  woken_ = sleeper;
  if (replaced || out->detect_ms < 0) {
    say(fmt::format("{}: recovery {}: {}", in_units(bytes_), number + 1,
                    replaced ? "the woken replica was replaced" : "the replica was awake before the fault"));
    return std::optional<Recovery>();
  }
  say(fmt::format("{}: recovery {}: {}", in_units(bytes_), number + 1, describe(*out)));
  return out;
}

Result<std::vector<Recovery>> Patient::recover() {
  std::vector<Recovery> out;
  load_->start();
  while (out.size() < flags_.runs) {
    const auto one = recover_once(out.size());
    if (!one) return Error{one.error()};
    if (!*one && ++disturbed_ == kDisturbedMax) return Error{"too many recoveries were disturbed by others"};
    if (*one) out.push_back(**one);
  }
  load_->stop();
  if (auto drained = await([this] { return load_->idle(); }, kHealLimit, "the last reply"); !drained) {
    return Error{drained.error()};
  }
  if (load_->errors() > 0) return Error{fmt::format("{} errors: {}", load_->errors(), load_->first_error())};
  return out;
}

void print(const Flags& flags, std::uint64_t bytes, const std::vector<Recovery>& runs, std::uint32_t disturbed) {
  nlohmann::ordered_json out = {{"state_bytes", bytes},
                                {"runs", runs.size()},
                                {"disturbed", disturbed},
                                {"rate", flags.rate},
                                {"fault", flags.fault}};
  for (const Column& column : kColumns) out[column.name] = rounded(median(runs, column.value));
  // The first sleeper has never run: it holds nothing of the state.
  out["all_state_ms_first"] = rounded(runs.front().all_state_ms);
  if (flags.json) {
    std::cout << out.dump() << std::endl;
    return;
  }
  std::cout << fmt::format("{}, median of {} ({} more disturbed):", in_units(bytes), runs.size(), disturbed);
  for (const Column& column : kColumns) std::cout << fmt::format(" {} {:.1f}", column.name, median(runs, column.value));
  std::cout << std::endl;
}

Result<void> run(const Flags& flags) {
  BenchLoop loop;
  for (const std::uint64_t bytes : flags.state) {
    const auto directory = TemporaryDirectory::make();
    if (!directory) return Error{directory.error()};
    Patient patient(loop, flags, bytes);
    if (auto started = patient.start(directory->path()); !started) return started;
    if (auto filled = patient.fill(); !filled) return filled;
    const auto runs = patient.recover();
    if (!runs) return Error{runs.error()};
    print(flags, bytes, *runs, patient.disturbed());
  }
  return {};
}

}  // namespace

void add_bench_recovery(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand(
      "recovery",
      "makes one replica faulty again and again, under load, and measures how soon another makes up for it.\n"
      "All times are in milliseconds since the fault, medians over the runs: until the first node asked to wake the\n"
      "sleeper, it was awake, its first vote, the right reply to the first request sent after the fault, and nothing "
      "of\n"
      "the state is absent on it. bytes_on_demand: fetched because a request waited for them.");
  command->add_option("--state", flags->state, "sizes of the service's state, such as 10M,100M,1G,4G")
      ->transform(CLI::AsSizeValue(false))
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--runs", flags->runs, "recoveries per size")
      ->check(CLI::Range(1u, 10'000u))
      ->capture_default_str();
  command->add_option("--rate", flags->rate, "requests a second; 0: as many as --outstanding allows")
      ->check(CLI::Range(0u, 1'000'000u))
      ->capture_default_str();
  command->add_option("--outstanding", flags->outstanding, "requests in flight, with --rate 0")
      ->check(CLI::Range(1u, 1'024u))
      ->capture_default_str();
  command->add_option("--keys", flags->keys, "small keys that requests put and get, besides the bulk")
      ->check(CLI::Range(1u, 1'000'000u))
      ->capture_default_str();
  command->add_option("--fault", flags->fault, "what the replica does")
      ->check(CLI::IsMember({"wrong-reply", "silent", "crash"}))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print the result as one JSON object per size");
  command->callback([flags, &exit_code] {
    const auto done = run(*flags);
    exit_code = done ? 0 : 1;
    if (!done) std::cerr << "zz bench recovery: " << done.error() << '\n';
  });
}

}  // namespace zz::apps
