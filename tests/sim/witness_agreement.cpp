#include "tests/sim/witness_agreement.hpp"

#include <algorithm>
#include <tuple>

namespace zz::sim {

using namespace agreement;

namespace {

constexpr std::size_t kHeardMax = 64;    // different votes for one number, per receiver
constexpr std::size_t kViewsKept = 64;   // NEW-VIEWs that later commits are held against
constexpr std::size_t kValidKept = 256;  // certificates known to be valid

}  // namespace

AgreementWitness::AgreementWitness(Ghost& ghost) : ghost_(ghost), quorum_(2 * ghost.f + 1), nodes_(ghost.nodes) {}

// ---- what is said ----------------------------------------------------------------------------------------------

void AgreementWitness::sent(const Parcel& parcel) {
  const NodeId from = parcel.from.node();
  if (from.value >= ghost_.nodes || parcel.message->service != ghost_.service) return;
  const Body& body = parcel.message->body;
  if (parcel.to.role == crypto::Role::kNode && ghost_.is_correct(parcel.to.node())) hear(from, parcel.to.node(), body);
  if (!ghost_.is_correct(from)) return;
  Node& node = at_node(from);
  if (node.checked == parcel.message) return;  // the same to another receiver
  node.checked = parcel.message;
  check(from, body);
}

void AgreementWitness::hear(NodeId from, NodeId to, const Body& body) {
  if (const auto* m = std::get_if<Prepare>(&body)) {
    if (Heard* heard = heard_at(from, to, m->view, m->n, m->digest)) heard->prepares |= bit_of(from);
  } else if (const auto* c = std::get_if<Commit>(&body)) {
    if (Heard* heard = heard_at(from, to, c->view, c->n, c->digest)) heard->commits |= bit_of(from);
  } else if (const auto* p = std::get_if<PrePrepare>(&body)) {
    if (!p->header || from != ghost_.primary_of(p->view)) return;
    if (Heard* heard = heard_at(from, to, p->view, p->header->n, p->digest)) heard->proposed = true;
  } else {
    const auto* stable = std::get_if<Stable>(&body);
    const auto* proof = std::get_if<OrderProof>(&body);
    if (stable == nullptr && proof == nullptr) return;
    const CertificatePtr& certificate = stable != nullptr ? stable->certificate : proof->certificate;
    Seq& certified = at_node(to).certified;
    if (stable_n(certificate) > certified && valid(certificate)) certified = certificate->state.n;
  }
}

AgreementWitness::Heard* AgreementWitness::heard_at(NodeId from, NodeId to, View view, Seq n, const Digest& digest) {
  ByNumber<HeardAt>& table = at_node(to).heard;
  // What lies further ahead cannot be in anybody's window when it comes.
  const std::uint64_t last = highest_stable_.value + 4 * std::uint64_t{ghost_.cluster.limits.window_batches};
  if (n <= table.pruned() || n.value > last) return nullptr;
  HeardAt& there = table.at(n);
  for (Heard& heard : there.votes) {
    if (heard.view == view && heard.digest == digest) return &heard;
  }
  if (there.votes.size() >= kHeardMax && !ghost_.is_correct(from)) {
    there.flooded = true;
    return nullptr;
  }
  there.votes.push_back({view, digest, false, 0, 0});
  return &there.votes.back();
}

void AgreementWitness::check(NodeId node, const Body& body) {
  if (const auto* m = std::get_if<Prepare>(&body)) return vote(node, Word::kPrepare, m->view, m->n, m->digest);
  if (const auto* m = std::get_if<Commit>(&body)) return vote(node, Word::kCommit, m->view, m->n, m->digest);
  if (const auto* m = std::get_if<PrePrepare>(&body)) {
    if (!m->header) return ghost_.fail("I7 votes: a proposal without a header", at(node, m->view));
    return vote(node, Word::kProposal, m->view, m->header->n, m->digest);
  }
  if (const auto* m = std::get_if<Checkpoint>(&body)) return checkpoint(node, *m);
  if (const auto* m = std::get_if<ViewChangePtr>(&body)) return view_change(node, *m);
  if (const auto* m = std::get_if<NewViewPtr>(&body)) return new_view(node, *m);
  if (const auto* m = std::get_if<Stable>(&body)) return certificate(node, m->certificate);
  if (const auto* m = std::get_if<Progress>(&body)) {
    View& told = at_node(node).view_told;
    if (m->view < told) ghost_.fail("I7 view: PROGRESS names a lower view than before", at(node, m->view));
    told = m->view;
    return;
  }
  check_order_words(node, body);
}

// What a correct node tells others of the order.
void AgreementWitness::check_order_words(NodeId node, const Body& body) {
  if (const auto* m = std::get_if<Orders>(&body)) {
    for (std::size_t i = 0; i < m->digests.size(); ++i) said(node, Seq{m->first_n.value + i}, m->digests[i]);
  } else if (const auto* b = std::get_if<Batch>(&body)) {
    if (b->header) said(node, b->header->n, b->digest);
  } else if (const auto* p = std::get_if<OrderProof>(&body)) {
    certificate(node, p->certificate);
    for (std::size_t i = 0; i < p->digests.size(); ++i) said(node, Seq{p->from.value + i}, p->digests[i]);
  }
}

void AgreementWitness::said(NodeId node, Seq n, const Digest& digest) {
  if (n.value == 0) return ghost_.fail("I1 agreement: names batch 0 as ordered", at(node, n));
  if (n <= top()) {
    if (order_[n.value - 1].digest != digest) ghost_.fail("I1 agreement: says another digest is ordered", at(node, n));
    return;
  }
  const auto [it, fresh] = told_.emplace(n, digest);
  if (!fresh && it->second != digest) ghost_.fail("I1 agreement: says another digest is ordered", at(node, n));
}

// ---- votes -----------------------------------------------------------------------------------------------------

void AgreementWitness::vote(NodeId id, Word word, View view, Seq n, const Digest& digest) {
  Node& node = at_node(id);
  if (view < node.view) return ghost_.fail("I7 view: a vote in a lower view than before", at(id, view, n));
  node.view = view;
  if (n.value > node.stable.value + ghost_.cluster.limits.window_batches || n.value == 0) {
    return ghost_.fail("I10 window: a vote above h + window", at(id, view, n));
  }
  if (n <= node.own.pruned()) return;
  const bool primary = ghost_.primary_of(view) == id;
  if (word != Word::kCommit && primary != (word == Word::kProposal)) {
    return ghost_.fail("I7 votes: a word that is not this node's to say", at(id, view, n));
  }
  const Own* own = own_at(id, view, n, digest);
  if (own == nullptr) return;
  if (word == Word::kCommit ? !own->prepared : !own->accepted) {
    return ghost_.fail("I12 write-ahead: a vote left before its record was on disk", at(id, view, n));
  }
  if (view.value > 0 && !node.entered.contains(view)) {
    return ghost_.fail("I12 write-ahead: a vote in a view whose NEW-VIEW is not on disk", at(id, view, n));
  }
  if (const auto chosen = chosen_for(id, view, n); chosen && *chosen != digest) {
    return ghost_.fail("I8 new view: a vote against its choice", at(id, view, n));
  }
  if (!primary && !proposed_to(id, view, n, digest)) {
    return ghost_.fail("I6 quorum: a vote for what the primary did not propose", at(id, view, n));
  }
  if (word == Word::kCommit) {
    if (count(id, Word::kPrepare, view, n, digest) < 2 * ghost_.f) {
      return ghost_.fail("I6 quorum: COMMIT without 2f equal PREPAREs", at(id, view, n));
    }
    note_commit(id, view, n, digest);
  } else {
    survives(id, view, n, digest);
  }
}

// Nothing when it contradicts what this node stood for before.
AgreementWitness::Own* AgreementWitness::own_at(NodeId id, View view, Seq n, const Digest& digest) {
  std::vector<Own>& all = at_node(id).own.at(n);
  for (Own& own : all) {
    if (own.view != view) continue;
    if (own.digest == digest) return &own;
    ghost_.fail("I7 votes: two digests for one view and number", at(id, view, n));
    return nullptr;
  }
  all.push_back({view, digest, false, false});
  return &all.back();
}

// By its proposal, or by f+1 others' PREPAREs, of which one is a correct node's that had it.
bool AgreementWitness::proposed_to(NodeId id, View view, Seq n, const Digest& digest) {
  if (chosen_for(id, view, n) == digest) return true;
  const HeardAt* there = at_node(id).heard.find(n);
  if (there == nullptr) return false;
  if (there->flooded && !ghost_.is_correct(ghost_.primary_of(view))) return true;
  return std::any_of(there->votes.begin(), there->votes.end(), [&](const Heard& heard) {
    if (heard.view != view || heard.digest != digest) return false;
    return heard.proposed || size_of(heard.prepares & ~bit_of(ghost_.primary_of(view)) & ~bit_of(id)) > ghost_.f;
  });
}

// Distinct nodes whose PREPARE or COMMIT for this was sent to the node, its own included. The primary's word is its
// proposal: it has no PREPARE.
std::uint32_t AgreementWitness::count(NodeId id, Word word, View view, Seq n, const Digest& digest) {
  Mask voters = 0;
  if (const HeardAt* there = at_node(id).heard.find(n)) {
    for (const Heard& heard : there->votes) {
      if (heard.view == view && heard.digest == digest) {
        voters = word == Word::kCommit ? heard.commits : heard.prepares;
      }
    }
    if (there->flooded) voters |= ~ghost_.correct & ((Mask{1} << ghost_.nodes) - 1);
  }
  if (const auto* all = at_node(id).own.find(n)) {
    for (const Own& own : *all) {
      const bool counts = word == Word::kCommit ? own.prepared : own.accepted;
      if (counts && own.view == view && own.digest == digest) voters |= bit_of(id);
    }
  }
  if (word == Word::kPrepare) voters &= ~bit_of(ghost_.primary_of(view));
  return size_of(voters);
}

// What the NEW-VIEW chose, with null as its digest; nothing where it leaves the number open.
std::optional<Digest> AgreementWitness::chosen_by(const NewView& message, Seq n) {
  if (n <= message.start || n.value - message.start.value > message.chosen.size()) return std::nullopt;
  const Digest& chosen = message.chosen[n.value - message.start.value - 1];
  return chosen.is_zero() ? null_digest(n) : chosen;
}

std::optional<Digest> AgreementWitness::chosen_for(NodeId id, View view, Seq n) {
  if (view.value == 0) return std::nullopt;
  const auto& entered = at_node(id).entered;
  const auto it = entered.find(view);
  return it == entered.end() ? std::nullopt : chosen_by(*it->second, n);
}

const Digest& AgreementWitness::null_digest(Seq n) {
  const auto it = nulls_.find(n);
  if (it != nulls_.end()) return it->second;
  return nulls_.emplace(n, batch_digest(*null_header(ghost_.service, n))).first->second;
}

// ---- committed -------------------------------------------------------------------------------------------------

// f+1 correct nodes have prepared it: no later view may take anything else.
void AgreementWitness::note_commit(NodeId id, View view, Seq n, const Digest& digest) {
  if (n <= committed_.pruned()) return;
  std::vector<Committed>& all = committed_.at(n);
  const auto is = [&](const Committed& c) { return c.view == view && c.digest == digest; };
  auto it = std::find_if(all.begin(), all.end(), is);
  if (it == all.end()) it = all.insert(all.end(), Committed{view, digest, 0});
  if ((it->by & bit_of(id)) != 0) return;
  const bool was = is_committed(*it);
  it->by |= bit_of(id);
  if (was || !is_committed(*it)) return;
  for (const Committed& other : all) {
    if (other.digest != digest && is_committed(other)) {
      return ghost_.fail("I9 committed survives: two digests committed", at(id, view, n));
    }
  }
  for (const NewViewPtr& later : views_) {
    if (later->view > view && n > later->start && chosen_by(*later, n) != digest) {
      return ghost_.fail("I9 committed survives: a later NEW-VIEW left it out", at(id, later->view, n));
    }
  }
  for (std::uint16_t i = 0; i < ghost_.nodes; ++i) {
    const auto* own = nodes_[i].own.find(n);
    if (own == nullptr || !ghost_.is_correct(NodeId{i})) continue;
    for (const Own& other : *own) {
      if (other.view > view && other.digest != digest) {
        return ghost_.fail("I9 committed survives: another digest in a later view", at(NodeId{i}, other.view, n));
      }
    }
  }
}

void AgreementWitness::survives(NodeId id, View view, Seq n, const Digest& digest) {
  const auto* all = committed_.find(n);
  if (all == nullptr) return;
  for (const Committed& committed : *all) {
    if (committed.view < view && committed.digest != digest && is_committed(committed)) {
      ghost_.fail("I9 committed survives: a vote for another digest in a later view", at(id, view, n));
    }
  }
}

// ---- checkpoints -----------------------------------------------------------------------------------------------

void AgreementWitness::sign(NodeId id, const CheckpointState& state) {
  SignedState& known = signed_[state.n];
  if ((known.by & ghost_.correct) == 0) known = {state, 0};
  if (known.state != state) return ghost_.fail("I16 checkpoints: two states of one number signed", at(id, state.n));
  known.by |= bit_of(id);
  if (state.n > top() || state.n.value == 0)
    return ghost_.fail("I6 quorum: CHECKPOINT beyond the order", at(id, state.n));
  const GhostBatch& batch = order_[state.n.value - 1];
  if (batch.history != state.history) return ghost_.fail("I16 checkpoints: not the order's history", at(id, state.n));
  if (batch.results != state.results) return ghost_.fail("I16 checkpoints: not the reference results", at(id, state.n));
}

void AgreementWitness::checkpoint(NodeId id, const Checkpoint& message) {
  if (message.signer != id) return;
  if (message.state.n > at_node(id).ever_delivered) {
    return ghost_.fail("I6 quorum: CHECKPOINT of what was not delivered", at(id, message.state.n));
  }
  // Others let go of what they have below a stable checkpoint.
  if (message.state.n > at_node(id).order_on_disk) {
    return ghost_.fail("I12 write-ahead: a CHECKPOINT left before the order was on disk", at(id, message.state.n));
  }
  sign(id, message.state);
}

bool AgreementWitness::valid(const CertificatePtr& certificate) {
  if (valid_.contains(certificate.get())) return true;
  const auto known = signed_.find(certificate->state.n);
  if (known == signed_.end() || known->second.state != certificate->state) return false;
  Mask signers = 0;
  for (const StableCertificate::Part& part : certificate->parts) {
    if (part.signer.value >= ghost_.nodes || (signers & bit_of(part.signer)) != 0) return false;
    signers |= bit_of(part.signer);
  }
  if ((signers & ghost_.correct & ~known->second.by) != 0 || size_of(signers) < quorum_) return false;
  if (valid_.size() >= kValidKept) valid_.clear();
  valid_.emplace(certificate.get(), certificate);
  return true;
}

void AgreementWitness::certificate(NodeId id, const CertificatePtr& certificate) {
  if (!certificate) return;
  note_own(id, *certificate);
  if (!valid(certificate)) ghost_.fail("I6 quorum: a certificate without 2f+1 signers", at(id, certificate->state.n));
}

// Its own signature may be in the certificate before its CHECKPOINT left.
void AgreementWitness::note_own(NodeId id, const StableCertificate& certificate) {
  for (const StableCertificate::Part& part : certificate.parts) {
    if (part.signer == id && certificate.state.n <= top()) sign(id, certificate.state);
  }
}

void AgreementWitness::stable(NodeId id, const CertificatePtr& certificate) {
  Node& node = at_node(id);
  if (!certificate) return ghost_.fail("I10 window: a stable checkpoint without a certificate", at(id, node.stable));
  const Seq n = certificate->state.n;
  if (n < node.stable) return ghost_.fail("I10 window: the stable checkpoint went down", at(id, n));
  note_own(id, *certificate);
  if (!valid(certificate)) return ghost_.fail("I10 window: h moved without a valid certificate", at(id, n));
  node.stable = n;
  node.certified = std::max(node.certified, n);
  highest_stable_ = std::max(highest_stable_, n);
  prune();
}

void AgreementWitness::prune() {
  Seq lowest = highest_stable_;
  for (std::uint16_t i = 0; i < ghost_.nodes; ++i) {
    if (ghost_.is_correct(NodeId{i})) lowest = std::min(lowest, nodes_[i].stable);
  }
  if (lowest <= lowest_stable_) return;
  lowest_stable_ = lowest;
  committed_.prune(lowest);
  nulls_.erase(nulls_.begin(), nulls_.upper_bound(lowest));
  for (Node& node : nodes_) {
    node.own.prune(lowest);
    node.heard.prune(lowest);
  }
}

// ---- records ---------------------------------------------------------------------------------------------------

void AgreementWitness::persisted(NodeId id, const LogRecord& record) {
  Node& node = at_node(id);
  if (const auto* a = std::get_if<AcceptedRecord>(&record)) {
    if (a->n <= node.own.pruned()) return;
    if (a->n.value > highest_stable_.value + 4 * std::uint64_t{ghost_.cluster.limits.window_batches}) {
      return ghost_.fail("I10 window: accepted beyond the window", at(id, a->view, a->n));
    }
    if (Own* own = own_at(id, a->view, a->n, a->digest)) own->accepted = true;
  } else if (const auto* p = std::get_if<PreparedRecord>(&record)) {
    if (p->n <= node.own.pruned()) return;
    if (p->n.value > highest_stable_.value + 4 * std::uint64_t{ghost_.cluster.limits.window_batches}) {
      return ghost_.fail("I10 window: prepared beyond the window", at(id, p->view, p->n));
    }
    if (Own* own = own_at(id, p->view, p->n, p->digest)) own->prepared = true;
  } else if (const auto* v = std::get_if<ViewRecord>(&record)) {
    if (v->view < node.view_on_disk) return ghost_.fail("I7 view: the view on disk went down", at(id, v->view));
    node.view_on_disk = v->view;
    if (v->changing) {
      if (v->sent) node.changes.emplace(v->view, v->sent);
    } else if (v->accepted) {
      const auto [it, fresh] = node.entered.emplace(v->view, v->accepted);
      if (!fresh && !same(*it->second, *v->accepted)) {
        return ghost_.fail("I7 view: two NEW-VIEWs accepted for one view", at(id, v->view));
      }
      if (std::find(views_.begin(), views_.end(), v->accepted) != views_.end()) return;
      judge(id, *v->accepted);
      if (views_.size() >= kViewsKept) views_.erase(views_.begin());
      views_.push_back(v->accepted);
    }
  } else if (const auto* s = std::get_if<StableRecord>(&record)) {
    stable(id, s->certificate);
  } else if (const auto* o = std::get_if<OrderedRecord>(&record)) {
    node.order_on_disk = std::max(node.order_on_disk, o->n);
  }
}

void AgreementWitness::restarted(NodeId id, bool amnesiac) {
  Node& node = at_node(id);
  node.fresh = true;
  node.checked = nullptr;
  if (amnesiac) ghost_.correct &= ~bit_of(id);
}

// ---- delivery --------------------------------------------------------------------------------------------------

bool AgreementWitness::check_bodies(NodeId id, const Delivery& d) {
  const Seq n = d.header->n;
  const bool known = n <= top();
  const auto fail = [&](std::string_view what) {
    ghost_.fail(what, at(id, n));
    return false;
  };
  if (known && order_[n.value - 1].digest != d.digest) return fail("I1 agreement: two digests delivered");
  if ((!known || order_[n.value - 1].header != d.header) && batch_digest(*d.header) != d.digest) {
    return fail("I1 agreement: a digest that is not its header's");
  }
  if (d.requests.size() != d.header->references.size()) return fail("I2 prefix: bodies are missing");
  for (std::size_t i = 0; i < d.requests.size(); ++i) {
    const RequestPtr& request = d.requests[i];
    const Reference& reference = d.header->references[i];
    if (!request || reference_of(*request) != reference) return fail("I2 prefix: a body of another request");
    const bool right = known ? request->op == order_[n.value - 1].requests[i]->op
                             : request_digest(ghost_.service, request->client, request->session, request->number,
                                              request->flags, request->op.view()) == reference.digest;
    if (!right) return fail("I2 prefix: a body that its digest does not name");
  }
  return true;
}

bool AgreementWitness::delivered(NodeId id, const Delivery& d) {
  Node& node = at_node(id);
  const auto fail = [&](std::string_view what) {
    ghost_.fail(what, at(id, d.header ? d.header->n : node.delivered.next()));
    return false;
  };
  // A new life goes on from what its log gave back, which is at most what it had.
  const bool goes_on = d.header && (node.fresh ? d.header->n <= node.ever_delivered.next() && d.header->n.value > 0
                                               : d.header->n == node.delivered.next());
  if (!goes_on) return fail("I2 prefix: a hole in the order");
  node.fresh = false;
  const Seq n = d.header->n;
  if (!check_bodies(id, d)) return false;
  const GhostBatch* before = n.value > 1 ? &order_[n.value - 2] : nullptr;
  const Digest history = n <= top() ? order_[n.value - 1].history
                                    : history_digest(before != nullptr ? before->history : Digest{}, d.digest);
  if (d.history != history) return fail("I2 prefix: not the history of what was delivered");
  const Micros time = agreed_time(before != nullptr ? before->time : Micros{}, *d.header);
  if (d.time != time) return fail("I20 agreed time: not the one that follows from the order");
  if (before != nullptr && d.time <= before->time) return fail("I20 agreed time: does not increase");
  if (n > node.certified && n > node.ever_delivered) {
    const HeardAt* there = node.heard.find(n);
    bool backed = false;
    if (const auto* own = node.own.find(n)) {
      for (const Own& o : *own) {
        backed = backed || (o.digest == d.digest && count(id, Word::kCommit, o.view, n, d.digest) >= quorum_);
      }
    }
    if (there != nullptr) {
      for (const Heard& heard : there->votes) {
        backed = backed || (heard.digest == d.digest && count(id, Word::kCommit, heard.view, n, d.digest) >= quorum_);
      }
    }
    if (!backed) return fail("I6 quorum: delivered without 2f+1 equal COMMITs or a certificate");
  }
  node.delivered = n;
  node.ever_delivered = std::max(node.ever_delivered, n);
  if (n <= top()) return false;
  const auto told = told_.find(n);
  if (told != told_.end() && told->second != d.digest)
    return fail("I1 agreement: another digest was said to be ordered");
  told_.erase(told_.begin(), told_.upper_bound(n));
  order_.push_back({n, d.digest, d.history, {}, d.time, d.header, d.requests});
  return true;
}

}  // namespace zz::sim
