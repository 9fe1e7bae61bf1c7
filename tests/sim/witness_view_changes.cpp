// What the ordering part of the witness holds against a VIEW-CHANGE and a NEW-VIEW.

#include <algorithm>
#include <map>

#include "tests/sim/witness_agreement.hpp"

namespace zz::sim {

using namespace agreement;

namespace {

const Claim* prepared_at(const ViewChange& message, Seq n) {
  const auto is = [n](const Claim& claim) { return claim.n == n; };
  const auto it = std::find_if(message.prepared.begin(), message.prepared.end(), is);
  return it == message.prepared.end() ? nullptr : &*it;
}

const Claim* pre_prepared_at(const ViewChange& message, Seq n, const Digest& digest) {
  const auto is = [&](const Claim& claim) { return claim.n == n && claim.digest == digest; };
  const auto it = std::find_if(message.pre_prepared.begin(), message.pre_prepared.end(), is);
  return it == message.pre_prepared.end() ? nullptr : &*it;
}

}  // namespace

bool AgreementWitness::same(const ViewChange& a, const ViewChange& b) {
  return a.signer == b.signer && a.view == b.view && stable_n(a.stable) == stable_n(b.stable) &&
         a.prepared == b.prepared && a.pre_prepared == b.pre_prepared && a.signature == b.signature;
}

bool AgreementWitness::same(const NewView& a, const NewView& b) {
  return a.signer == b.signer && a.view == b.view && a.start == b.start && a.chosen == b.chosen &&
         a.signature == b.signature;
}

void AgreementWitness::view_change(NodeId id, const ViewChangePtr& message) {
  Node& node = at_node(id);
  if (!message || message->signer != id) return;  // another's words carry another's signature
  const ViewChange& m = *message;
  const auto on_disk = node.changes.find(m.view);
  if (on_disk == node.changes.end()) {
    return ghost_.fail("I12 write-ahead: VIEW-CHANGE left before its record was on disk", at(id, m.view));
  }
  if (!same(*on_disk->second, m)) return ghost_.fail("I7 votes: two VIEW-CHANGEs for one view", at(id, m.view));
  if (!node.left_for.insert(m.view).second) return;  // said again
  if (m.view < node.view) return ghost_.fail("I7 view: VIEW-CHANGE for a lower view than before", at(id, m.view));
  node.view = m.view;
  certificate(id, m.stable);
  true_claims(id, m);
  complete_claims(id, m);
}

void AgreementWitness::true_claims(NodeId id, const ViewChange& message) {
  Node& node = at_node(id);
  const auto holds = [&](const Claim& claim, bool prepared) {
    if (claim.n <= node.own.pruned()) return true;
    const auto* all = node.own.find(claim.n);
    if (all == nullptr) return false;
    return std::any_of(all->begin(), all->end(), [&](const Own& own) {
      return own.view == claim.view && own.digest == claim.digest && (own.prepared || (!prepared && own.accepted));
    });
  };
  for (const Claim& claim : message.prepared) {
    if (!holds(claim, true)) ghost_.fail("I7 votes: P claims what was not prepared", at(id, message.view, claim.n));
  }
  for (const Claim& claim : message.pre_prepared) {
    if (!holds(claim, false)) ghost_.fail("I7 votes: Q claims what was not accepted", at(id, message.view, claim.n));
  }
}

// Everything it has on disk for numbers above the message's stable checkpoint. Of Q, f+2 digests for one number are
// enough to keep: the newest, and the prepared one.
void AgreementWitness::complete_claims(NodeId id, const ViewChange& message) {
  Node& node = at_node(id);
  const auto fail = [&](std::string_view what, Seq n) { ghost_.fail(what, at(id, message.view, n)); };
  for (Seq n = std::max(stable_n(message.stable), node.own.pruned()).next(); n <= node.own.last(); n = n.next()) {
    std::map<Digest, View> accepted;  // newest view of each
    const Own* newest = nullptr;      // of the prepared ones
    for (const Own& own : *node.own.find(n)) {
      if (own.view >= message.view) continue;
      if (own.prepared && (newest == nullptr || own.view > newest->view)) newest = &own;
      if (!own.accepted && !own.prepared) continue;
      View& view = accepted.try_emplace(own.digest, own.view).first->second;
      view = std::max(view, own.view);
    }
    if (accepted.empty()) continue;
    const auto older = [](const auto& a, const auto& b) { return a.second < b.second; };
    const View last = std::max_element(accepted.begin(), accepted.end(), older)->second;
    for (const auto& [digest, view] : accepted) {
      const bool may_go =
          accepted.size() > ghost_.f + 2 && view != last && (newest == nullptr || newest->digest != digest);
      const Claim* claim = pre_prepared_at(message, n, digest);
      if (!may_go && (claim == nullptr || claim->view < view)) fail("I7 votes: VIEW-CHANGE hides what was accepted", n);
    }
    if (newest == nullptr) continue;
    const Claim* claim = prepared_at(message, n);
    if (claim == nullptr || claim->view != newest->view || claim->digest != newest->digest) {
      fail("I7 votes: VIEW-CHANGE hides what was prepared", n);
    }
  }
}

void AgreementWitness::new_view(NodeId id, const NewViewPtr& message) {
  if (!message) return;
  const Node& node = at_node(id);
  const auto on_disk = node.entered.find(message->view);
  if (on_disk == node.entered.end() || !same(*on_disk->second, *message)) {
    return ghost_.fail("I12 write-ahead: NEW-VIEW left before its record was on disk", at(id, message->view));
  }
}

// A NEW-VIEW that a correct node sends or accepts.
void AgreementWitness::judge(NodeId id, const NewView& m) {
  const auto fail = [&](std::string_view what) { ghost_.fail(what, at(id, m.view)); };
  if (m.signer != ghost_.primary_of(m.view)) return fail("I8 new view: not of the view's primary");
  if (ghost_.is_correct(m.signer)) {
    const auto& entered = at_node(m.signer).entered;
    const auto it = entered.find(m.view);
    if (it == entered.end() || !same(*it->second, m)) return fail("I8 new view: its signer never sent it");
  }
  Mask signers = 0;
  for (const ViewChangePtr& part : m.proof) {
    if (!part || part->view != m.view || part->signer.value >= ghost_.nodes) {
      return fail("I6 quorum: NEW-VIEW with a foreign VIEW-CHANGE");
    }
    signers |= bit_of(part->signer);
    if (part->stable && !valid(part->stable)) return fail("I10 window: NEW-VIEW rests on an invalid certificate");
    if (!ghost_.is_correct(part->signer)) continue;
    const auto& changes = at_node(part->signer).changes;
    const auto it = changes.find(m.view);
    if (it == changes.end() || !same(*it->second, *part)) {
      return fail("I6 quorum: NEW-VIEW with a VIEW-CHANGE that its signer never made");
    }
  }
  if (size_of(signers) < quorum_ || size_of(signers) != m.proof.size()) {
    return fail("I6 quorum: NEW-VIEW without 2f+1 distinct VIEW-CHANGEs");
  }
  judge_choice(id, m);
}

// Docs §7, number by number: A1 and A2 for every batch somebody claims, else null. Written to be read beside the
// protocol's text, not to be fast.
void AgreementWitness::judge_choice(NodeId id, const NewView& m) {
  const auto fail = [&](std::string_view what, Seq n) { ghost_.fail(what, at(id, m.view, n)); };
  Seq start;
  for (const ViewChangePtr& part : m.proof) start = std::max(start, stable_n(part->stable));
  if (m.start != start) return fail("I8 new view: does not start at the highest stable checkpoint", m.start);
  Seq last_needed;  // the highest number with a choice that is not null
  const std::uint64_t window = ghost_.cluster.limits.window_batches;
  for (Seq n = start.next(); n.value <= start.value + window; n = n.next()) {
    const std::size_t index = n.value - start.value - 1;
    const Digest chosen = index < m.chosen.size() ? m.chosen[index] : Digest{};
    std::uint32_t without = 0;
    bool eligible = false;
    bool chosen_eligible = false;
    for (const ViewChangePtr& part : m.proof) {
      const Claim* claim = prepared_at(*part, n);
      if (claim == nullptr) {
        ++without;
        continue;
      }
      std::uint32_t a1 = 0;
      std::uint32_t a2 = 0;
      for (const ViewChangePtr& other : m.proof) {
        const Claim* theirs = prepared_at(*other, n);
        if (theirs == nullptr || theirs->view < claim->view ||
            (theirs->view == claim->view && theirs->digest == claim->digest)) {
          ++a1;
        }
        const Claim* seen = pre_prepared_at(*other, n, claim->digest);
        if (seen != nullptr && seen->view >= claim->view) ++a2;
      }
      if (a1 < quorum_ || a2 < ghost_.f + 1) continue;
      eligible = true;
      chosen_eligible = chosen_eligible || claim->digest == chosen;
    }
    if (eligible ? !chosen_eligible : !chosen.is_zero()) return fail("I8 new view: another choice than its proof's", n);
    if (!eligible && without < quorum_) return fail("I8 new view: decides what its proof leaves open", n);
    if (eligible) last_needed = n;
  }
  const std::size_t length = last_needed > start ? last_needed.value - start.value : 0;
  if (m.chosen.size() != length) return fail("I8 new view: another length than its proof's", last_needed);
  for (Seq n = std::max(start, committed_.pruned()).next(); n <= committed_.last(); n = n.next()) {
    for (const Committed& committed : *committed_.find(n)) {
      if (committed.view < m.view && is_committed(committed) && chosen_by(m, n) != committed.digest) {
        return fail("I9 committed survives: NEW-VIEW leaves it out", n);
      }
    }
  }
}

}  // namespace zz::sim
