// Replica: what is said again because a channel or a message was lost, and what the durable log gives back
// (docs/protocol.md §5, §6).

#include <algorithm>
#include <utility>

#include "agreement/replica_state.hpp"
#include "base/assert.hpp"

namespace zz::agreement {

// ---- progress --------------------------------------------------------------------------------------------------

void Replica::State::say_progress(std::optional<NodeId> to) {
  if (!to) progress_said_at = now;
  Progress message{view, changing, delivered, stable_n(newest_stable), complains, settled()};
  if (complains) message.complaint = authority.sign_complaint(view);
  send(to, message);
}

// A batch that is delivered may be voted on once more in a new view, for those who have not delivered it.
Seq Replica::State::settled() {
  for (Seq n = log.low().next(); n <= delivered; n = n.next()) {
    const Slot* slot = log.find(n);
    if (slot != nullptr && slot->phase < Phase::kDelivered) return Seq{n.value - 1};
  }
  return delivered;
}

// Who is behind gets what it lacks from here, at most once per half progress interval.
Refusal Replica::State::progress(NodeId from, const Progress& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  PeerState& peer = peers[from.value];
  // A complaint counts only while it is signed: it may have to convince others.
  const bool known = peer.heard && peer.progress.complains && peer.progress.view == message.view &&
                     peer.progress.complaint == message.complaint;
  if (message.complains && message.view >= view && !known) {
    if (const Refusal refusal = spend_check(from); refusal != Refusal::kNone) return refusal;
    const Refusal refusal = authority.check_complaint(from, message.view, message.complaint);
    if (refusal != Refusal::kNone) return refusal;
  }
  // In a view that this node has left it may go on and never be stuck.
  const bool stuck = message.view < view ||
                     (peer.heard && peer.progress.settled == message.settled && peer.progress.view == message.view);
  const bool fresh = std::exchange(peer.fresh, false);
  // It had to refuse what was said of batches beyond its window.
  const bool opened = peer.heard && message.stable > peer.progress.stable &&
                      log.top().value > peer.progress.stable.value + config.window;
  peer.heard = true;
  peer.progress = message;
  if (!stuck && !fresh && !opened) return Refusal::kNone;
  if (peer.repaired_at && now.value - peer.repaired_at->value < config.progress.value / 2) return Refusal::kNone;
  peer.repaired_at = now;
  repair(from, message);
  return Refusal::kNone;
}

void Replica::State::repair(NodeId to, const Progress& message) {
  if (message.view > view) return;  // it is for that node to tell this one
  const bool waits = message.view < view || message.changing;
  if (changing) {
    if (waits && own_change) send(to, own_change);
    return;
  }
  if (waits) {
    if (accepted_view) send(to, accepted_view);
    return;
  }
  if (learner) return;
  std::uint64_t left = kResentSlots;
  for (Seq n = std::max(log.low(), message.settled).next(); n <= log.top() && left > 0; n = n.next(), --left) {
    if (const Slot* slot = log.find(n)) resend(to, *slot);
  }
}

void Replica::State::resend(NodeId to, const Slot& slot) {
  if (slot.phase < Phase::kAccepted) return;
  if (!is_primary()) {
    if (slot.prepares.has(config.self, slot.digest)) send(to, Prepare{slot.view, slot.n, slot.digest});
  } else if (!slot.chosen) {
    send(to, PrePrepare{slot.view, slot.header, slot.digest});
  }
  if (slot.commits.has(config.self, slot.digest)) send(to, Commit{slot.view, slot.n, slot.digest});
}

// ---- restart ---------------------------------------------------------------------------------------------------

void Replica::State::restore(const Recovered& recovered) {
  ZZ_ASSERT(!ticked && delivered.value == 0);
  learner = recovered.learner;
  for (const OrderedRecord& record : recovered.ordered) {
    settle_delivery(record.header, record.digest, record.requests);
  }
  out.log.clear();  // it is where all this comes from
  // The order may be lost up to below the newest checkpoint: it is fetched again. Claims are kept above it.
  set_stable(recovered.stable);
  for (const AcceptedRecord& record : recovered.accepted) {
    history_of_votes.accept(record.n, record.view, record.digest, record.header);
    history_of_votes.keep_bodies(record.n, record.digest, std::vector<RequestPtr>(record.bodies));
  }
  for (const PreparedRecord& record : recovered.prepared) {
    history_of_votes.prepare(record.n, record.view, record.digest);
  }
  view = recovered.view.view;
  changing = recovered.view.changing;
  own_change = recovered.view.sent;
  accepted_view = recovered.view.accepted;
  log.clear(delivered);
  if (changing) {
    changes[config.self.value] = own_change;
    watch.left(view);
  } else {
    watch.entered(view);
    restore_slots(recovered);
  }
}

// The slots of the view it is in, with this node's own votes as they were.
void Replica::State::restore_slots(const Recovered& recovered) {
  if (accepted_view) open_chosen(*accepted_view);
  for (const AcceptedRecord& record : recovered.accepted) {
    if (record.view != view || !record.header || !log.in_window(record.n)) continue;
    Slot& slot = log.at(record.n, view);
    if (slot.phase == Phase::kEmpty && !slot.chosen) {
      slot.bodies = record.bodies;
      if (record.n > delivered) {
        requests.claim_chosen(record.n, record.header->references, slot.bodies, slot.unvouched);
        for (std::size_t i = 0; i < slot.bodies.size(); ++i) {
          if (!slot.bodies[i] && i < record.bodies.size()) slot.bodies[i] = record.bodies[i];
        }
        slot.missing = static_cast<std::uint32_t>(std::count(slot.bodies.begin(), slot.bodies.end(), nullptr));
      }
      slot.clock_ok = true;
      log.fill(slot, record.header, record.digest);
      slot.phase = Phase::kAccepted;
      if (!is_primary()) static_cast<void>(slot.prepares.add(config.self, record.digest));
    }
    if (slot.phase == Phase::kAccepted && history_of_votes.is_prepared(record.n, view, record.digest)) {
      slot.phase = Phase::kPrepared;
      static_cast<void>(slot.commits.add(config.self, record.digest));
    }
  }
}

}  // namespace zz::agreement
