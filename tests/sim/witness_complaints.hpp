#pragma once

// The complaints' part of the witness: what correct nodes hold against the active executors (signs of trouble, WAKEs)
// and against the primary. Each needs a cause that the witness has seen (I22), and once the core is healed none stays
// open for long (L4), and ends a view of a primary of the core (L2): open_complaint() and needless_change(), which the
// world asks. One thread.
//
// What L4 asks for: f+1 that complain of the same are heard, so it ends: others join them, sleepers are woken, slots
// evicted. One node alone moves nothing, and may be deceived for as long as nothing happens: a slot that votes for all
// but this node is made good by the next checkpoint. It takes back what it holds against a primary once the order goes
// on.
//
// Causes are bounded from below: a clock runs at most a tenth too fast, and one gap between two ticks may lie before
// the cause and count all the same.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/sim/hooks.hpp"
#include "tests/sim/witness_clients.hpp"
#include "tests/sim/witness_ghost.hpp"

namespace zz::sim {

class ComplaintWitness {
 public:
  // Both must outlive it.
  ComplaintWitness(Ghost& ghost, const ClientWitness& clients);

  void sent(Micros now, const Parcel& parcel);  // by anybody
  void delivered(Micros now, NodeId node, Seq n);
  void observed(Micros now, const Event& event);
  void channel(Micros now, NodeId node, SlotId slot, Incarnation incarnation, bool up);
  void restarted(Micros now, NodeId node);

  [[nodiscard]] std::optional<std::string> open_complaint(const std::set<NodeId>& core, Micros before) const;
  // What f+1 correct nodes complained of before, a liar may show at any time, once (decision 0014).
  [[nodiscard]] std::optional<std::string> needless_change(const std::set<NodeId>& core, Micros since) const;

 private:
  struct Channel {
    bool up = false;
    Micros since;
  };
  struct Told {  // by another node's PROGRESS
    View highest;
    std::set<View> complains;
  };
  struct Node {
    // Of this life:
    std::map<Seq, Micros> unclosed;  // delivered then, and not said to be closed
    std::map<Seq, Micros> delivered;
    std::map<Seq, Micros> diverged;  // signs of trouble that are open
    bool saw_trouble = false;
    std::map<std::pair<SlotId, Incarnation>, Channel> channels;
    Micros view_since;  // it entered the view, left for it, or began this life
    std::optional<Micros> against_primary;
    std::optional<Micros> goes_on;  // delivered something since it began to complain
    bool left = false;              // sent its VIEW-CHANGE: it may not come back to that view, whatever the others do
    // Of any life:
    std::set<std::pair<SlotId, Incarnation>> dead;  // says their host
    std::vector<Told> told;                         // by sender
    std::set<Seq> spoken_of;                        // checkpoints whose root some slot told it
    std::map<View, Micros> complained;              // of these, first then
    std::vector<std::pair<View, Micros>> views_left;
  };

  void check_sign(Micros now, const Event& event);
  void check_overdue(Micros now, const Event& event);
  void check_checkpoint(Micros now, const Event& event);
  void check_gone(Micros now, const Event& event);
  void check_complaint(Micros now, const Event& event);
  void progress(Micros now, NodeId from, const agreement::Progress& message);
  void check_shown(NodeId from, const agreement::ViewChange& message);
  static void complains(Micros now, Node& node);
  static void leaves(Micros now, Node& node);
  static void content(Node& node);
  // Whether a timer of that span may have run out since then, `gap` of it before.
  [[nodiscard]] static bool may_have_passed(Micros now, Micros since, Micros span, Micros gap) {
    return now.value - since.value >= (span.value - gap.value) * 9 / 10;
  }
  [[nodiscard]] Node& at_node(NodeId node) { return nodes_[node.value]; }

  Ghost& ghost_;
  const ClientWitness& clients_;
  const crypto::Timing& timing_;
  Micros tick_gap_;  // the most that a node counts between two ticks
  std::vector<Node> nodes_;
  std::map<Seq, std::set<Digest>> roots_;  // that any slot told any node
};

}  // namespace zz::sim
