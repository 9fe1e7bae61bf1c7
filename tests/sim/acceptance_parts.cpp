#include "tests/sim/acceptance_parts.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

namespace zz::sim {

namespace {

using nlohmann::json;

constexpr unsigned kSeedSeconds = 300;  // of real time: then it hangs
constexpr std::size_t kShown = 5;       // failures with their text

// ---- which seeds -----------------------------------------------------------------------------------------------

struct Wanted {
  std::optional<std::uint64_t> count;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> range;
  bool all = false;
};

std::uint64_t number(std::string_view text) {
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) {
    std::fprintf(stderr, "ZZ_ACCEPTANCE_SEEDS wants a number, A..B or all\n");
    std::exit(2);
  }
  return out;
}

Wanted wanted() {
  const char* value = std::getenv("ZZ_ACCEPTANCE_SEEDS");
  Wanted out;
  if (value == nullptr || *value == '\0') return out;
  const std::string_view text = value;
  const std::size_t dots = text.find("..");
  if (text == "all") {
    out.all = true;
  } else if (dots != std::string_view::npos) {
    out.range = std::pair(number(text.substr(0, dots)), number(text.substr(dots + 2)));
  } else {
    out.count = number(text);
  }
  return out;
}

std::vector<std::uint64_t> from_to(std::uint64_t from, std::uint64_t to) {
  std::vector<std::uint64_t> out;
  for (std::uint64_t seed = from; seed <= to; ++seed) out.push_back(seed);
  return out;
}

// ---- one child -------------------------------------------------------------------------------------------------

struct Child {
  pid_t pid = -1;
  FILE* from = nullptr;
  std::vector<std::uint64_t> seeds;  // still to come
};

// A line of JSON per seed.
void work(int out, const std::vector<std::uint64_t>& seeds, const Case& one) {
  FILE* file = ::fdopen(out, "w");
  for (const std::uint64_t seed : seeds) {
    ::alarm(kSeedSeconds);
    const Outcome outcome = one(seed);
    const std::string line =
        json{{"failure", outcome.failure}, {"counters", outcome.counters}, {"figures", outcome.figures}}.dump();
    std::fprintf(file, "%s\n", line.c_str());
    std::fflush(file);
  }
  std::fclose(file);
  std::fflush(stdout);
  ::_exit(0);
}

void hire(Child& child, const Case& one) {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) std::abort();
  std::fflush(stdout);
  child.pid = ::fork();
  if (child.pid < 0) std::abort();
  if (child.pid == 0) {
    ::close(pipe[0]);
    work(pipe[1], child.seeds, one);
  }
  ::close(pipe[1]);
  child.from = ::fdopen(pipe[0], "r");
}

std::optional<std::string> read_line(FILE* file) {
  char* text = nullptr;
  std::size_t room = 0;
  const ssize_t got = ::getline(&text, &room, file);
  std::optional<std::string> out;
  if (got > 0 && text[got - 1] == '\n') out = std::string(text, static_cast<std::size_t>(got - 1));
  std::free(text);
  return out;
}

// How it ended, as text.
std::string dismiss(Child& child) {
  std::fclose(child.from);
  child.from = nullptr;
  int status = 0;
  while (::waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) {
    return WTERMSIG(status) == SIGALRM ? "the run does not end"
                                       : "the run ended by signal " + std::to_string(WTERMSIG(status));
  }
  return "the run ended with status " + std::to_string(WEXITSTATUS(status));
}

}  // namespace

// ---- outcomes --------------------------------------------------------------------------------------------------

void Outcome::add(const RunResult& result) {
  if (result.violation) fail(*result.violation);
  for (const auto& [name, value] : result.counters) count(name, value);
  figures["requests"] += static_cast<std::int64_t>(result.answered);
}

void Outcome::fail(std::string what) {
  if (failure.empty()) failure = std::move(what);
}

void Outcome::at_most(const std::string& name, std::int64_t value, std::int64_t bound) {
  figures[name] = value;
  if (value > bound) fail(name + " is " + std::to_string(value) + ", more than " + std::to_string(bound));
}

void Outcome::at_least(const std::string& name, std::int64_t value, std::int64_t bound) {
  figures[name] = value;
  if (value < bound) fail(name + " is " + std::to_string(value) + ", less than " + std::to_string(bound));
}

// ---- sweeps ----------------------------------------------------------------------------------------------------

Sweep::Sweep(std::uint64_t usual, const Case& one) {
  const Wanted want = wanted();
  whole_ = !want.range;
  run(want.range ? from_to(want.range->first, want.range->second) : from_to(1, want.count.value_or(usual)), one);
}

Sweep::Sweep(std::uint64_t total, std::uint64_t usual, const Case& one) {
  const Wanted want = wanted();
  whole_ = !want.range;
  if (want.range) {
    run(from_to(want.range->first, want.range->second), one);
    return;
  }
  const std::uint64_t count = std::min(total, want.all ? total : want.count.value_or(usual));
  // A step without a common divisor visits every point once, and any part of the way is spread over all.
  std::uint64_t step = total * 618 / 1'000 + 1;
  while (std::gcd(step, total) != 1) ++step;
  std::vector<std::uint64_t> points;
  for (std::uint64_t i = 0; i < count; ++i) points.push_back(i * step % total);
  run(points, one);
}

void Sweep::run(const std::vector<std::uint64_t>& seeds, const Case& one) {
  seeds_ = seeds.size();
  std::vector<Child> children(
      std::min<std::size_t>(seeds.size(), static_cast<std::size_t>(::sysconf(_SC_NPROCESSORS_ONLN))));
  for (std::size_t i = 0; i < seeds.size(); ++i) children[i % children.size()].seeds.push_back(seeds[i]);
  for (Child& child : children) hire(child, one);
  // One line of each in turn: none waits long until its pipe is read.
  for (std::size_t i = 0; i < seeds.size(); ++i) {
    Child& child = children[i % children.size()];
    child.seeds.erase(child.seeds.begin());
    if (const auto line = read_line(child.from)) {
      take(seeds[i], *line);
    } else {
      failures_.emplace_back(seeds[i], dismiss(child));
      hire(child, one);
    }
  }
  for (Child& child : children) dismiss(child);
  report();
}

void Sweep::take(std::uint64_t seed, const std::string& line) {
  const json outcome = json::parse(line);
  const auto failure = outcome.at("failure").get<std::string>();
  if (!failure.empty()) failures_.emplace_back(seed, failure);
  for (const auto& [name, value] : outcome.at("counters").items()) {
    sim::count(counters_, name, value.get<std::uint64_t>());
  }
  for (const auto& [name, value] : outcome.at("figures").items()) {
    const auto figure = value.get<std::int64_t>();
    const auto [at, first] = figures_.try_emplace(name, Range{figure, figure});
    at->second = {std::min(at->second.least, figure), std::max(at->second.most, figure)};
  }
}

void Sweep::report() const {
  testing::Test::RecordProperty("seeds", std::to_string(seeds_));
  testing::Test::RecordProperty("failed", std::to_string(failures_.size()));
  for (const auto& [name, range] : figures_) {
    testing::Test::RecordProperty(name, std::to_string(range.least) + ".." + std::to_string(range.most));
  }
  const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
  std::size_t shown = 0;
  for (const auto& [seed, what] : failures_) {
    if (++shown > kShown) break;
    ADD_FAILURE() << "seed " << seed << ": " << what << "\n  replay: ZZ_ACCEPTANCE_SEEDS=" << seed << ".." << seed
                  << " acceptance_test --gtest_filter=Acceptance." << test;
  }
  if (failures_.size() > kShown) ADD_FAILURE() << failures_.size() << " of " << seeds_ << " seeds failed";
}

std::uint64_t Sweep::counted(std::string_view name) const {
  std::uint64_t sum = 0;
  for (auto it = counters_.lower_bound(name); it != counters_.end() && it->first.starts_with(name); ++it) {
    if (it->first == name || name.ends_with('.')) sum += it->second;
  }
  return sum;
}

void Sweep::happened(std::initializer_list<std::string_view> names) const {
  if (!whole_) return;
  for (const std::string_view name : names) {
    EXPECT_GT(counted(name), 0u) << name << " never happened: this case has tested nothing";
  }
}

// ---- records ---------------------------------------------------------------------------------------------------

namespace {

// Stands before the witness and writes down what passes.
class Tap final : public Witness {
 public:
  Tap(std::unique_ptr<Witness> witness, Record& record) : witness_(std::move(witness)), record_(record) {}

  void sent(Micros now, const Parcel& parcel) override {
    if (record_.on_sent) record_.on_sent(now, parcel);
    witness_->sent(now, parcel);
  }
  void persisted(NodeId node, const agreement::LogRecord& record, bool synced) override {
    witness_->persisted(node, record, synced);
    if (record_.on_persisted) record_.on_persisted(node, record, synced);
  }
  void delivered(NodeId node, const agreement::Delivery& delivery) override {
    witness_->delivered(node, delivery);
    if (record_.on_delivered) record_.on_delivered(node, delivery);
  }
  void observed(Micros now, const Event& event) override {
    if (event.kind == EventKind::kViewLeft) record_.left.push_back({now, event.node, event.view});
    if (event.kind == EventKind::kViewEntered) record_.entered.push_back({now, event.node, event.view});
    record_.note(now, event);
    witness_->observed(now, event);
  }
  void node_restarted(NodeId node, bool amnesiac) override { witness_->node_restarted(node, amnesiac); }
  void submitted(Micros now, ClientId client, SessionId session, RequestNumber request,
                 const SharedBytes& op) override {
    record_.note_submitted(now, client, session, request);
    witness_->submitted(now, client, session, request, op);
  }
  void accepted(Micros now, ClientId client, SessionId session, RequestNumber request,
                const SharedBytes& reply) override {
    record_.note_accepted(now, client, session, request);
    witness_->accepted(now, client, session, request, reply);
  }
  void executed(SlotId slot, Incarnation incarnation, Seq n, const std::vector<Digest>& replies,
                const Digest& state) override {
    witness_->executed(slot, incarnation, n, replies, state);
  }
  void adopted(SlotId slot, Incarnation incarnation, const agreement::CertificatePtr& certificate) override {
    record_.adopted.push_back({slot, incarnation, certificate->state.n});
    witness_->adopted(slot, incarnation, certificate);
  }
  void replays(SlotId slot, Incarnation incarnation) override { witness_->replays(slot, incarnation); }
  void goes_on(SlotId slot, Incarnation incarnation, Seq n) override { witness_->goes_on(slot, incarnation, n); }
  void woken(Micros now, SlotId slot, Incarnation incarnation) override {
    record_.woken.push_back({now, slot, incarnation, record_.epoch});
    witness_->woken(now, slot, incarnation);
  }
  void channel(Micros now, NodeId node, SlotId slot, Incarnation incarnation, bool up) override {
    witness_->channel(now, node, slot, incarnation, up);
  }
  [[nodiscard]] std::optional<std::string> violation() const override { return witness_->violation(); }
  [[nodiscard]] std::optional<std::string> open_complaint(const std::set<NodeId>& core, Micros before) const override {
    return witness_->open_complaint(core, before);
  }
  [[nodiscard]] std::optional<std::string> needless_change(const std::set<NodeId>& core, Micros since) const override {
    return witness_->needless_change(core, since);
  }
  [[nodiscard]] std::optional<std::string> final_violation() override { return witness_->final_violation(); }

 private:
  std::unique_ptr<Witness> witness_;
  Record& record_;
};

}  // namespace

void Record::note(Micros now, const Event& event) {
  switch (event.kind) {
    case EventKind::kDiverged:
      signs.push_back({now, event.n, std::string(event.why)});
      break;
    case EventKind::kEpochChanged:
      epoch = std::max(epoch, event.epoch);
      break;
    case EventKind::kEvicted: {
      const auto same = [&](const Evicted& one) {
        return one.slot == event.slot && one.incarnation == event.incarnation;
      };
      if (std::none_of(evicted.begin(), evicted.end(), same)) {
        evicted.push_back({now, event.slot, event.incarnation, std::string(event.why)});
      }
      break;
    }
    case EventKind::kNotDeterministic:
      alarms.insert(event.node);
      break;
    default:
      break;
  }
}

std::uint64_t Record::episodes() const {
  std::set<Epoch> epochs;
  for (const Woken& one : woken) epochs.insert(one.epoch);
  return epochs.size();
}

void Record::note_submitted(Micros now, ClientId client, SessionId session, RequestNumber number) {
  open_[{session, number}] = requests.size();
  requests.push_back({client, now, std::nullopt});
  replies_.emplace_back(now.value, false);
}

void Record::note_accepted(Micros now, ClientId, SessionId session, RequestNumber number) {
  const auto found = open_.find({session, number});
  if (found == open_.end()) return;
  requests[found->second].accepted = now;
  open_.erase(found);
  replies_.emplace_back(now.value, true);
}

std::int64_t Record::stall(Micros from, Micros to) const {
  std::int64_t longest = 0;
  std::int64_t since = 0;
  std::uint64_t open = 0;
  const auto end_at = [&](std::int64_t time) {
    if (open > 0) longest = std::max(longest, std::min(time, to.value) - std::max(since, from.value));
  };
  for (const auto& [time, reply] : replies_) {
    if (reply) {
      end_at(time);
      --open;
      since = time;
    } else if (open++ == 0) {
      since = time;
    }
  }
  end_at(to.value);
  return longest;
}

std::uint64_t Record::accepted(Micros from, Micros to) const {
  return static_cast<std::uint64_t>(std::count_if(replies_.begin(), replies_.end(), [&](const auto& entry) {
    return entry.second && entry.first >= from.value && entry.first <= to.value;
  }));
}

std::uint64_t Record::changes(NodeId node, Micros from, Micros to) const {
  return static_cast<std::uint64_t>(std::count_if(left.begin(), left.end(), [&](const ViewEvent& event) {
    return event.node == node && event.at >= from && event.at <= to;
  }));
}

std::uint64_t Record::most_changes(Micros from, Micros to) const {
  std::uint64_t most = 0;
  std::set<NodeId> nodes;
  for (const ViewEvent& event : left) nodes.insert(event.node);
  for (const NodeId node : nodes) most = std::max(most, changes(node, from, to));
  return most;
}

std::vector<std::int64_t> Record::latencies(Micros from, Micros to, std::optional<ClientId> client) const {
  std::vector<std::int64_t> out;
  for (const Request& request : requests) {
    if (client && request.client != *client) continue;
    if (request.submitted < from || request.submitted > to) continue;
    out.push_back(request.accepted.value_or(to).value - request.submitted.value);
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<ClientId> Record::clients() const {
  std::set<ClientId> out;
  for (const Request& request : requests) out.insert(request.client);
  return {out.begin(), out.end()};
}

std::int64_t percentile(const std::vector<std::int64_t>& ascending, std::uint32_t percent) {
  return ascending.empty() ? 0 : ascending[(ascending.size() - 1) * percent / 100];
}

// ---- runs ------------------------------------------------------------------------------------------------------

RunResult run(Plan plan, Record& record) {
  const auto setup = std::move(plan.setup);
  plan.setup = [&](World& world) {
    world.kernel().witness = std::make_unique<Tap>(std::move(world.kernel().witness), record);
    if (setup) setup(world);
  };
  if (std::getenv("ZZ_ACCEPTANCE_TRACE") != nullptr) plan.trace = stdout;
  return run(plan);
}

Outcome outcome_of(Plan plan) {
  Record record;
  return Outcome(run(std::move(plan), record));
}

void interfere(World& world, Rule rule, Micros until) {
  world.network().set_filter([&world, rule = std::move(rule)](const Parcel& parcel) {
    const Micros what = rule(parcel);
    if (what.value == 0) return false;
    const auto from = world.network().party_of(parcel.from);
    const auto to = world.network().party_of(parcel.to);
    if (what != kLost && from && to) {
      // Not sent again: it was sent once, and is only under way for longer.
      world.after(what, [from = *from, to = *to, message = parcel.message](World& later) {
        if (later.network().up(from, to)) later.deliver(from, to, message);
      });
    }
    return true;
  });
  world.at(until, [](World& later) { later.network().set_filter(nullptr); });
}

void every(World& world, Micros period, Micros from, Micros until, std::function<void(World&)> action) {
  world.at(from, [=](World& now) {
    action(now);
    const Micros next{from.value + period.value};
    if (next <= until) every(now, period, next, until, action);
  });
}

Plan calm(std::uint64_t seed) {
  Plan plan;
  plan.seed = seed;
  plan.requests = 150;
  plan.faults.emplace();
  plan.gst = Micros{8 * kSecond};
  plan.end_at_least = Micros{12 * kSecond};
  return plan;
}

Plan busy(std::uint64_t seed, std::int64_t time, std::uint32_t per_second) {
  Plan plan = calm(seed);
  plan.clients = 4;
  plan.requests = static_cast<std::uint32_t>(time / kSecond) * per_second;
  plan.gst = Micros{time};
  plan.liveness = false;
  plan.setup = fast_network;
  return plan;
}

void fast_network(World& world) {
  Weather weather = world.network().weather();
  weather.delay_min = 500;
  weather.delay_max = 2 * kMs;
  world.network().set_weather(weather);
}

void short_hedge(crypto::ClusterFile& cluster) { cluster.timing.hedge_ms = 10; }

}  // namespace zz::sim
