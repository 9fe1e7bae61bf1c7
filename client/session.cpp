#include "client/session.hpp"

#include <bit>
#include <limits>

namespace zz::client {
namespace {

using agreement::Acks;
using agreement::Rejected;
using agreement::Requests;

constexpr std::size_t kMessageItemsMax = 256;
constexpr Micros kNever{std::numeric_limits<std::int64_t>::max()};
constexpr std::uint32_t kDoublingsMax = 16;

Micros operator+(Micros a, Micros b) { return Micros{a.value + b.value}; }

Micros doubled(Micros base, std::uint32_t times, Micros max) {
  return Micros{std::min(base.value << std::min(times, kDoublingsMax), max.value)};
}

// The node could not take it now; everything else is its last word.
bool is_busy(Refusal reason) {
  return reason == Refusal::kQueueFull || reason == Refusal::kQuota || reason == Refusal::kOutOfWindow ||
         reason == Refusal::kNotReady;
}

}  // namespace

std::string_view to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::kReply:
      return "reply";
    case Outcome::kRejected:
      return "rejected";
    case Outcome::kTimedOut:
      return "timed out";
  }
  return "unknown";
}

Session::Session(const SessionConfig& config) : config_(config), nodes_(3 * config.f + 1), next_due_(kNever) {
  ZZ_ASSERT(config.f <= crypto::kFaultsMax && config.window > 0);
  ring_.resize(config.window);
  words_.resize(static_cast<std::size_t>(config.window) * nodes_);
  reasons_.resize(static_cast<std::size_t>(config.window) * nodes_);
  to_one_.resize(nodes_);
}

Session::Entry* Session::find(RequestNumber number) {
  if (number.value <= low_ || number.value >= next_) return nullptr;
  Entry& entry = ring_[number.value % config_.window];
  return entry.open ? &entry : nullptr;
}

Digest& Session::word_of(std::uint64_t number, std::uint32_t node) {
  return words_[number % config_.window * nodes_ + node];
}
Refusal& Session::reason_of(std::uint64_t number, std::uint32_t node) {
  return reasons_[number % config_.window * nodes_ + node];
}

// ---- sending
// ---------------------------------------------------------------------------------------------------------

std::optional<RequestNumber> Session::submit(SharedBytes op) {
  if (!has_room()) return std::nullopt;
  const RequestNumber number{next_++};
  Entry& entry = ring_[number.value % config_.window];
  entry = Entry{};
  entry.open = true;
  entry.op = std::move(op);
  entry.sent = now_;
  entry.deadline = now_ + config_.timeout;
  entry.resend = now_ + retransmit_delay(0);
  set_due(std::min(entry.resend, entry.deadline));
  to_all_.push_back({number, 0, entry.op});
  ++outstanding_;
  ++stats_.submitted;
  return number;
}

void Session::channel_up(NodeId node) {
  if (node.value >= nodes_) return;
  for (std::uint64_t number = low_ + 1; number < fresh_from_; ++number) {
    Entry* entry = find(RequestNumber{number});
    if (entry == nullptr || (entry->acked >> node.value & 1) != 0) continue;
    entry->busy &= ~(1u << node.value);
    to_one_[node.value].push_back({RequestNumber{number}, 0, entry->op});
  }
}

// ---- what nodes say
// --------------------------------------------------------------------------------------------------

Refusal Session::step(NodeId from, const Acks& acks) {
  if (from.value >= nodes_ || acks.session != config_.id) return Refusal::kMalformed;
  Refusal first = Refusal::kNone;
  for (const Acks::Item& item : acks.items) {
    const Refusal refusal = take(from, item);
    if (first == Refusal::kNone) first = refusal;
  }
  return first;
}

Refusal Session::take(NodeId from, const Acks::Item& item) {
  const std::uint64_t number = item.number.value;
  if (number == 0 || number >= next_) return Refusal::kOutOfWindow;
  Entry* entry = find(item.number);
  if (entry == nullptr) return Refusal::kNone;  // completed without this one
  const std::uint32_t bit = 1u << from.value;
  Digest& word = word_of(number, from.value);
  if ((entry->acked & bit) == 0) {
    if (entry->acked == 0) entry->first_ack = now_;
    entry->acked |= bit;
    entry->busy &= ~bit;
    word = item.reply_digest;
  } else if (word != item.reply_digest) {
    ++stats_.conflicts;
    return Refusal::kConflict;
  }
  const Refusal refusal = item.has_body ? keep_body(number, *entry, item) : Refusal::kNone;
  judge(number, *entry, word);
  if (entry->open) plan_hedge(*entry);
  return refusal;
}

// One body is kept per request. It gives way to one with at least as many words for it, so the right one
// stays once f+1 nodes have named it.
Refusal Session::keep_body(std::uint64_t number, Entry& entry, const Acks::Item& item) {
  if (entry.has_body && entry.body_digest == item.reply_digest) return Refusal::kNone;
  if (agreement::reply_digest(item.body.view()) != item.reply_digest) {
    ++stats_.wrong_bodies;
    return Refusal::kConflict;
  }
  const bool better =
      !entry.has_body || count_equal(number, entry, item.reply_digest) >= count_equal(number, entry, entry.body_digest);
  if (better) {
    entry.has_body = true;
    entry.body = item.body;
    entry.body_digest = item.reply_digest;
  }
  return Refusal::kNone;
}

std::uint32_t Session::count_equal(std::uint64_t number, const Entry& entry, const Digest& digest) {
  std::uint32_t count = 0;
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    if ((entry.acked >> node & 1) != 0 && word_of(number, node) == digest) ++count;
  }
  return count;
}

void Session::judge(std::uint64_t number, Entry& entry, const Digest& digest) {
  if (!entry.has_body || entry.body_digest != digest) return;
  const std::uint32_t equal = count_equal(number, entry, digest);
  if (equal < config_.f + 1) return;
  stats_.conflicts += static_cast<std::uint32_t>(std::popcount(entry.acked)) - equal;
  learn_latency(entry);
  hedged_in_row_ = entry.tries > 0 ? hedged_in_row_ + 1 : 0;
  ++stats_.replies;
  complete(entry, {RequestNumber{number}, Outcome::kReply, std::move(entry.body), Refusal::kNone});
}

Refusal Session::step(NodeId from, const Rejected& rejected) {
  if (from.value >= nodes_ || rejected.session != config_.id) return Refusal::kMalformed;
  const auto reason = static_cast<Refusal>(rejected.reason);
  if (reason == Refusal::kNone || reason >= Refusal::kCount) return Refusal::kMalformed;
  const std::uint64_t number = rejected.number.value;
  if (number == 0 || number >= next_) return Refusal::kOutOfWindow;
  Entry* entry = find(rejected.number);
  if (entry == nullptr) return Refusal::kNone;
  const std::uint32_t bit = 1u << from.value;
  if (is_busy(reason)) {
    ++stats_.busy;
    if (entry->busy == 0) entry->busy_resend = now_ + doubled(config_.busy, entry->busy_tries, config_.busy_max);
    entry->busy |= bit;
    set_due(entry->busy_resend);
    return Refusal::kNone;
  }
  if ((entry->rejected & bit) != 0) return Refusal::kDuplicate;
  entry->rejected |= bit;
  reason_of(number, from.value) = reason;
  std::uint32_t equal = 0;
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    if ((entry->rejected >> node & 1) != 0 && reason_of(number, node) == reason) ++equal;
  }
  if (equal >= config_.f + 1) {
    ++stats_.rejected;
    complete(*entry, {rejected.number, Outcome::kRejected, {}, reason});
  }
  return Refusal::kNone;
}

void Session::complete(Entry& entry, Completed result) {
  if (result.outcome != Outcome::kReply) ended_ = true;
  entry.open = false;
  entry.op = SharedBytes();
  entry.body = SharedBytes();
  --outstanding_;
  completed_.push_back(std::move(result));
}

// ---- time
// ------------------------------------------------------------------------------------------------------------

// Only undisturbed samples count (Karn and Partridge, SIGCOMM 1987), else delays would feed on themselves:
// the whole time of a request sent once, or the time to the first word of one that was hedged.
void Session::learn_latency(const Entry& entry) {
  std::int64_t sample = 0;
  if (entry.tries == 0) {
    sample = now_.value - entry.sent.value;
  } else if (entry.tries == 1 && entry.hedged) {
    sample = entry.first_ack.value - entry.sent.value;
  } else {
    return;
  }
  sample = std::min(sample, config_.retransmit.value);
  latency_.value += (sample - latency_.value) / 8;
}

Micros Session::retransmit_delay(std::uint32_t tries) const {
  const Micros base{std::max(config_.retransmit.value, 4 * latency_.value)};
  return doubled(base, tries, config_.retransmit_max);
}

// Called when a node has said that the request is closed. The rest of what we need should follow soon; a node
// that speaks before its time does not hurry us.
void Session::plan_hedge(Entry& entry) {
  if (entry.hedged) return;
  entry.hedged = true;
  const std::int64_t usual = std::max(now_.value, entry.sent.value + latency_.value);
  const bool expected = hedged_in_row_ >= kHedgesExpected;
  const Micros hedge{usual + (expected ? config_.hedge.value : std::max(config_.hedge.value, latency_.value))};
  entry.resend = std::min(entry.resend, hedge);
  set_due(entry.resend);
}

void Session::tick(Micros now) {
  now_ = std::max(now_, now);
  if (now_ < next_due_) return;
  next_due_ = kNever;
  const std::uint64_t end = next_;
  for (std::uint64_t number = low_ + 1; number < end; ++number) {
    if (Entry* entry = find(RequestNumber{number})) check(number, *entry);
  }
}

void Session::check(std::uint64_t number, Entry& entry) {
  if (now_ >= entry.deadline) {
    ++stats_.timed_out;
    complete(entry, {RequestNumber{number}, Outcome::kTimedOut, {}, Refusal::kNone});
    return;
  }
  if (now_ >= entry.resend) {
    ++(entry.acked != 0 ? stats_.hedges : stats_.retransmits);
    to_all_.push_back({RequestNumber{number}, 0, entry.op});
    entry.busy = 0;
    ++entry.tries;
    entry.resend = now_ + retransmit_delay(entry.tries - 1);
  }
  if (entry.busy != 0 && now_ >= entry.busy_resend) {
    for (std::uint32_t node = 0; node < nodes_; ++node) {
      if ((entry.busy >> node & 1) != 0) to_one_[node].push_back({RequestNumber{number}, 0, entry.op});
    }
    entry.busy = 0;
    ++entry.busy_tries;
  }
  set_due(std::min(entry.resend, entry.deadline));
  if (entry.busy != 0) set_due(entry.busy_resend);
}

// ---- output
// ----------------------------------------------------------------------------------------------------------

bool Session::has_output() const {
  return !to_all_.empty() || !completed_.empty() ||
         std::any_of(to_one_.begin(), to_one_.end(), [](const auto& items) { return !items.empty(); });
}

void Session::emit(std::vector<SessionOutput::Send>& out, std::optional<NodeId> to,
                   std::vector<Requests::Item>& items) const {
  std::size_t bytes = 0;
  Requests* message = nullptr;
  for (Requests::Item& item : items) {
    const bool fits = message != nullptr && message->items.size() < kMessageItemsMax &&
                      bytes + item.op.size() <= config_.message_bytes_max;
    if (!fits) {
      message = &out.emplace_back(SessionOutput::Send{to, Requests{config_.id, {}}}).requests;
      message->items.reserve(std::min(items.size(), kMessageItemsMax));
      bytes = 0;
    }
    bytes += item.op.size();
    message->items.push_back(std::move(item));
  }
  items.clear();
}

SessionOutput Session::take_output() {
  SessionOutput out;
  emit(out.send, std::nullopt, to_all_);
  for (std::uint32_t node = 0; node < nodes_; ++node) {
    emit(out.send, NodeId{static_cast<std::uint16_t>(node)}, to_one_[node]);
  }
  fresh_from_ = next_;
  out.completed = std::move(completed_);
  completed_.clear();
  while (low_ + 1 < next_ && !ring_[(low_ + 1) % config_.window].open) ++low_;
  return out;
}

}  // namespace zz::client
