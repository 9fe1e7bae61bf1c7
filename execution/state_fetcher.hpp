#pragma once

// StateFetcher: how an executor gets the state that it adopted by its root digest alone (docs/protocol.md §10): what
// execution waits for at once, the rest in the background. It asks other slots for parts of their snapshot of a stable
// checkpoint, each question through some agreement node, and hands what comes to ObjectStore::supply.
//
//  source  a pair (node, slot): the slot answers, the node passes it on; either may be faulty. At most f nodes and g
//          slots are.
//  vain    said of a source that the last time brought less than half of what it should: it was silent, empty, or lied
//  hedge   what execution waits for and a source has not brought soon is asked of another one, too, once: a slot that
//          hangs is a source like any other until it was asked
//
// One thread, the store's; time is handed in; no IO. Held: kItemsMax parts that are wanted, kRequestsMax questions of
// each kind and kLateMax given up; no bytes of state, which go into the store as they come.
//
// Invariants:
//  1. Nothing is read but through ObjectStore::supply, which verifies it. A source is asked for no more than its answer
//     may weigh, and what is longer, or was not asked for, is not looked at.
//  2. A source that gave a wrong part is not asked again while any other is left. A node that did so with g+1 slots, or
//     a slot with f+1 nodes, is faulty, and none of its sources is asked.
//  3. A part is asked for a second time only when the first question was answered without it, or hedged, or given up;
//     a third time only after the patience. The answer to a question hedged or given up is taken all the same.
//  4. While every slot has been in vain through f+1 nodes (all there are, if fewer), `stale` was said and nothing is
//     asked for a while, longer each time unless something came: so no loop, whatever sources say.
//  5. What is on its way to execution, under whatever place, is not asked for again. Whenever such a question ends,
//     with or without it, `arrived` says so.
//  6. What is wanted in the background stays within bytes_per_second, and waits while something urgent does or it is
//     held.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

struct StateFetcherConfig {
  SlotId self;
  std::uint32_t f = 1;
  std::uint32_t g = 1;                         // at most 31
  std::uint64_t bytes_per_second = 64u << 20;  // in the background, of all nodes together
  // How long a source may take, at first; kPatienceBytes more give it a microsecond more. Doubled while it is silent.
  Micros patience{250'000};
  Micros patience_max{4'000'000};
  // After so long, or twice what the source took the last time, a question that execution waits for is hedged.
  Micros hedge{30'000};
};

struct StateFetcherOutput {
  std::vector<std::pair<NodeId, agreement::FetchState>> ask;
  // Something urgent came, did not come, or was forgotten: who waits tries again, and says want() again.
  bool arrived = false;
  bool complete = false;  // nothing of the head is absent. Once after each begin()
  bool stale = false;     // no source has what is wanted: adopt a newer certificate if there is one
};

struct StateFetcherStats {
  std::uint64_t requests = 0;
  std::uint64_t parts = 0;         // taken
  std::uint64_t bytes = 0;         // that came
  std::uint64_t urgent_bytes = 0;  // of these, because execution waited
  std::uint64_t lies = 0;          // answers with something wrong in them
  std::uint64_t empty = 0;
  std::uint64_t partial = 0;  // answers that brought less than half of what they should
  std::uint64_t hedged = 0;
  std::uint64_t silent = 0;  // questions given up
  std::uint64_t late = 0;    // hedged or given up, and answered after all
  std::uint64_t stale = 0;
};

class StateFetcher {
 public:
  static constexpr std::size_t kItemsMax = 16'384;
  static constexpr std::size_t kUrgentMax = 4'096;
  static constexpr std::size_t kRequestsMax = 8;  // in flight, urgent and others each
  static constexpr std::size_t kLateMax = 64;
  static constexpr std::uint64_t kRequestBytes = 256u << 10;  // that one question in the background asks for
  static constexpr std::uint64_t kInFlightBytesMax = 4u << 20;
  static constexpr std::int64_t kPatienceBytes = 4;
  // What a path is taken to weigh when a question is filled. It may weigh more; then the answer ends where it is full,
  // and the rest is asked for again.
  static constexpr std::uint64_t kPathBytesGuess = 16u << 10;

  // `store` must outlive it.
  StateFetcher(const StateFetcherConfig& config, state::ObjectStore& store);

  // Monotonic time now.
  void tick(Micros now);
  // The channel to that node is there / is lost. Others than 0..3f are ignored.
  void node_up(NodeId node);
  void node_down(NodeId node);
  // Nothing is looked for or asked in the background while it is held.
  void hold(bool held) { held_ = held; }

  // The store adopted the root of the stable checkpoint n: fetch all of it. What was wanted before is forgotten.
  void begin(Seq n);
  // Nothing is fetched any more: the head is another one, and whole.
  void end() {
    active_ = false;
    rebase({});
  }
  // The head has passed the stable checkpoint n, a later one, with the same root as the others: they keep that snapshot
  // longer, and what is absent here is the same there. Goes on with
  // it; what was wanted before is forgotten as well.
  void rebase(Seq n);
  // Execution waits for these (ReadOutcome::want and the like); not before begin(). Repeating them is harmless. Inner
  // nodes come with all that is below them on the way to Want::toward.
  void want(std::span<const state::Want> wants);

  // kNotWanted: nothing was asked, or not of that node; else the first thing that is wrong about the answer.
  Refusal step(NodeId from, const agreement::StateParts& answer);

  [[nodiscard]] StateFetcherOutput take_output();

  // Something that execution waits for is wanted, or on its way.
  [[nodiscard]] bool urgent() const { return urgent_waiting_ > 0 || in_flight_[1] > 0; }
  // Fetching in the background, not complete yet.
  [[nodiscard]] bool active() const { return active_; }
  [[nodiscard]] const StateFetcherStats& stats() const { return stats_; }

 private:
  struct Key {
    bool root = false;
    state::Place place;
    std::uint64_t toward = 0;
    auto operator<=>(const Key&) const = default;
  };
  struct Item {
    state::Want want;
    bool urgent = false;
    std::uint64_t ticket = 0;   // of the question that asks for it; 0: none
    std::uint64_t lacking = 0;  // bit per slot that answered without it, or not soon
  };
  // Demerits say who is asked first; nothing else.
  struct Party {
    std::uint32_t demerits = 0;
    std::uint32_t in_flight = 0;
  };
  struct Node : Party {
    bool up = false;
  };
  struct Source : Party {
    bool lied = false;
    bool vain = false;
    bool proven = false;  // brought something the last time
    Micros patience;
    Micros took;  // for the last answer that brought something
    Micros rest_until;
    std::uint64_t last = 0;  // ticket
  };
  struct Pair {
    NodeId node;
    SlotId slot;
  };
  struct Request {
    Pair pair;
    std::vector<state::Want> wants;  // each for itself
    std::vector<state::Want> paths;  // with what is below, towards `toward`
    std::uint64_t expected = 0;      // bytes at most
    Micros asked_at;
    Micros hedge_at;  // at `deadline`: never
    Micros deadline;
    bool urgent = false;
    bool late = false;      // hedged or given up
    bool outdated = false;  // from before begin()
  };
  using Items = std::map<Key, Item>;
  // What one answer brought.
  struct Brought {
    Refusal wrong = Refusal::kNone;
    std::size_t parts = 0;  // that were asked for
    std::uint64_t bytes = 0;
    std::uint64_t fresh = 0;  // of these, of parts that were absent
    // It ends because it is full: what is not in it says nothing. Repeated parts do not fill an answer.
    [[nodiscard]] bool full() const { return fresh + 2 * agreement::kStatePartBytesMax > agreement::kStateBytesMax; }
  };

  static Key key_of(const state::Want& want);
  [[nodiscard]] Source& source(const Pair& pair) { return sources_[pair.node.value * slots_.size() + pair.slot.value]; }
  [[nodiscard]] const Source& source(const Pair& pair) const {
    return sources_[pair.node.value * slots_.size() + pair.slot.value];
  }
  [[nodiscard]] static bool is_path(const Item& item);
  [[nodiscard]] static std::uint64_t weight(const Item& item);
  [[nodiscard]] static std::uint64_t weight_max(const Item& item);

  void add(const state::Want& want, bool urgent);
  void forget(Items::iterator item);
  void forget_all();
  void expand(const state::Place& place);
  void refill();

  [[nodiscard]] std::optional<Pair> choose(bool urgent, std::uint64_t lacking) const;
  [[nodiscard]] bool any_left() const;
  [[nodiscard]] bool all_in_vain() const;
  void pump();
  [[nodiscard]] std::uint64_t background_bytes() const;
  bool ask(std::deque<Key>& queue, bool urgent);
  void send(Request request, bool hedges);

  Brought take(const Request& request, const agreement::StateParts& answer);
  void settle(const state::Part& part);
  // What it asked for and did not come is to be asked for again; how many these are.
  std::size_t release(std::uint64_t ticket, const Request& request, bool answered);
  void land(const Request& request, std::uint64_t bytes);
  void expire();
  void judge(const Request& request, const Brought& brought, std::size_t unsettled);
  void succeeded(const Pair& pair, bool promptly);
  void failed(const Pair& pair, std::uint32_t demerits, bool usable);
  void hedge(const Pair& pair);
  void lied(const Pair& pair);
  void say_stale();

  StateFetcherConfig config_;
  state::ObjectStore& store_;
  Micros now_;
  Micros refilled_at_;
  Seq n_;  // 0: nothing is asked
  std::vector<Node> nodes_;
  std::vector<Party> slots_;
  std::vector<Source> sources_;  // by node, then slot

  Items items_;
  std::size_t urgent_waiting_ = 0;  // of items_
  std::deque<Key> urgent_queue_;    // each item at most once in one of them; what is no item any more is passed over
  std::deque<Key> queue_;
  std::map<std::uint64_t, Request> requests_;  // by ticket
  std::set<std::uint64_t> paths_asked_;        // Want::toward of the paths in flight, of this snapshot
  std::uint64_t ticket_ = 0;
  std::size_t in_flight_[2] = {0, 0};  // background, urgent
  std::uint64_t in_flight_bytes_ = 0;  // background
  std::int64_t allowance_ = 0;         // bytes that may be asked for in the background; below 0: owed

  bool active_ = false;
  bool held_ = false;
  std::optional<state::ObjectId> cursor_;  // of the pass under way
  bool clean_ = false;                     // that pass found nothing yet
  Micros quiet_until_;
  Micros quiet_;            // how long, next time
  bool stale_due_ = false;  // said, but not acted upon
  std::uint64_t parts_at_stale_ = 0;

  StateFetcherOutput out_;
  StateFetcherStats stats_;
};

}  // namespace zz::execution
