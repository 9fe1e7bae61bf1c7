#include "agreement/state_relay.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace zz::agreement {
namespace {

// A path is a root record, an inner node at each of 16 depths and an object; this is more than an encoding of either
// inner kind takes.
constexpr std::size_t kPathPartsMax = 18;
constexpr std::uint64_t kTreeBytesMax = 1'024;

std::uint64_t answer_bytes_max(const FetchState& wish) {
  std::uint64_t bytes = 0;
  for (const StateWant& want : wish.wants) bytes += std::min<std::uint64_t>(want.bytes_max, kStatePartBytesMax);
  bytes += wish.paths.size() * ((kPathPartsMax - 1) * kTreeBytesMax + kStatePartBytesMax);
  return std::min<std::uint64_t>(bytes, kStateBytesMax + kStatePartBytesMax);
}

}  // namespace

StateRelay::StateRelay(const Options& options)
    : options_(options), slots_(options.slots, Slot{{}, 0, options.burst_bytes}) {
  ZZ_ASSERT(options.burst_bytes >= kStateBytesMax + kStatePartBytesMax && options.expiry.value > 0);
}

void StateRelay::tick(Micros now) {
  constexpr std::int64_t kSecond = 1'000'000;
  const auto passed = static_cast<std::uint64_t>(std::clamp<std::int64_t>(now.value - now_.value, 0, kSecond));
  now_ = now;
  for (Slot& slot : slots_) {
    slot.allowance =
        std::min(options_.burst_bytes, slot.allowance + options_.bytes_per_second * passed / std::uint64_t{kSecond});
  }
  while (!entries_.empty() && entries_.begin()->second.expires_at <= now) {
    ++stats_.expired;
    end(entries_.begin(), 0);
  }
}

void StateRelay::channel_up(SlotId slot, Incarnation incarnation) {
  if (slot.value >= slots_.size()) return;
  channel_down(slot);
  slots_[slot.value].incarnation = incarnation;
}

void StateRelay::channel_down(SlotId slot) {
  if (slot.value >= slots_.size()) return;
  slots_[slot.value].incarnation = {};
  for (auto it = entries_.begin(); it != entries_.end();) {
    const Entry& entry = it->second;
    if (entry.asker != slot && entry.source != slot) {
      ++it;
      continue;
    }
    if (entry.asker != slot) send(entry.asker, StateParts{entry.ticket, {}});
    it = end(it, entry.bytes_max);
  }
}

bool StateRelay::is_channel(SlotId slot, Incarnation incarnation) const {
  return incarnation.value != 0 && slots_[slot.value].incarnation == incarnation;
}

StateRelay::Entries::iterator StateRelay::end(Entries::iterator entry, std::uint64_t unused) {
  Slot& asker = slots_[entry->second.asker.value];
  --asker.outstanding;
  asker.allowance = std::min(options_.burst_bytes, asker.allowance + unused);
  return entries_.erase(entry);
}

Refusal StateRelay::refuse(Refusal why) {
  stats_.refused.add(why);
  return why;
}

void StateRelay::send(SlotId to, std::variant<FetchState, StateParts> message) {
  if (const auto* parts = std::get_if<StateParts>(&message); parts != nullptr && parts->parts.empty()) ++stats_.empty;
  out_.to_executor.push_back({to, slots_[to.value].incarnation, std::move(message)});
}

Refusal StateRelay::check(SlotId asker, const FetchState& wish, const Entry& entry) const {
  const std::size_t asked = wish.wants.size() + wish.paths.size();
  if (asked == 0 || asked > kStateWantsMax || wish.source == asker) return Refusal::kMalformed;
  if (wish.source.value >= slots_.size()) return Refusal::kUnknownSlot;
  if (slots_[wish.source.value].incarnation.value == 0) return Refusal::kNotReady;
  const Slot& from = slots_[asker.value];
  if (from.outstanding >= kOutstandingMax) return Refusal::kQueueFull;
  return entry.bytes_max > from.allowance ? Refusal::kQuota : Refusal::kNone;
}

Refusal StateRelay::request(SlotId asker, Incarnation incarnation, FetchState wish) {
  if (asker.value >= slots_.size()) return refuse(Refusal::kUnknownSlot);
  if (!is_channel(asker, incarnation)) return refuse(Refusal::kStaleIncarnation);
  const Entry entry{.asker = asker,
                    .source = wish.source,
                    .ticket = wish.ticket,
                    .bytes_max = answer_bytes_max(wish),
                    .parts_max = wish.wants.size() + kPathPartsMax * wish.paths.size(),
                    .expires_at = Micros{now_.value + options_.expiry.value}};
  if (const Refusal why = check(asker, wish, entry); why != Refusal::kNone) {
    send(asker, StateParts{wish.ticket, {}});
    return refuse(why);
  }
  wish.ticket = ++ticket_;
  entries_.emplace(ticket_, entry);
  ++slots_[asker.value].outstanding;
  slots_[asker.value].allowance -= entry.bytes_max;
  send(entry.source, std::move(wish));
  return Refusal::kNone;
}

Refusal StateRelay::answer(SlotId source, Incarnation incarnation, StateParts parts) {
  if (source.value >= slots_.size()) return refuse(Refusal::kUnknownSlot);
  if (!is_channel(source, incarnation)) return refuse(Refusal::kStaleIncarnation);
  const auto it = entries_.find(parts.ticket);
  if (it == entries_.end() || it->second.source != source) return refuse(Refusal::kNotWanted);
  const Entry entry = it->second;
  std::uint64_t bytes = 0;
  bool fits = parts.parts.size() <= std::min(entry.parts_max, kStatePartsMax);
  if (fits) {
    for (const StatePart& part : parts.parts) {
      fits = fits && part.bytes.size() <= kStatePartBytesMax;
      bytes += part.bytes.size();
    }
    fits = fits && bytes <= entry.bytes_max;
  }
  if (!fits) {
    end(it, entry.bytes_max);
    send(entry.asker, StateParts{entry.ticket, {}});
    return refuse(Refusal::kOversize);
  }
  end(it, entry.bytes_max - bytes);
  stats_.bytes += bytes;
  stats_.passed += parts.parts.empty() ? 0 : 1;
  parts.ticket = entry.ticket;
  send(entry.asker, std::move(parts));
  return Refusal::kNone;
}

}  // namespace zz::agreement
