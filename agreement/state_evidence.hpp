#pragma once

// StateEvidence: where the states that slots have after a checkpoint differ, so that people can see which bytes did
// (docs/protocol.md §11). When slots sign different roots, this asks one slot of each of two sides for the parts on the
// way from its root to the first object that differs, and gives out what it has once the walk is over and it is known
// who is right, or the patience is over. It asks as soon as roots differ: who is wrong ends when it learns that.
//
// One thread; no clock, IO or randomness. Nothing depends on it: it decides nothing. Bounded: one case at a time,
// kCasesPerEpoch in an epoch, one question at a time to a slot, for one part each; of a case two objects and two inner
// nodes are held.
//
// Invariants:
//  1. A part counts only with the digest that its parent, in the end the root that the slot signed, binds it to.
//  2. Every answer that counts leads deeper into the tree, and a slot that gave none is not asked again.

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/oversight.hpp"
#include "base/refusal.hpp"
#include "execution/state/parts.hpp"

namespace zz::agreement {

struct StateDifference {
  Seq n;
  Epoch epoch;
  bool hung = false;  // no g+1 slots agree
  struct Side {
    std::vector<std::pair<SlotId, Incarnation>> slots;
    Digest root;
    bool agrees = false;                // with g+1
    bool absent = false;                // it has no such object, which its parts prove
    std::optional<SharedBytes> object;  // its bytes, as far as they were had
  };
  std::vector<Side> sides;                          // of the first two the object is looked for
  std::vector<execution::state::Place> path;        // the inner nodes on the way, from the top
  std::optional<execution::state::ObjectId> first;  // the object with the lowest id that differs
};

class StateEvidence {
 public:
  static constexpr std::uint32_t kCasesPerEpoch = 4;
  static constexpr std::size_t kDoneMax = 4;  // the rest is dropped until somebody takes them
  static constexpr Micros kAnswerPatience{500'000};
  static constexpr Micros kPatience{10'000'000};

  // Of one checkpoint it may be told several times, as more is known.
  void open(const OversightOutput::RootDifference& difference);
  // g+1 slots agree on this root.
  void settled(Seq n, const Digest& root);
  void tick(Micros now);

  // Whether this is the answer to a question of this object's, not of the relay's (state_relay.hpp).
  [[nodiscard]] static bool is_own(std::uint64_t ticket) { return (ticket & kTicketBit) != 0; }
  // kNotWanted: that slot was not asked; kWrongDigest: not what its root leads to.
  Refusal step(SlotId slot, Incarnation incarnation, const StateParts& message);

  struct Ask {
    SlotId slot;
    Incarnation incarnation;
    FetchState wanted;
  };
  [[nodiscard]] std::vector<Ask> take_asks() { return std::exchange(asks_, {}); }
  [[nodiscard]] std::vector<StateDifference> take_done() { return std::exchange(done_, {}); }

 private:
  using Child = execution::state::Child;
  static constexpr std::uint64_t kTicketBit = std::uint64_t{1} << 63;
  // How far one side has come.
  struct Walker {
    std::size_t turn = 0;           // which of its slots is asked; at their number: nobody is left
    std::optional<Child> at;        // the subtree looked at; nothing: this state has nothing there
    std::vector<Child> children;    // of `at`, once they have come
    std::optional<StateWant> want;  // asked for, and not come
    std::uint64_t ticket = 0;
    Micros asked_at;
  };
  struct Case {
    StateDifference found;
    std::array<Walker, 2> walkers;
    Micros since;
    bool walked = false;  // as far as it goes
    bool judged = false;  // it is known who is right, or that nobody is
  };

  void ask(std::size_t side, std::uint8_t kind, const Child& what);
  void put_question(std::size_t side);
  void ask_another(std::size_t side);
  bool take(std::size_t side, const StatePart& part);
  void walk();
  bool descend();
  void review();

  Micros now_;
  Epoch epoch_;
  std::uint32_t in_epoch_ = 0;
  Seq last_;  // the checkpoint of the last case
  std::uint64_t tickets_ = 0;
  std::optional<Case> case_;
  std::vector<Ask> asks_;
  std::vector<StateDifference> done_;
};

}  // namespace zz::agreement
