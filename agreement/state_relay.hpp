#pragma once

// StateRelay: how an agreement node passes state from one executor to another (docs/protocol.md §10). FETCH-STATE goes
// on to the slot that it names, STATE-PARTS come back to the slot that asked. The node looks at sizes only: the asker
// verifies every part, and reckons with nodes that change them.
//
// One thread; time is handed in; no IO. Held: per executor kOutstandingMax questions without what they asked for, about
// 100 bytes each. Answers are passed on at once: what waits for a slow asker is bounded by bytes_per_second and the
// channel's own queue.
//
// Invariants:
//  1. Tickets are this node's own: a source cannot tell who asks, nor answer anything but what it was asked, once.
//  2. A question that cannot be passed on, or whose source goes or answers wrongly, is answered at once with no parts,
//     so that the asker tries elsewhere. One whose source is silent expires without an answer.
//  3. An asker gets at most bytes_per_second on average and burst_bytes at once; a question reserves what its answer
//     may weigh.

#include <cstdint>
#include <map>
#include <utility>
#include <variant>
#include <vector>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

struct StateRelayOutput {
  struct Item {
    SlotId to;
    Incarnation incarnation;  // of that channel
    std::variant<FetchState, StateParts> message;
  };
  std::vector<Item> to_executor;
};

class StateRelay {
 public:
  static constexpr std::size_t kOutstandingMax = 32;  // per asker: twice what a correct one has in flight

  struct Options {
    std::uint32_t slots = 3;  // 2g+1
    // Per asker. A correct one asks for less and spreads it over the nodes; of a faulty one it is what this node lets
    // it take from its link and from the sources.
    std::uint64_t bytes_per_second = 64u << 20;
    std::uint64_t burst_bytes = 32u << 20;
    Micros expiry{30'000'000};  // longer than any asker's patience
  };
  struct Stats {
    std::uint64_t passed = 0;   // answers with parts
    std::uint64_t bytes = 0;    // of these
    std::uint64_t empty = 0;    // answers without, a source's or this node's
    std::uint64_t expired = 0;  // questions
    RefusalCounts refused;
  };

  explicit StateRelay(const Options& options);

  // Monotonic time now.
  void tick(Micros now);
  // That slot's channel is there, as this incarnation / is lost. Another incarnation's coming up ends the one before.
  void channel_up(SlotId slot, Incarnation incarnation);
  void channel_down(SlotId slot);

  // From an executor's channel. Unless the channel itself is unknown, what is refused was answered with no parts.
  // kUnknownSlot, kStaleIncarnation: not that channel, or no such source; kMalformed: asks itself, nothing, or more
  // than may be asked for at once; kQueueFull, kQuota: too much at once; kNotReady: the source is not connected.
  Refusal request(SlotId asker, Incarnation incarnation, FetchState wish);
  // kNotWanted: that source was not asked; kOversize: more than was asked for.
  Refusal answer(SlotId source, Incarnation incarnation, StateParts parts);

  [[nodiscard]] StateRelayOutput take_output() { return std::exchange(out_, {}); }
  [[nodiscard]] std::size_t outstanding() const { return entries_.size(); }
  [[nodiscard]] const Stats& stats() const { return stats_; }

 private:
  struct Slot {
    Incarnation incarnation;  // 0: no channel
    std::size_t outstanding = 0;
    std::uint64_t allowance = 0;  // bytes
  };
  struct Entry {
    SlotId asker;
    SlotId source;
    std::uint64_t ticket = 0;  // the asker's
    std::uint64_t bytes_max = 0;
    std::size_t parts_max = 0;
    Micros expires_at;
  };
  using Entries = std::map<std::uint64_t, Entry>;

  [[nodiscard]] bool is_channel(SlotId slot, Incarnation incarnation) const;
  Refusal check(SlotId asker, const FetchState& wish, const Entry& entry) const;
  Refusal refuse(Refusal why);
  void send(SlotId to, std::variant<FetchState, StateParts> message);
  // Ends it; `unused` bytes of what it reserved are given back.
  Entries::iterator end(Entries::iterator entry, std::uint64_t unused);

  Options options_;
  Micros now_;
  std::vector<Slot> slots_;
  Entries entries_;  // by this node's ticket: the oldest first
  std::uint64_t ticket_ = 0;
  StateRelayOutput out_;
  Stats stats_;
};

}  // namespace zz::agreement
