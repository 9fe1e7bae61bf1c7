// Replica: leaving a view and entering the next (docs/protocol.md §7). What the new view continues with is choose()'s
// business (agreement/view_change.hpp); what is worth believing, Authority's.

#include <algorithm>
#include <set>
#include <utility>

#include "agreement/replica_state.hpp"
#include "agreement/view_change.hpp"
#include "base/assert.hpp"

namespace zz::agreement {

// ---- leaving ---------------------------------------------------------------------------------------------------

void Replica::State::watch_primary() {
  if (learner) return;
  PrimaryWatch::Situation situation;
  situation.primary = is_primary();
  const bool full = delivered.value - log.low().value >= requests_ahead();
  const bool is_behind_stable = stable_n(newest_stable) > delivered;
  situation.blocked = full || is_behind_stable;
  situation.excused = primary_may_be_shut() || is_behind();
  situation.delivered = delivered;
  situation.position = requests.position();
  system.prune(rules);
  situation.system_waits = system.due();
  for (Seq n = delivered.next(); n <= log.top(); n = n.next()) {
    const Slot* slot = log.find(n);
    if (slot == nullptr || !slot->header) continue;
    if (n.value == delivered.value + situation.in_flight + 1) ++situation.in_flight;
    situation.gap = situation.in_flight == 0;
    if (slot->phase == Phase::kPrePrepared && !situation.held) situation.held = n;
  }
  situation.heads = requests.heads();
  if (full) {  // requests have to wait. What the window may wait for has not, while there is room
    const bool room = delivered.value - log.low().value < config.window;
    situation.heads.clear();
    situation.system_waits = room && system.due(requests_end());
    if (situation.system_waits || situation.in_flight > 0 || situation.gap) situation.blocked = is_behind_stable;
  }
  for (const PrimaryWatch::Head& head : situation.heads) {
    situation.alone.push_back(requests.vouchers(head.client, head.session, head.number) < config.f);
  }
  for (const PrimaryWatch::Head& head : watched_heads) {
    const bool waits_on = std::binary_search(situation.heads.begin(), situation.heads.end(), head);
    if (!waits_on && requests.gave_up(head)) situation.given_up.push_back(head.client);
  }
  // After an outage the timeout is long, and a complaint that outlives its cause meets another outage's.
  const bool served =
      !complains_by_period && situation.heads.empty() && !situation.system_waits && situation.in_flight == 0;
  if (const std::optional<Complaint> complaint = watch.tick(now, situation)) {
    stats.last_complaint = *complaint;
    complain(to_string(*complaint));
    complains_by_period = *complaint == Complaint::kSlow || *complaint == Complaint::kUnfair;
  } else if (complains && !changing && delivered > delivered_then &&
             (served || now.value - complained_at.value >= complaint_lasts())) {
    complains = false;  // it goes on after all
    watch.entered(view);
    say_progress({});
  }
  watched_heads = std::move(situation.heads);
  review_complaints();
}

// A complaint of a period is kept for two: theirs end at another time at each node.
std::int64_t Replica::State::complaint_lasts() const {
  return std::max(watch.timeout().value, complains_by_period ? 4 * config.view_timeout.value : 0);
}

// Whether the primary's window may be shut although this node's is open: it proposes nothing, and has not told of the
// checkpoint that this node holds a certificate of. One that says so for ever is believed for one timeout.
bool Replica::State::primary_may_be_shut() {
  const bool proposes = std::exchange(top_then, log.top()) != log.top();
  if (is_primary() || proposes) return false;
  const Seq told = peers[primary().value].progress.stable;
  if (told >= unheard_stable && stable_n(newest_stable) > unheard_stable) {  // once per checkpoint
    unheard_stable = stable_n(newest_stable);
    unheard_since = now;
  }
  return told < unheard_stable && now.value - unheard_since.value < watch.timeout().value &&
         log.top().value >= told.value + requests_ahead();
}

// What this node lacks, f+1 correct others have. So of the correct nodes at most f are excused at a time, and f+1 can
// still complain of a primary that serves some later than others.
bool Replica::State::is_behind() const {
  const auto ahead = [&](const PeerState& peer) { return peer.heard && peer.progress.delivered > delivered; };
  return std::count_if(peers.begin(), peers.begin() + nodes, ahead) > 2 * config.f;
}

// A VIEW-CHANGE cannot be taken back, and who sends one votes no more in its view. So nobody leaves alone: first
// everybody says that it would (PROGRESS), f+1 carry the rest along, and 2f+1 leave. Their complaints are signed, and
// whoever leaves shows them: they carry away all others, also those who have taken theirs back (docs/decisions/0014).
void Replica::State::complain(std::string_view why) {
  if (complains) return;
  report(EventKind::kComplained, delivered, why);
  complains = true;
  complains_by_period = false;
  complained_at = now;
  delivered_then = delivered;
  say_progress({});
}

// By tick, not by message: a node that stood still hears first what others said long ago, then that they took it back.
void Replica::State::review_complaints() {
  if (learner) return;
  join_others();
  Complaints complaints;
  for (std::uint16_t i = 0; i < nodes; ++i) {
    const PeerState& peer = peers[i];
    if (!peer.heard || !peer.progress.complains || peer.progress.view != view) continue;
    complaints.push_back({NodeId{i}, peer.progress.complaint});
  }
  const std::size_t others = complaints.size();
  if (others >= config.f + 1) complain("others");
  if (!complains || others < 2 * config.f) return;
  const auto mine = std::find_if(complaints.begin(), complaints.end(),
                                 [this](const StableCertificate::Part& part) { return part.signer > config.self; });
  complaints.insert(mine, {config.self, authority.sign_complaint(view)});
  report(EventKind::kViewLeft, delivered, "complaints");
  start_change(view.next(), std::move(complaints));
}

// Clients whose requests this node was asked to stand for and never got: from now on they have to show themselves to
// more nodes first.
void Replica::State::doubt_held_clients() {
  for (Seq n = delivered.next(); n <= log.top(); n = n.next()) {
    const Slot* slot = log.find(n);
    if (slot == nullptr || slot->phase != Phase::kPrePrepared) continue;
    for (std::size_t i = 0; i < slot->bodies.size(); ++i) {
      if (!slot->bodies[i]) requests.mark_unproven(slot->header->references[i].client);
    }
  }
}

void Replica::State::stash_slots() {
  for (Seq n = log.low().next(); n <= log.top(); n = n.next()) {
    Slot* slot = log.find(n);
    if (slot == nullptr) continue;
    end_fetch(*slot);
    if (slot->phase >= Phase::kAccepted) history_of_votes.keep_bodies(n, slot->digest, std::move(slot->bodies));
  }
  log.clear(delivered);
  wanted_headers.clear();
}

void Replica::State::leave_view() {
  if (!changing) {
    doubt_held_clients();
    if (is_primary()) last_led = view;
  }
  stash_slots();
  requests.release_all();
  system.release_all();
  accepted_view.reset();
}

void Replica::State::start_change(View wanted, Complaints complaints) {
  ZZ_ASSERT(wanted > view && !learner);
  leave_view();
  view = wanted;
  changing = true;
  complains = false;
  ViewChange message;
  message.view = view;
  message.complaints = std::move(complaints);
  // A certificate is proof enough for what this node has yet to fetch; its log keeps no claims below it.
  message.stable = newest_stable;
  message.prepared = history_of_votes.prepared();
  message.pre_prepared = history_of_votes.pre_prepared();
  const auto below = [&](const Claim& claim) { return claim.n <= stable_n(newest_stable); };
  std::erase_if(message.prepared, below);
  std::erase_if(message.pre_prepared, below);
  authority.sign(message);
  own_change = std::make_shared<const ViewChange>(std::move(message));
  changes[config.self.value] = own_change;
  out.log.push_back(ViewRecord{view, true, own_change, nullptr});
  send({}, own_change);
  ++stats.view_changes;
  watch.left(view);
  if (wanting(view) >= 2 * config.f + 1) watch.backed();
  try_new_view();
}

// ---- what others want ------------------------------------------------------------------------------------------

std::uint32_t Replica::State::wanting(View at_least) const {
  std::uint32_t count = 0;
  for (std::uint16_t i = 0; i < nodes; ++i) {
    if (changes[i] && changes[i]->view >= at_least) ++count;
  }
  return count;
}

Refusal Replica::State::view_change(NodeId from, const ViewChangePtr& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (message->signer != from) return Refusal::kWrongRole;
  if (message->view < view || (message->view == view && !changing)) return Refusal::kStaleView;
  if (changes[from.value] && message->view <= changes[from.value]->view) return Refusal::kDuplicate;
  if (const Refusal refusal = authority.check(*message); refusal != Refusal::kNone) return refusal;
  changes[from.value] = message;
  join_others();
  if (changing && wanting(view) >= 2 * config.f + 1) watch.backed();
  try_new_view();
  return Refusal::kNone;
}

// Whoever shows why it left is followed: f+1 correct nodes complained. And where f+1 nodes want higher views a correct
// one does: the lowest that f+1 want at least is wanted here too.
void Replica::State::join_others() {
  if (learner) return;
  ViewChangePtr shown;
  for (const ViewChangePtr& change : changes) {
    if (change && !change->complaints.empty() && change->view > (shown ? shown->view : view)) shown = change;
  }
  if (shown) {
    report(EventKind::kViewLeft, delivered, "shown");
    return start_change(shown->view, shown->complaints);
  }
  std::vector<View> higher;
  for (std::uint16_t i = 0; i < nodes; ++i) {
    if (NodeId{i} != config.self && changes[i] && changes[i]->view > view) higher.push_back(changes[i]->view);
  }
  if (higher.size() < config.f + 1) return;
  report(EventKind::kViewLeft, delivered, "joined");
  start_change(*std::min_element(higher.begin(), higher.end()), {});
}

// ---- the new primary -------------------------------------------------------------------------------------------

void Replica::State::try_new_view() {
  if (!changing || !is_primary() || learner) return;
  std::vector<ViewChangePtr> proof;
  for (std::uint16_t i = 0; i < nodes; ++i) {
    if (changes[i] && changes[i]->view == view) proof.push_back(changes[i]);
  }
  if (proof.size() < 2 * config.f + 1) return;
  const std::optional<NewViewChoice> choice = choose(config.f, config.window, proof);
  if (!choice) return;
  // A primary that could not vote on its own choice yet catches up first; the timer bounds how long.
  if (stable_n(choice->stable).value + choice->chosen.size() > log.low().value + config.window) return;
  bool complete = true;
  for (std::size_t i = 0; i < choice->chosen.size(); ++i) {
    const Digest& digest = choice->chosen[i];
    if (digest.is_zero() || find_header(digest)) continue;
    complete = false;
    if (wanted_headers.size() < config.window && wanted_headers.emplace(digest, nullptr).second) {
      headers_asked_at = Micros{now.value - config.body_timeout.value};
    }
  }
  if (!complete) return ask_headers();
  NewView message;
  message.view = view;
  message.proof = std::move(proof);
  message.start = stable_n(choice->stable);
  message.chosen = choice->chosen;
  authority.sign(message);
  auto signed_message = std::make_shared<const NewView>(std::move(message));
  send({}, signed_message);
  enter(signed_message);
}

// ---- entering --------------------------------------------------------------------------------------------------

// It may come from any node: its signature says whose it is.
Refusal Replica::State::new_view(NodeId from, const NewViewPtr& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (message->view < view) return Refusal::kStaleView;
  if (message->view == view && !changing) return Refusal::kDuplicate;
  if (message->signer == config.self) return Refusal::kWrongRole;
  if (const Refusal refusal = spend_check(from); refusal != Refusal::kNone) return refusal;
  if (const Refusal refusal = authority.check(*message); refusal != Refusal::kNone) return refusal;
  if (message->view > view) leave_view();
  enter(message);
  return Refusal::kNone;
}

void Replica::State::enter(const NewViewPtr& message) {
  if (last_led) doubt_refused_clients(*message, *std::exchange(last_led, std::nullopt));
  view = message->view;
  changing = false;
  complains = false;
  own_change.reset();
  accepted_view = message;
  out.log.push_back(ViewRecord{view, false, nullptr, accepted_view});
  ++stats.views_entered;
  watch.entered(view);
  unheard_stable = {};
  open_chosen(*message);
  report(EventKind::kViewEntered, log.top().next());
}

// As the primary of `last`: what this node proposed and not even f+1 of the others stood for, their VIEW-CHANGEs say,
// was of clients they do not hear.
void Replica::State::doubt_refused_clients(const NewView& message, View last) {
  for (const Claim& claim : history_of_votes.pre_prepared()) {
    if (claim.view != last || claim.n <= delivered) continue;
    std::uint32_t stood = 0;
    for (const ViewChangePtr& change : message.proof) {
      const auto& all = change->pre_prepared;
      if (change->signer != config.self && std::find(all.begin(), all.end(), claim) != all.end()) ++stood;
    }
    if (stood >= config.f + 1) continue;
    const HeaderPtr header = history_of_votes.find_header(claim.digest);
    if (!header) continue;
    for (const Reference& reference : header->references) requests.mark_unproven(reference.client);
  }
}

// Votes for this view that came before its NEW-VIEW are kept: the slots are of this view already.
void Replica::State::open_chosen(const NewView& message) {
  const Seq last{message.start.value + message.chosen.size()};
  log.set_top(std::max({delivered, message.start, last}));
  // Ascending, and of one mind which batch is asked for a request that two of them name.
  for (std::size_t i = 0; i < message.chosen.size(); ++i) {
    const Seq n{message.start.value + 1 + i};
    if (!log.in_window(n)) continue;  // stable here, or too far ahead of a node that lags
    const bool is_null = message.chosen[i].is_zero();
    const HeaderPtr null = is_null ? null_header(config.service, n) : nullptr;
    const Digest digest = is_null ? batch_digest(*null) : message.chosen[i];
    const Delivery* done = n <= delivered ? find_recent(n) : nullptr;
    if (done != nullptr && done->digest != digest) {
      report(EventKind::kConflict, n, "a new view replaces what is delivered");
      continue;
    }
    Slot& slot = log.at(n, view);
    if (slot.chosen) continue;
    slot.chosen = true;
    slot.digest = digest;
    const HeaderPtr header = is_null ? null : done != nullptr ? done->header : find_header(digest);
    if (header) {
      fill_chosen(slot, header);
    } else if (wanted_headers.size() < config.window && wanted_headers.emplace(digest, nullptr).second) {
      headers_asked_at = Micros{now.value - config.body_timeout.value};
    }
  }
  std::erase_if(wanted_headers, [](const auto& item) { return item.second != nullptr; });
  ask_headers();
}

void Replica::State::fill_chosen(Slot& slot, const HeaderPtr& header) {
  if (header->n != slot.n) return;
  const std::size_t count = header->references.size();
  slot.bodies.assign(count, nullptr);
  slot.missing = slot.unvouched = 0;
  if (slot.n > delivered) {
    requests.claim_chosen(slot.n, header->references, slot.bodies, slot.unvouched);
  } else if (const Delivery* done = find_recent(slot.n)) {
    slot.bodies = done->requests;
  }
  if (ProposalHistory::Accepted* before = history_of_votes.find(slot.n, slot.digest)) {
    for (std::size_t i = 0; i < count && i < before->bodies.size(); ++i) {
      if (!slot.bodies[i]) slot.bodies[i] = std::move(before->bodies[i]);
    }
    before->bodies.clear();
  }
  if (slot.n > delivered) {
    slot.missing = static_cast<std::uint32_t>(std::count(slot.bodies.begin(), slot.bodies.end(), nullptr));
  }
  slot.clock_ok = true;
  log.fill(slot, header, slot.digest);
  advance(slot);
}

}  // namespace zz::agreement
