#include "apps/recovery_watch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace zz::apps {

using nlohmann::json;

namespace {

constexpr std::uint32_t kLookTimeoutMs = 500;
constexpr std::uint32_t kHostLookTimeoutMs = 2'000;
constexpr auto kLookEvery = std::chrono::milliseconds(100);
constexpr auto kHealLimit = std::chrono::milliseconds(60'000);
constexpr auto kTurn = std::chrono::milliseconds(10);

// From what its host tells of the woken slot.
std::optional<Recovery> measured(const json& told, RecoveryWatch::Clock::time_point fault,
                                 const std::optional<RecoveryWatch::Clock::time_point>& answered_at) {
  if (!told.is_object() || !told.contains("waking") || !answered_at) return std::nullopt;
  const json& waking = told["waking"];
  for (const char* name : {"asked_us", "handed_us", "voted_us", "whole_us"}) {
    if (!waking.contains(name)) return std::nullopt;
  }
  const auto fault_us = std::chrono::duration_cast<std::chrono::microseconds>(fault.time_since_epoch()).count();
  const auto ms = [&](const char* name) {
    return static_cast<double>(waking[name].get<std::int64_t>() - fault_us) / 1'000;
  };
  Recovery out;
  out.detect_ms = ms("asked_us");
  out.wake_ms = ms("handed_us");
  out.first_vote_ms = ms("voted_us");
  out.first_correct_reply_ms = std::chrono::duration<double, std::milli>(*answered_at - fault).count();
  out.all_state_ms = ms("whole_us");
  out.bytes_on_demand = waking.value("touched_bytes", 0.0);
  return out;
}

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

}  // namespace

std::string describe(const Recovery& run) {
  return fmt::format(
      "detected {:.1f} ms, awake {:.1f} ms, first vote {:.1f} ms, first right reply {:.1f} ms, all state {:.0f} ms, "
      "{:.0f} bytes on demand",
      run.detect_ms, run.wake_ms, run.first_vote_ms, run.first_correct_reply_ms, run.all_state_ms, run.bytes_on_demand);
}

nlohmann::ordered_json medians(const std::vector<Recovery>& runs) {
  nlohmann::ordered_json out;
  for (const Column& column : kColumns) out[column.name] = rounded(median(runs, column.value));
  return out;
}

RecoveryWatch::RecoveryWatch(BenchLoop& loop, LocalRun& run, std::string dir, std::unique_ptr<StatusClient> watcher)
    : loop_(loop), run_(run), dir_(std::move(dir)), watcher_(std::move(watcher)) {}

Result<std::unique_ptr<RecoveryWatch>> RecoveryWatch::open(BenchLoop& loop, LocalRun& run, std::string dir) {
  auto watcher = StatusClient::open(loop.context(), dir);
  if (!watcher) return Error{watcher.error()};
  return std::unique_ptr<RecoveryWatch>(new RecoveryWatch(loop, run, std::move(dir), std::move(watcher).value()));
}

const crypto::ServiceEntry& RecoveryWatch::service() const { return run_.cluster().services.front(); }

Result<void> RecoveryWatch::await(const std::function<bool()>& done, Milliseconds limit, std::string_view what) {
  const auto deadline = Clock::now() + limit;
  while (!done()) {
    look();
    loop_.run_until(Clock::now() + kTurn, [] { return false; });
    if (loop_.interrupted()) return interrupted();
    if (const std::vector<std::string> deaths = run_.poll(); !deaths.empty()) return Error{deaths.front()};
    if (Clock::now() >= deadline) return Error{fmt::format("{} was not seen in {} s", what, limit.count() / 1'000)};
  }
  return {};
}

void RecoveryWatch::look() {
  if (asking_ || Clock::now() < look_at_) return;
  asking_ = true;
  watcher_->ask(kLookTimeoutMs, [this](const StatusClient::Answers& answers) {
    asking_ = false;
    look_at_ = Clock::now() + kLookEvery;
    status_ = combine(answers, service().name, run_.cluster().f);
  });
}

Result<void> RecoveryWatch::await_health() {
  status_ = {};
  return await([this] { return is_healthy(); }, kHealLimit, "a healthy cluster");
}

bool RecoveryWatch::is_healthy() const {
  if (status_.slots.size() != service().slots.size() || status_.active() != service().g + 1) return false;
  for (const SlotStatus& slot : status_.slots) {
    if (slot.active ? !slot.connected : slot.incarnation == 0) return false;
  }
  return std::ranges::all_of(status_.slots, [this](const SlotStatus& s) { return s.active || is_asleep(s); });
}

bool RecoveryWatch::is_asleep(const SlotStatus& slot) const {
  const json told = host_slot(slot.slot);
  return told.is_object() && told.value("incarnation", std::uint64_t{0}) == slot.incarnation &&
         told.value("state", "") == "asleep";
}

json RecoveryWatch::host_slot(std::uint32_t slot) const {
  const auto answer =
      query_host_socket(host_socket_path(dir_, service().slots[slot].host), {{"cmd", "status"}}, kHostLookTimeoutMs);
  if (!answer || !answer->contains("slots")) return nullptr;
  for (const json& told : answer->at("slots")) {
    if (told.value("service", 0u) == service().id.value && told.value("slot", 0u) == slot) return told;
  }
  return nullptr;
}

Result<void> RecoveryWatch::inject(std::uint32_t slot, std::string_view fault) const {
  const auto answer =
      query_host_socket(host_socket_path(dir_, service().slots[slot].host),
                        {{"cmd", "fault"}, {"service", service().id.value}, {"slot", slot}, {"kind", fault}});
  if (!answer) return Error{answer.error()};
  if (answer->value("ok", false)) return {};
  return Error{fmt::format("the fault was not injected: {}", answer->value("error", "no reason given"))};
}

Result<std::optional<Recovery>> RecoveryWatch::recover(const Episode& episode) {
  disturbed_.clear();
  std::vector<std::uint32_t> active;
  SlotStatus sleeper;
  for (const SlotStatus& slot : status_.slots) {
    if (slot.active) active.push_back(slot.slot);
    if (!slot.active) sleeper = slot;
  }
  // Not the one that was woken last, so that each life lasts for two runs.
  const std::uint32_t victim = active.front() == woken_ ? active.back() : active.front();
  const auto fault = Clock::now();
  if (auto injected = inject(victim, episode.fault); !injected) return Error{injected.error()};
  episode.watch_next();
  std::optional<Recovery> out;
  auto look_at = Clock::now();
  const auto seen = [&] {
    if (Clock::now() < look_at) return false;
    look_at = Clock::now() + kLookEvery;
    const json told = host_slot(sleeper.slot);
    if (told.is_object() && told.value("incarnation", sleeper.incarnation) != sleeper.incarnation) {
      disturbed_ = "the woken replica was replaced";
    } else {
      out = measured(told, fault, episode.answered_at());
    }
    return !disturbed_.empty() || out.has_value();
  };
  if (auto done = await(seen, episode.limit, "the end of a recovery"); !done) return Error{done.error()};
  woken_ = sleeper.slot;
  if (out && out->detect_ms < 0) disturbed_ = "the replica was awake before the fault";
  return disturbed_.empty() ? out : std::nullopt;
}

}  // namespace zz::apps
