#include "apps/demo_tour.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "agreement/incident_log.hpp"

namespace zz::apps {

using nlohmann::json;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto kTurn = milliseconds(10);  // between two looks
constexpr std::uint32_t kLookTimeoutMs = 500;
constexpr std::uint32_t kHostLookTimeoutMs = 1'000;
constexpr auto kHealLimit = milliseconds(30'000);  // a fault not healed by then fails the demo
constexpr auto kWorkLimit = milliseconds(60'000);
constexpr double kFaultSeconds = 4.0;  // a fault's share of the requests is spread over this
constexpr double kRateMin = 60.0;      // requests per second while something heals
constexpr std::size_t kPhases = 4;     // calm, and three faults

std::string with_commas(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double rounded_ms(std::uint64_t us) { return static_cast<double>(us) / 1'000.0; }

}  // namespace

std::string render_json(const DemoSummary& summary) {
  return nlohmann::ordered_json{{"service", summary.service},
                                {"requests", summary.users.requests},
                                {"accepted_replies", summary.users.accepted},
                                {"wrong_replies", summary.users.wrong},
                                {"divergences", summary.divergences},
                                {"wakes", summary.wakes},
                                {"evictions", summary.evictions},
                                {"first_correct_reply_ms", rounded_ms(summary.first_correct_us)},
                                {"active_after", summary.active_after},
                                {"asleep_after", summary.asleep_after}}
      .dump();
}

DemoTour::DemoTour(DemoTourOptions options, LocalRun& run, DemoTeller& teller)
    : options_(std::move(options)), run_(run), teller_(teller), service_(run.cluster().services.front()) {
  summary_.service = service_.name;
}

DemoTour::~DemoTour() = default;

void DemoTour::halt() {
  if (users_) users_->halt();
}

// ---- turns ---------------------------------------------------------------------------------------------

void DemoTour::look(StatusClient::Answers answers) {
  asking_ = false;
  answers_ = std::move(answers);
  status_ = combine(answers_, service_.name, run_.cluster().f);
  if (status_.answered <= run_.cluster().f) return;
  summary_.divergences = std::max(summary_.divergences, status_.divergences);
  summary_.wakes = std::max(summary_.wakes, status_.wakes);
  summary_.evictions = std::max(summary_.evictions, status_.evictions);
  summary_.first_correct_us = std::max(summary_.first_correct_us, status_.first_correct_us);
}

void DemoTour::pace() {
  const auto now = Clock::now();
  owed_ += rate_ * std::chrono::duration<double>(now - paced_at_).count();
  paced_at_ = now;
  const auto whole = static_cast<std::uint64_t>(owed_);
  owed_ -= static_cast<double>(whole);
  if (whole > 0) users_->grant(whole);
}

std::string DemoTour::progress_line() const {
  return fmt::format("{} requests, {} correct, {} wrong", with_commas(summary_.users.requests),
                     with_commas(summary_.users.accepted), summary_.users.wrong);
}

Result<void> DemoTour::await(const std::function<bool()>& done, milliseconds limit, std::string_view what) {
  const auto deadline = Clock::now() + limit;
  paced_at_ = Clock::now();
  for (;;) {
    if (!asking_) {
      asking_ = true;
      client_->ask(kLookTimeoutMs, [this](StatusClient::Answers answers) { look(std::move(answers)); });
    }
    loop_.run_for(kTurn);
    loop_.restart();
    pace();
    summary_.users = users_->counts();
    teller_.progress(progress_line());
    if (done()) return {};
    if (options_.cancelled && options_.cancelled()) return Error{"stopped"};
    const std::vector<std::string> deaths = run_.poll();
    if (!deaths.empty()) return Error{"a process of the cluster ended: " + deaths.front()};
    if (summary_.users.wrong + summary_.users.unanswered > 0) {
      const auto complaints = users_->complaints();
      return Error{complaints.empty() ? std::string("a reply was wrong") : complaints.front()};
    }
    if (Clock::now() >= deadline) {
      return Error{fmt::format("{} was not seen within {} s", what, limit.count() / 1'000)};
    }
  }
}

std::size_t DemoTour::count_asleep() const {
  std::map<HostId, std::vector<HostSlot>> by_host;
  std::size_t asleep = 0;
  for (const crypto::SlotEntry& slot : service_.slots) {
    const SlotStatus* seen = status_.find(slot.id.value);
    if (seen == nullptr || seen->active || seen->incarnation == 0) continue;
    if (!by_host.contains(slot.host)) {
      const auto answer =
          query_host_socket(host_socket_path(options_.dir, slot.host), {{"cmd", "status"}}, kHostLookTimeoutMs);
      by_host[slot.host] = answer ? read_host(*answer, service_.id.value) : std::vector<HostSlot>{};
    }
    for (const HostSlot& told : by_host[slot.host]) {
      if (told.slot == slot.id.value && told.incarnation == seen->incarnation && told.state == "asleep") ++asleep;
    }
  }
  return asleep;
}

// ---- the tour ------------------------------------------------------------------------------------------

Result<void> DemoTour::go() {
  auto client = StatusClient::open(loop_, options_.dir);
  if (!client) return Error{client.error()};
  client_ = std::move(client).value();
  const std::string url = fmt::format("http://{}", crypto::to_string(service_.gateway));
  users_ = std::make_unique<DavUsers>(url, options_.users, options_.seed);
  if (auto worked = calm(); !worked) return worked;
  const std::vector<Fault> faults = {
      {.kind = "wrong-reply",
       .what = "from now on the replica in slot {} lies: it falsifies its replies",
       .noticed = "the nodes saw two different answers",
       .first_active = false},
      {.kind = "silent",
       .what = "the replica in slot {} is frozen: it says nothing any more",
       .noticed = "the nodes miss its votes",
       .first_active = true},
      {.kind = "crash",
       .what = "the replica in slot {} is killed",
       .noticed = "the nodes lost it",
       .first_active = false},
  };
  int number = 0;
  for (const Fault& fault : faults) {
    if (auto done = heal(fault, ++number, options_.requests / kPhases); !done) return done;
  }
  return last_look();
}

Result<void> DemoTour::calm() {
  teller_.headline("First, nothing is wrong");
  teller_.step(fmt::format(
      "{} users start (libcurl, one connection each): a mix of PUT, GET, DELETE, PROPFIND and others", options_.users));
  teller_.detail("each checks every reply against its own model of its files, never against another replica");
  const auto start = Clock::now();
  users_->grant(options_.requests - (kPhases - 1) * (options_.requests / kPhases));
  if (auto worked = await([this] { return users_->idle(); }, kWorkLimit, "the end of the first requests"); !worked) {
    return worked;
  }
  const double seconds = ms_since(start) / 1'000.0;
  teller_.step(
      fmt::format("{} requests, every reply correct: {:.0f} per second, executed by {} replicas while {} sleeps",
                  with_commas(summary_.users.requests), static_cast<double>(summary_.users.requests) / seconds,
                  service_.g + 1, service_.g));
  return {};
}

Result<void> DemoTour::inject(const Healing& healing) {
  HostId host{};
  for (const crypto::SlotEntry& slot : service_.slots) {
    if (slot.id.value == healing.victim) host = slot.host;
  }
  const auto answer = query_host_socket(
      host_socket_path(options_.dir, host),
      {{"cmd", "fault"}, {"service", service_.id.value}, {"slot", healing.victim}, {"kind", healing.fault.kind}});
  if (!answer) return Error{answer.error()};
  if (answer->value("ok", false)) return {};
  return Error{fmt::format("fault {} was not injected into slot {}: {}", healing.fault.kind, healing.victim,
                           answer->value("error", std::string("no reason given")))};
}

Result<void> DemoTour::heal(const Fault& fault, int number, std::uint64_t requests) {
  teller_.headline(fmt::format("Fault {} of 3: {}", number, fault.kind));
  if (auto healthy = await_health("a healthy cluster before a fault"); !healthy) return healthy;
  Healing healing;
  healing.fault = fault;
  healing.before = status_;
  healing.answers_before = answers_;
  std::vector<std::uint32_t> active;
  for (const SlotStatus& slot : status_.slots) {
    if (slot.active) active.push_back(slot.slot);
  }
  if (active.size() != service_.g + 1) return Error{fmt::format("{} slots are active before a fault", active.size())};
  healing.victim = fault.first_active ? active.front() : active.back();
  const std::uint64_t granted_from = summary_.users.requests;
  rate_ = std::max(kRateMin, static_cast<double>(requests) / kFaultSeconds);
  healing.start = Clock::now();
  if (auto injected = inject(healing); !injected) return injected;
  teller_.step(fmt::format(fmt::runtime(fault.what), healing.victim));
  const auto over = [&] {
    narrate(healing);
    return healed(healing);
  };
  const auto done = await(over, kHealLimit, fmt::format("the end of the fault {}", fault.kind));
  rate_ = 0;
  if (!done) return done;
  teller_.step(fmt::format("healed after {:.1f} s: {} replicas work, slot {} sleeps, ready for the next fault",
                           ms_since(healing.start) / 1'000.0, status_.active(), healing.victim));
  // The rest of this fault's share.
  const std::uint64_t made = summary_.users.requests - granted_from;
  if (made < requests) users_->grant(requests - made);
  if (auto worked = await([this] { return users_->idle(); }, kWorkLimit, "the end of the requests"); !worked)
    return worked;
  teller_.step(fmt::format("{} requests until now, every reply correct", with_commas(summary_.users.requests)));
  return {};
}

void DemoTour::narrate(Healing& h) {
  const auto after = [&] { return fmt::format("{:.0f} ms after the fault", ms_since(h.start)); };
  if (!h.noticed && status_.divergences > h.before.divergences) {
    h.noticed = true;
    teller_.step(fmt::format("{} ({}, near batch {})", h.fault.noticed, after(), status_.ordered));
  }
  if (!h.woken && status_.wakes > h.before.wakes) {
    h.woken = true;
    std::string sleepers;
    for (const SlotStatus& slot : h.before.slots) {
      if (!slot.active) sleepers += fmt::format("{}{}", sleepers.empty() ? "" : ", ", slot.slot);
    }
    teller_.step(fmt::format("{} nodes asked for it: the sleeping replica in slot {} was woken", run_.cluster().f + 1,
                             sleepers));
    teller_.detail(fmt::format("it replays the {} batches ordered so far, then votes", status_.ordered));
  }
  // Nodes list a bounded number of settled batches: a full list cannot grow.
  const bool listed =
      status_.settled > h.before.settled ||
      (h.before.settled >= agreement::IncidentLog::kIncidentsMax && status_.evictions > h.before.evictions);
  if (!h.settled && h.woken && listed) {
    h.settled = true;
    const std::uint64_t longest = longest_since(h.answers_before, answers_, service_.name);
    teller_.step(fmt::format("{} equal votes again, {:.0f} ms after the nodes noticed: users get the right answer",
                             service_.g + 1, rounded_ms(longest)));
  }
  const SlotStatus* victim = status_.find(h.victim);
  const SlotStatus* victim_before = h.before.find(h.victim);
  if (!h.evicted && status_.evictions > h.before.evictions) {
    h.evicted = true;
    std::string active;
    for (const SlotStatus& slot : status_.slots) {
      if (slot.active) active += fmt::format("{}{}", active.empty() ? "" : " and ", slot.slot);
    }
    teller_.step(fmt::format("slot {} is evicted by an ordered decision (epoch {}); the work is done by {}", h.victim,
                             status_.epoch, active));
  }
  if (!h.renewed && h.evicted && victim != nullptr && victim_before != nullptr &&
      victim->incarnation > victim_before->incarnation) {
    h.renewed = true;
    teller_.step(fmt::format("slot {} is made anew as incarnation {}: fresh process, fresh state, fresh key", h.victim,
                             victim->incarnation));
  }
}

bool DemoTour::healed(const Healing& h) const {
  return h.noticed && h.woken && h.settled && h.evicted && h.renewed && is_healthy();
}

bool DemoTour::is_healthy() const {
  return count_serving() == service_.g + 1 && status_.active() == service_.g + 1 && count_asleep() == service_.g;
}

std::size_t DemoTour::count_serving() const {
  return static_cast<std::size_t>(std::count_if(status_.slots.begin(), status_.slots.end(),
                                                [](const SlotStatus& s) { return s.active && s.connected; }));
}

Result<void> DemoTour::await_health(std::string_view what) {
  answers_.clear();
  return await([this] { return answers_.size() == run_.cluster().nodes.size() && is_healthy(); }, kHealLimit, what);
}

Result<void> DemoTour::last_look() {
  teller_.headline("At the end");
  users_->grant_read_back();
  if (auto read = await([this] { return users_->idle(); }, kWorkLimit, "the users' last look at their files"); !read)
    return read;
  teller_.step(fmt::format("every user has read back all its files: {} requests in all, over {} connections",
                           with_commas(summary_.users.requests), users_->connections()));
  if (auto healthy = await_health("the last word of all nodes"); !healthy) return healthy;
  summary_.active_after = count_serving();
  summary_.asleep_after = count_asleep();
  return {};
}

}  // namespace zz::apps
