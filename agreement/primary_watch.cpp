#include "agreement/primary_watch.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace zz::agreement {
namespace {

constexpr std::uint32_t kDoublingsMax = 16;
constexpr std::int64_t kUsualFactor = 8;     // above the best, or the middle client
constexpr std::int64_t kInFlightFactor = 4;  // above the time from proposal to delivery
constexpr std::uint64_t kOrderedMin = 16;    // for shares to mean anything
constexpr std::uint32_t kGoodPeriods = 32;   // that halve what is tolerated
constexpr std::uint32_t kSlowWeight = 3;     // of a slow period, in good ones
constexpr std::uint32_t kSlowMax = 9;
constexpr std::int64_t kSystemTimeouts = 4;       // a system operation may stand behind others
constexpr std::int64_t kForgivenAfterBases = 64;  // one lasting strike

}  // namespace

std::string_view to_string(Complaint complaint) {
  switch (complaint) {
    case Complaint::kSilent:
      return "silent";
    case Complaint::kHeld:
      return "held";
    case Complaint::kSlow:
      return "slow";
    case Complaint::kUnfair:
      return "unfair";
    case Complaint::kNoNewView:
      return "no new view";
  }
  return "unknown";
}

void PrimaryWatch::Wait::sight(Span now, bool excused) {
  if (!waits) {
    since = seen = now;
    inexcusable = 0;
  }
  if (!excused) {
    inexcusable += now - seen;
    in_period += now - seen;
  }
  waits = true;
  seen = now;
}

void PrimaryWatch::Wait::end() {
  if (!waits) return;
  sum += inexcusable;
  ++ended;
  waits = false;
}

void PrimaryWatch::Wait::drop() {
  if (!waits) return;
  in_period -= std::min(inexcusable, in_period);
  waits = false;
}

PrimaryWatch::PrimaryWatch(const Config& config) : config_(config) {
  ZZ_ASSERT(config.base.value > 0 && config.max >= config.base && config.nodes > 0);
}

Micros PrimaryWatch::timeout_at(std::uint32_t doublings) const {
  return std::min(config_.max, Micros{config_.base.value << doublings});
}

// ---- views -----------------------------------------------------------------------------------------------------

void PrimaryWatch::entered(View view) {
  if (phase_ == Phase::kIn && view != view_ && last_tick_) close_view();
  view_ = view;
  phase_ = Phase::kIn;
  begin_anew();
}

void PrimaryWatch::left(View view) {
  close_view();
  view_ = view;
  phase_ = Phase::kLeft;
  begin_anew();
}

void PrimaryWatch::backed() {
  if (phase_ != Phase::kLeft) return;
  phase_ = Phase::kBacked;
  backed_at_ = clock_;
}

void PrimaryWatch::close_view() {
  if (!steady_ && doublings_ < kDoublingsMax && timeout() < config_.max) ++doublings_;
  if (best_) best_of_[next_best_++ % best_of_.size()] = *best_;
  best_.reset();
}

void PrimaryWatch::begin_anew() {
  fired_ = false;
  steady_ = false;
  delivered_.reset();
  progress_.reset();
  delivery_ = {};
  system_ = {};
  gap_ = {};
  held_.reset();
  for (Client& client : clients_) {
    client.wait = {};
    client.account = {};
  }
  slowness_ = 0;
  stretch_since_ = clock_;
  stretch_delivered_ = false;
  longest_ = 0;
  begin_period();
}

void PrimaryWatch::begin_period() {
  period_since_ = clock_;
  in_flight_ = 0;
  batches_ = 0;
  gap_.begin_period();
  std::erase_if(clients_, [](const Client& client) {
    return !client.wait.waits && client.strikes.count == 0 && client.account.excess == 0;
  });
  last_client_ = 0;
  for (Client& client : clients_) {
    client.wait.begin_period();
    client.served = 0;
  }
}

// ---- clients ---------------------------------------------------------------------------------------------------

PrimaryWatch::Client& PrimaryWatch::client_of(ClientId id) {
  if (last_client_ < clients_.size() && clients_[last_client_].id == id) return clients_[last_client_];
  auto at = std::lower_bound(clients_.begin(), clients_.end(), id,
                             [](const Client& client, ClientId wanted) { return client.id < wanted; });
  if (at == clients_.end() || at->id != id) at = clients_.insert(at, Client{id, {}, {}, false, 0, {}, {}});
  last_client_ = static_cast<std::size_t>(at - clients_.begin());
  return *at;
}

bool PrimaryWatch::muted(const Strikes& strikes) const {
  if (strikes.count < config_.nodes) return false;
  const std::uint32_t doublings = std::min(strikes.count - config_.nodes, kDoublingsMax);
  return clock_ - strikes.at < kForgivenAfterBases * config_.base.value << doublings;
}

void PrimaryWatch::strike(Strikes& strikes) const {
  ++strikes.count;
  strikes.at = clock_;
  if (progress_ && clock_ - *progress_ < timeout().value / 2) strikes.lasting = true;
}

void PrimaryWatch::pardon(Strikes& strikes) const {
  if (strikes.count == 0) return;
  if (!strikes.lasting) {
    strikes = {};
  } else if (clock_ - strikes.at >= kForgivenAfterBases * config_.base.value) {
    strikes.at = clock_;
    if (--strikes.count == 0) strikes = {};
  }
}

void PrimaryWatch::ordered(ClientId client) {
  Client& c = client_of(client);
  ++c.served;
  pardon(c.strikes);
}

// ---- what is seen ----------------------------------------------------------------------------------------------

void PrimaryWatch::advance(Micros now, const Situation& situation) {
  const Span passed = last_tick_ ? now.value - last_tick_->value : 0;
  const Span step = std::clamp<Span>(passed, 0, config_.base.value / 2);
  last_tick_ = now;
  if (phase_ == Phase::kIn && situation.blocked) return;
  clock_ += step;
  in_flight_ += step * static_cast<Span>(situation.in_flight);
}

void PrimaryWatch::observe(const Situation& situation) {
  if (!delivered_) {
    delivered_ = situation.delivered;
    position_ = situation.position;
  }
  if (situation.delivered > *delivered_) {
    batches_ += situation.delivered.value - delivered_->value;
    delivered_ = situation.delivered;
    progress_ = clock_;
    stretch_delivered_ = true;
    longest_ = std::max(longest_, delivery_.age());
    delivery_.end();
  }
  const bool system = situation.system_waits && !situation.primary && !muted(system_strikes_);
  if (situation.in_flight > 0 || situation.gap || system) {
    delivery_.sight(clock_);
  } else {
    delivery_.end();
  }
  if (system) {
    system_.sight(clock_);
  } else {
    system_.end();
  }
  if (!situation.system_waits) pardon(system_strikes_);
  if (situation.gap) {
    gap_.sight(clock_, situation.excused);
  } else {
    gap_.end();
  }
  if (situation.held != held_) {
    held_ = situation.held;
    held_since_ = clock_;
  }
  observe_heads(situation.primary ? std::span<const Head>{} : situation.heads, situation);
}

void PrimaryWatch::observe_heads(std::span<const Head> heads, const Situation& situation) {
  for (const ClientId id : situation.given_up) {
    Client& client = client_of(id);
    if (client.alone) client.wait.drop();
  }
  std::size_t i = 0;
  for (std::size_t k = 0; k < heads.size(); ++k) {
    const Head& head = heads[k];
    for (; i < clients_.size() && clients_[i].id < head.client; ++i) end_wait(clients_[i]);
    if (i == clients_.size() || clients_[i].id != head.client) {
      clients_.insert(clients_.begin() + static_cast<std::ptrdiff_t>(i), Client{head.client, {}, {}, false, 0, {}, {}});
    }
    Client& client = clients_[i++];
    if (client.head != head) end_wait(client);
    client.head = head;
    client.alone = k < situation.alone.size() && situation.alone[k];
    client.wait.sight(clock_, situation.excused);
  }
  for (; i < clients_.size(); ++i) end_wait(clients_[i]);
}

void PrimaryWatch::end_wait(Client& client) {
  if (counts(client)) longest_ = std::max(longest_, client.wait.age());
  client.wait.end();
  client.alone = false;
}

// ---- what is made of it ----------------------------------------------------------------------------------------

std::optional<Complaint> PrimaryWatch::tick(Micros now, const Situation& situation) {
  advance(now, situation);
  std::optional<Complaint> complaint;
  if (phase_ == Phase::kIn) {
    observe(situation);
    if (fired_) return std::nullopt;
    if (silent()) {
      complaint = Complaint::kSilent;
    } else if (held_ && !situation.primary && clock_ - held_since_ >= config_.body_timeout.value) {
      complaint = Complaint::kHeld;
    } else {
      complaint = judge_period(situation);
      come_down();
    }
  } else if (phase_ == Phase::kBacked && !fired_ && clock_ - backed_at_ >= timeout().value) {
    complaint = Complaint::kNoNewView;
  }
  fired_ = fired_ || complaint.has_value();
  return complaint;
}

bool PrimaryWatch::silent() {
  const Span limit = timeout().value;
  bool fires = delivery_.age() >= limit;
  // It may be the operation's fault: one that this node alone finds due.
  if (system_.age() >= (fires ? limit : kSystemTimeouts * limit)) {
    strike(system_strikes_);
    fires = true;
  }
  for (Client& client : clients_) {
    if (client.wait.age() < limit || !counts(client)) continue;
    strike(client.strikes);
    fires = true;
  }
  return fires;
}

std::optional<Complaint> PrimaryWatch::judge_period(const Situation& situation) {
  if (clock_ - period_since_ < 2 * config_.base.value) return std::nullopt;
  std::optional<Complaint> complaint;
  const std::optional<Span> middle = middle_wait();
  // Without deliveries it is kSilent's business.
  if (!situation.primary && middle && batches_ > 0) {
    const Span in_flight = in_flight_ / static_cast<Span>(batches_);
    if (slow(*middle, in_flight)) {
      complaint = Complaint::kSlow;
    } else if (unfair(*middle, in_flight, situation.position - position_)) {
      complaint = Complaint::kUnfair;
    }
  }
  position_ = situation.position;
  begin_period();
  return complaint;
}

// Half of the clients at most can stretch it by sending to this node first.
std::optional<PrimaryWatch::Span> PrimaryWatch::middle_wait() const {
  std::vector<Span> waits;
  for (const Client& client : clients_) {
    if (muted(client.strikes) || (client.served == 0 && client.wait.ended == 0)) continue;
    // What waits now and then has not waited in vain.
    waits.push_back(client.wait.in_period >= config_.base.value / 2 ? client.wait.mean() : 0);
  }
  if (waits.empty()) return std::nullopt;
  const auto middle = waits.begin() + static_cast<std::ptrdiff_t>((waits.size() - 1) / 2);
  std::nth_element(waits.begin(), middle, waits.end());
  return *middle;
}

bool PrimaryWatch::slow(Span middle, Span in_flight) {
  if (gap_.in_period >= config_.base.value / 2) middle = std::max(middle, gap_.mean());
  std::optional<Span> best = best_;
  for (const std::optional<Span>& other : best_of_) {
    if (other && (!best || *other < *best)) best = other;
  }
  const Span usual = std::max({config_.base.value / 10, kUsualFactor * best.value_or(0), kInFlightFactor * in_flight});
  const bool is_slow = middle > usual << tolerance_;
  if (is_slow) {
    slowness_ += kSlowWeight;
  } else {
    slowness_ -= slowness_ > 0 ? 1u : 0u;
  }
  const bool fires = slowness_ >= kSlowMax;
  if (fires || !is_slow) best_ = std::min(best_.value_or(middle), middle);
  if (fires) {
    slowness_ = 0;
    tolerance_ = std::min(tolerance_ + 1, kDoublingsMax);
  }
  if (middle > usual) {
    good_periods_ = 0;
  } else if (++good_periods_ >= kGoodPeriods) {
    good_periods_ = 0;
    tolerance_ -= tolerance_ > 0 ? 1u : 0u;
  }
  return fires;
}

bool PrimaryWatch::unfair(Span middle, Span in_flight, std::uint64_t ordered) {
  const Span share = std::max({config_.base.value / 10, kUsualFactor * middle, kInFlightFactor * in_flight});
  const auto served = std::count_if(clients_.begin(), clients_.end(), [](const Client& c) { return c.served > 0; });
  bool fires = false;
  for (Client& client : clients_) {
    if (muted(client.strikes) || served == (client.served > 0 ? 1 : 0)) continue;
    const Wait& wait = client.wait;
    const Span unheard = wait.waits && client.alone ? std::min(wait.inexcusable, wait.in_period) : 0;
    const Span waited = wait.in_period - unheard;
    const Span times = std::max(client.served, wait.ended) + (wait.waits && !client.alone ? 1u : 0u);
    Account& account = client.account;
    account.excess += waited - share * times;
    if (account.excess <= 0) {
      account = {};
      continue;
    }
    account.ordered += ordered;
    ++account.periods;
    if (account.excess < 2 * config_.base.value || account.ordered < kOrderedMin || account.periods < 2) continue;
    account = {};
    strike(client.strikes);
    fires = true;
  }
  return fires;
}

void PrimaryWatch::come_down() {
  if (!stretch_delivered_ || clock_ - stretch_since_ < 2 * config_.base.value) return;
  steady_ = true;
  longest_ = std::max(longest_, delivery_.age());
  for (const Client& client : clients_) {
    if (counts(client)) longest_ = std::max(longest_, client.wait.age());
  }
  if (doublings_ > 0 && 2 * longest_ <= timeout_at(doublings_ - 1).value) --doublings_;
  stretch_since_ = clock_;
  stretch_delivered_ = false;
  longest_ = 0;
}

}  // namespace zz::agreement
