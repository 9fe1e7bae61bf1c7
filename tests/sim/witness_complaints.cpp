#include "tests/sim/witness_complaints.hpp"

#include <algorithm>

#include "agreement/oversight.hpp"
#include "agreement/primary_watch.hpp"

namespace zz::sim {

using namespace agreement;

namespace {

constexpr Micros from_ms(std::uint32_t ms) { return Micros{std::int64_t{ms} * 1'000}; }

}  // namespace

ComplaintWitness::ComplaintWitness(Ghost& ghost, const ClientWitness& clients)
    : ghost_(ghost),
      clients_(clients),
      timing_(ghost.cluster.timing),
      tick_gap_(std::max(kTickGapMax, Micros{4 * from_ms(timing_.tick_ms).value})),
      nodes_(ghost.nodes) {
  for (Node& node : nodes_) node.told.resize(ghost.nodes);
}

// ---- what is said ----------------------------------------------------------------------------------------------

void ComplaintWitness::sent(Micros now, const Parcel& parcel) {
  const Body& body = parcel.message->body;
  if (parcel.from.role == crypto::Role::kHost) {
    const auto* dead = std::get_if<SlotDead>(&body);
    if (dead != nullptr && parcel.to.index < nodes_.size()) {
      at_node(parcel.to.node()).dead.insert({dead->slot, dead->incarnation});
    }
    return;
  }
  if (const auto* word = std::get_if<ExecCheckpoint>(&body); word != nullptr && parcel.to.index < nodes_.size()) {
    roots_[word->n].insert(word->root);
    at_node(parcel.to.node()).spoken_of.insert(word->n);
    return;
  }
  if (parcel.from.role != crypto::Role::kNode || parcel.from.index >= nodes_.size()) return;
  const NodeId from = parcel.from.node();
  if (const auto* m = std::get_if<Progress>(&body)) {
    if (parcel.to.role == crypto::Role::kNode && parcel.to.index < nodes_.size()) {
      Told& told = at_node(parcel.to.node()).told[from.value];
      told.highest = std::max(told.highest, m->view);
      if (m->complains) told.complains.insert(m->view);
    }
    if (ghost_.is_correct(from)) progress(now, from, *m);
  } else if (const auto* change = std::get_if<ViewChangePtr>(&body)) {
    if (ghost_.is_correct(from)) check_shown(from, **change);
  } else if (const auto* wake = std::get_if<Wake>(&body)) {
    const bool complains = wake->sign != static_cast<std::uint8_t>(Sign::kRejuvenation);
    if (complains && ghost_.is_correct(from) && !at_node(from).saw_trouble) {
      ghost_.fail("I22 complaints: a WAKE without a sign of trouble", at(from, wake->n));
    }
  }
}

// The same words may stand for a complaint that the node took back since: what it says last counts.
void ComplaintWitness::progress(Micros now, NodeId from, const Progress& message) {
  Node& node = at_node(from);
  if (message.changing) {
    leaves(now, node);
  } else if (message.complains) {
    complains(now, node);
  } else {
    content(node);
  }
}

// Why it left. A complaint may have been taken back since, but somebody did make it.
void ComplaintWitness::check_shown(NodeId from, const ViewChange& message) {
  for (const StableCertificate::Part& part : message.complaints) {
    if (!ghost_.is_correct(part.signer)) continue;
    if (at_node(part.signer).complained.contains(View{message.view.value - 1})) continue;
    return ghost_.fail("I22 complaints: shown, but nobody made it", at(from, message.view));
  }
}

void ComplaintWitness::complains(Micros now, Node& node) {
  if (!node.against_primary) node.against_primary = now;
}

void ComplaintWitness::leaves(Micros now, Node& node) {
  node.left = true;
  node.goes_on.reset();
  complains(now, node);
}

void ComplaintWitness::content(Node& node) {
  node.against_primary.reset();
  node.goes_on.reset();
  node.left = false;
}

void ComplaintWitness::delivered(Micros now, NodeId id, Seq n) {
  Node& node = at_node(id);
  node.unclosed.emplace(n, now);
  node.delivered.emplace(n, now);
  if (node.against_primary && !node.left && !node.goes_on) node.goes_on = now;
}

void ComplaintWitness::channel(Micros now, NodeId id, SlotId slot, Incarnation incarnation, bool up) {
  at_node(id).channels[{slot, incarnation}] = {up, now};
}

void ComplaintWitness::restarted(Micros now, NodeId id) {
  Node& node = at_node(id);
  node.unclosed.clear();
  node.delivered.clear();
  node.diverged.clear();
  node.saw_trouble = false;
  node.channels.clear();
  node.view_since = now;
  content(node);
}

// ---- what is observed ------------------------------------------------------------------------------------------

void ComplaintWitness::observed(Micros now, const Event& event) {
  switch (event.kind) {
    case EventKind::kDiverged:
    case EventKind::kSettled:
    case EventKind::kClosed:
    case EventKind::kComplained:
    case EventKind::kViewLeft:
    case EventKind::kViewEntered:
      break;
    default:
      return;
  }
  if (event.node.value >= nodes_.size() || !ghost_.is_correct(event.node)) return;
  Node& node = at_node(event.node);
  switch (event.kind) {
    case EventKind::kDiverged:
      check_sign(now, event);
      node.diverged.emplace(event.n, now);
      node.saw_trouble = true;
      return;
    case EventKind::kSettled:
      node.diverged.erase(event.n);
      return;
    case EventKind::kClosed:
      node.unclosed.erase(event.n);
      return;
    case EventKind::kComplained:
      node.complained.emplace(event.view, now);
      check_complaint(now, event);
      return complains(now, node);
    case EventKind::kViewLeft:
      node.views_left.emplace_back(event.view, now);
      node.view_since = now;
      return leaves(now, node);
    default:  // kViewEntered
      node.view_since = now;
      return content(node);
  }
}

void ComplaintWitness::check_sign(Micros now, const Event& event) {
  if (event.why == to_string(Sign::kMismatch)) {
    if (!clients_.disputed(event.node, event.n)) {
      ghost_.fail("I22 complaints: mismatch, but no two votes differ", at(event.node, event.n));
    }
  } else if (event.why == to_string(Sign::kOverdue)) {
    check_overdue(now, event);
  } else if (event.why == to_string(Sign::kGone)) {
    check_gone(now, event);
  } else if (event.why == to_string(Sign::kCheckpoint)) {
    check_checkpoint(now, event);
  } else {
    ghost_.fail("I22 complaints: a sign of no known kind", at(event.node, event.n));
  }
}

void ComplaintWitness::check_overdue(Micros now, const Event& event) {
  const auto fail = [&](std::string_view what) { ghost_.fail(what, at(event.node, event.n)); };
  const auto& unclosed = at_node(event.node).unclosed;
  const auto found = unclosed.find(event.n);
  if (found == unclosed.end()) return fail("I22 complaints: overdue, but closed or not delivered");
  const std::uint32_t span = clients_.voted_on(event.node, event.n)
                                 ? std::min(timing_.overdue_floor_ms, timing_.execution_timeout_ms)
                                 : timing_.execution_timeout_ms;
  if (!may_have_passed(now, found->second, from_ms(span), tick_gap_)) fail("I22 complaints: overdue too soon");
}

// Somebody was told something else of the state than this node, or this node was told nothing for long.
void ComplaintWitness::check_checkpoint(Micros now, const Event& event) {
  const Node& node = at_node(event.node);
  const auto roots = roots_.find(event.n);
  if (node.spoken_of.contains(event.n) && roots != roots_.end() && roots->second.size() > 1) return;
  const auto found = node.delivered.find(event.n);
  if (found != node.delivered.end() &&
      may_have_passed(now, found->second, from_ms(timing_.execution_timeout_ms), tick_gap_)) {
    return;
  }
  ghost_.fail("I22 complaints: of a checkpoint that no two roots dispute and that is not overdue",
              at(event.node, event.n));
}

void ComplaintWitness::check_gone(Micros now, const Event& event) {
  const auto fail = [&](std::string_view what) { ghost_.fail(what, at(event.node, event.n)); };
  const Node& node = at_node(event.node);
  const std::pair key{event.slot, event.incarnation};
  if (node.dead.contains(key)) return;
  const auto found = node.channels.find(key);
  if (found == node.channels.end()) return fail("I22 complaints: gone, but it never was there");
  if (found->second.up) return fail("I22 complaints: gone, but its channel is up");
  if (!may_have_passed(now, found->second.since, from_ms(timing_.gone_ms), tick_gap_)) {
    fail("I22 complaints: gone too soon");
  }
}

// The primary has at least this long from the beginning of its view, or of this node's life.
void ComplaintWitness::check_complaint(Micros now, const Event& event) {
  const auto fail = [&](std::string_view what) { ghost_.fail(what, at(event.node, event.view)); };
  const Node& node = at_node(event.node);
  if (event.why == "others") {
    const auto others = std::count_if(node.told.begin(), node.told.end(), [&](const Told& told) {
      return told.highest > event.view || told.complains.contains(event.view);
    });
    if (others < ghost_.f + std::int64_t{1}) fail("I22 complaints: follows fewer than f+1 others");
    return;
  }
  const Micros base = from_ms(timing_.view_timeout_ms);
  const Micros gap{base.value / 2};  // the most that it counts between two ticks
  Micros span = base;
  Micros before;
  if (event.why == to_string(Complaint::kHeld)) {
    span = from_ms(timing_.body_timeout_ms);
  } else if (event.why == to_string(Complaint::kNoNewView)) {
    before = gap;
  } else if (event.why == to_string(Complaint::kSlow) || event.why == to_string(Complaint::kUnfair)) {
    span = Micros{4 * base.value};
    before = gap;
  } else if (event.why != to_string(Complaint::kSilent)) {
    return fail("I22 complaints: of no known kind");
  }
  if (!may_have_passed(now, node.view_since, span, before)) fail("I22 complaints: of a primary that had no time");
}

// ---- for how long ----------------------------------------------------------------------------------------------

std::optional<std::string> ComplaintWitness::open_complaint(const std::set<NodeId>& core, Micros before) const {
  const auto old = [before](const std::optional<Micros>& since) { return since && *since < before; };
  std::uint32_t against_primary = 0;
  std::map<Seq, std::uint32_t> diverged;
  for (const NodeId id : core) {
    const Node& node = nodes_[id.value];
    if (old(node.against_primary) && ++against_primary > ghost_.f) return "f+1 nodes complain of the primary";
    if (old(node.goes_on)) {
      return "node " + std::to_string(id.value) + " complains of the primary, though the order goes on";
    }
    for (const auto& [n, since] : node.diverged) {
      if (since < before && ++diverged[n] > ghost_.f) return "f+1 nodes complain of what executors made of " + at(n);
    }
  }
  return std::nullopt;
}

std::optional<std::string> ComplaintWitness::needless_change(const std::set<NodeId>& core, Micros since) const {
  const auto complained = [&](View view) {
    return std::count_if(nodes_.begin(), nodes_.end(), [&](const Node& node) {
      const auto found = node.complained.find(view);
      return found != node.complained.end() && found->second < since;
    });
  };
  for (const NodeId id : core) {
    for (const auto& [view, when] : nodes_[id.value].views_left) {
      if (when < since || !core.contains(ghost_.primary_of(view)) || complained(view) > ghost_.f) continue;
      return "node " + std::to_string(id.value) + " left view " + std::to_string(view.value) + " at " +
             std::to_string(when.value / 1'000) + " ms";
    }
  }
  return std::nullopt;
}

}  // namespace zz::sim
