// The adversaries that know the protocol: equivocation, forgery, complaints.

#include <algorithm>
#include <array>
#include <utility>

#include "tests/sim/adversary_parts.hpp"

namespace zz::sim {

using namespace agreement;

namespace {

bool is_faulty(const AdversaryWorld& world, const crypto::Peer& peer) {
  return peer.role == crypto::Role::kNode && world.keys.contains(peer.node());
}

// ---- equivocate ------------------------------------------------------------------------------------------------

// Receivers fall into two or three groups per (view, n), which all accomplices know; group 0 gets what is real.
class Equivocate final : public Faulty {
 public:
  Equivocate() : Faulty("equivocate") {}

  bool incoming(AdversaryWorld& world, const Parcel& parcel) override {
    const auto* m = std::get_if<PrePrepare>(&parcel.message->body);
    if (m == nullptr || !is_faulty(world, parcel.from)) return true;
    learn(*m);
    for (std::uint16_t i = 0; i < world.cluster.n(); ++i) {
      const NodeId to{i};
      if (to == world.self || world.keys.contains(to)) continue;
      const Digest digest = digest_for(m->view, m->header->n, to);
      count(world.counters, "byzantine.equivocate.accomplice");
      send(world, peer_of(to), parcel.message->service, Prepare{m->view, m->header->n, digest}, pending_);
      send(world, peer_of(to), parcel.message->service, Commit{m->view, m->header->n, digest}, pending_, kLater);
    }
    return true;
  }

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    const Body& body = parcel.message->body;
    if (parcel.to.role != crypto::Role::kNode || is_faulty(world, parcel.to)) {
      if (const auto* m = std::get_if<PrePrepare>(&body)) learn(*m);
      return pass(parcel, out);
    }
    if (const auto* m = std::get_if<PrePrepare>(&body)) return propose(world, parcel, *m, out);
    if (const auto* m = std::get_if<Prepare>(&body)) return vote(world, parcel, *m, out);
    if (const auto* m = std::get_if<Commit>(&body)) return vote(world, parcel, *m, out);
    pass(parcel, out);
  }

  void act(AdversaryWorld&, std::vector<Leaving>& out) override {
    for (Leaving& leaving : pending_) out.push_back(std::move(leaving));
    pending_.clear();
  }

 private:
  static constexpr std::size_t kMax = 128;
  static constexpr Micros kLater{30'000};
  using Variants = std::array<HeaderPtr, 3>;

  [[nodiscard]] static std::size_t group_of(View view, Seq n, NodeId receiver) {
    const std::uint64_t groups = (view.value * 31 + n.value) % 5 == 0 ? 3 : 2;
    return (receiver.value + view.value + n.value) % groups;
  }

  [[nodiscard]] static HeaderPtr variant(const HeaderPtr& real, std::size_t group) {
    if (group == 0) return real;
    auto header = std::make_shared<BatchHeader>(*real);
    header->time.value += static_cast<std::int64_t>(group);
    auto& references = header->references;
    if ((real->n.value + group) % 3 == 0 && references.size() > 1) references.pop_back();
    if ((real->n.value + group) % 3 == 1) std::reverse(references.begin(), references.end());
    return header;
  }

  Variants& learn(const PrePrepare& m) {
    const auto known = variants_.find({m.view, m.header->n});
    if (known != variants_.end() && known->second[0] == m.header) return known->second;
    if (variants_.size() >= kMax) variants_.erase(variants_.begin());
    Variants& made = variants_[{m.view, m.header->n}];
    auto& digests = digests_[{m.view, m.header->n}];
    for (std::size_t group = 0; group < made.size(); ++group) {
      made[group] = variant(m.header, group);
      digests[group] = batch_digest(*made[group]);
    }
    while (digests_.size() > kMax) digests_.erase(digests_.begin());
    return made;
  }

  [[nodiscard]] Digest digest_for(View view, Seq n, NodeId receiver) const {
    const auto it = digests_.find({view, n});
    return it == digests_.end() ? invented(view, n) : it->second[group_of(view, n, receiver)];
  }

  void propose(AdversaryWorld& world, const Parcel& parcel, const PrePrepare& m, std::vector<Leaving>& out) {
    const NodeId to = parcel.to.node();
    const Seq n = m.header->n;
    const std::size_t group = group_of(m.view, n, to);
    const HeaderPtr header = learn(m)[group];
    if (group == 0) return pass(parcel, out);
    const Digest digest = digest_for(m.view, n, to);
    count(world.counters, "byzantine.equivocate.proposal");
    replace(parcel, PrePrepare{m.view, header, digest}, out);
    // Its own code will never see this batch prepared: the vote is said for it.
    send(world, parcel.to, parcel.message->service, Commit{m.view, n, digest}, out, kLater);
  }

  template <class Ballot>
  void vote(AdversaryWorld& world, const Parcel& parcel, Ballot m, std::vector<Leaving>& out) {
    const NodeId to = parcel.to.node();
    const auto known = digests_.find({m.view, m.n});
    const std::size_t group = group_of(m.view, m.n, to);
    if (group == 0 || (known == digests_.end() && odds(world.prng, 50))) return pass(parcel, out);
    count(world.counters, "byzantine.equivocate.vote");
    m.digest = digest_for(m.view, m.n, to);
    replace(parcel, m, out);
  }

  std::map<std::pair<View, Seq>, Variants> variants_;
  std::map<std::pair<View, Seq>, std::array<Digest, 3>> digests_;
  std::vector<Leaving> pending_;
};

// ---- forge -----------------------------------------------------------------------------------------------------

// About one forged signature a second: each costs its receivers a check.
class Forge final : public Faulty {
 public:
  Forge() : Faulty("forge") {}

  bool incoming(AdversaryWorld&, const Parcel& parcel) override {
    if (const auto* m = std::get_if<ViewChangePtr>(&parcel.message->body)) model_ = *m;
    return true;
  }

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    bearings_.heed(parcel);
    const Body& body = parcel.message->body;
    if (std::holds_alternative<PrePrepare>(body)) {
      const MessagePtr changed = proposals_.proposal(
          parcel.message, [&](const BatchHeader& real) -> HeaderPtr { return with_invented(world, real); });
      return pass(changed ? Parcel{parcel.from, parcel.to, changed} : parcel, out);
    }
    if (const MessagePtr changed = proposals_.vote(*parcel.message)) {
      return pass(Parcel{parcel.from, parcel.to, changed}, out);
    }
    const auto* bodies = std::get_if<Bodies>(&body);
    const auto* headers = std::get_if<Headers>(&body);
    const auto* batch = std::get_if<Batch>(&body);
    if ((bodies == nullptr && headers == nullptr && batch == nullptr) || odds(world.prng, 40)) return pass(parcel, out);
    count(world.counters, "byzantine.forge.garbage");
    if (bodies != nullptr) return replace(parcel, spoiled(world, *bodies), out);
    if (headers != nullptr) return replace(parcel, spoiled(world, *headers), out);
    replace(parcel, spoiled(*batch), out);
  }

  void act(AdversaryWorld& world, std::vector<Leaving>& out) override {
    if (!odds(world.prng, 2)) return;
    const NodeId to = other_node(world);
    switch (world.prng.below(4)) {
      case 0:
        count(world.counters, "byzantine.forge.view-change");
        return send(world, peer_of(to), bearings_.service,
                    forged_change(world, other_node(world), bearings_.view.next()), out);
      case 1:
        count(world.counters, "byzantine.forge.checkpoint");
        return send(world, peer_of(to), bearings_.service, forged_checkpoint(world, other_node(world)), out);
      case 2:
        count(world.counters, "byzantine.forge.new-view");
        return send(world, peer_of(to), bearings_.service, forged_view(world), out);
      default:
        count(world.counters, "byzantine.forge.unasked");
        return send(world, peer_of(to), bearings_.service, unasked(world), out);
    }
  }

 private:
  [[nodiscard]] HeaderPtr with_invented(AdversaryWorld& world, const BatchHeader& real) const {
    if (!odds(world.prng, 10) || world.cluster.clients.empty()) return nullptr;
    count(world.counters, "byzantine.forge.invented-request");
    auto header = std::make_shared<BatchHeader>(real);
    Reference reference = invented_reference(world);
    // Also in the name of a session that is there.
    if (!real.references.empty() && odds(world.prng, 70)) {
      reference = real.references.front();
      reference.number.value += world.prng.below(8);
      reference.digest = random_digest(world.prng);
    }
    header->references.push_back(reference);
    return header;
  }
  [[nodiscard]] static Reference invented_reference(AdversaryWorld& world) {
    const auto& clients = world.cluster.clients;
    return {clients[world.prng.below(clients.size())].id, SessionId{1 + world.prng.below(1'000)},
            RequestNumber{1 + world.prng.below(16)}, random_digest(world.prng)};
  }

  [[nodiscard]] static RequestPtr garbage(const AdversaryWorld& world, const Request& like) {
    auto made = std::make_shared<Request>(like);
    made->op = SharedBytes::copy("put k0 forged");
    made->digest = request_digest(world.cluster.services.front().id, made->client, made->session, made->number,
                                  made->flags, made->op.view());
    return made;
  }
  [[nodiscard]] static Bodies spoiled(const AdversaryWorld& world, Bodies bodies) {
    for (RequestPtr& request : bodies.requests) request = garbage(world, *request);
    return bodies;
  }
  [[nodiscard]] static Headers spoiled(AdversaryWorld& world, Headers headers) {
    for (HeaderPtr& header : headers.headers) {
      auto made = std::make_shared<BatchHeader>(*header);
      made->references.push_back(invented_reference(world));
      header = std::move(made);
    }
    return headers;
  }
  [[nodiscard]] static Batch spoiled(Batch batch) {
    auto header = std::make_shared<BatchHeader>(*batch.header);
    header->time.value += 1;
    batch.digest = batch_digest(*header);
    batch.header = std::move(header);
    return batch;
  }

  // In anybody's name, with the key of accomplices only.
  [[nodiscard]] ViewChangePtr forged_change(const AdversaryWorld& world, NodeId signer, View view) const {
    auto made = model_ ? std::make_shared<ViewChange>(*model_) : std::make_shared<ViewChange>();
    made->service = bearings_.service;
    made->signer = signer;
    if (made->view != view) made->complaints.clear();  // they show nothing there
    made->view = view;
    if (!made->stable) made->stable = bearings_.certificate;
    const auto above = [&](const Claim& claim) { return claim.view >= view || claim.n <= stable_n(made->stable); };
    std::erase_if(made->prepared, above);
    std::erase_if(made->pre_prepared, above);
    made->signature = sign_as(world, signer, view_change_fields(world.cluster.id, *made));
    return made;
  }

  [[nodiscard]] Checkpoint forged_checkpoint(const AdversaryWorld& world, NodeId signer) const {
    Checkpoint made;
    made.service = bearings_.service;
    made.signer = signer;
    made.state.n = Seq{bearings_.stable.value + world.cluster.limits.checkpoint_batches};
    made.state.history = invented(View{}, made.state.n);
    made.signature = sign_as(world, signer, checkpoint_fields(world.cluster.id, made.service, made.signer, made.state));
    return made;
  }

  // f of its VIEW-CHANGEs are good at best.
  [[nodiscard]] NewViewPtr forged_view(const AdversaryWorld& world) const {
    auto made = std::make_shared<NewView>();
    made->service = bearings_.service;
    made->view = bearings_.view.next();
    made->signer = primary_of(world.cluster, bearings_.service, made->view);
    for (std::uint16_t i = 0; i < 2 * world.cluster.f + 1; ++i) {
      made->proof.push_back(forged_change(world, NodeId{i}, made->view));
      made->start = std::max(made->start, stable_n(made->proof.back()->stable));
    }
    made->signature = sign_as(world, made->signer, new_view_fields(world.cluster.id, *made));
    return made;
  }

  [[nodiscard]] Body unasked(AdversaryWorld& world) const {
    auto header = std::make_shared<BatchHeader>();
    header->service = bearings_.service;
    header->n = bearings_.n.next();
    header->references.push_back(invented_reference(world));
    if (odds(world.prng, 20)) return Propose{forged_operation(world)};
    if (odds(world.prng, 30)) return Headers{{header}};
    if (odds(world.prng, 50)) return Vouched{{invented_reference(world)}};
    Request like;
    like.client = header->references.front().client;
    like.session = header->references.front().session;
    like.number = header->references.front().number;
    const RequestPtr request = garbage(world, like);
    if (odds(world.prng, 50)) return Bodies{{request}};
    header->references.front() = reference_of(*request);
    const Digest digest = batch_digest(*header);
    return Batch{header, digest, {request}};
  }

  // A JOIN that no host signed, or an eviction that f nodes want.
  [[nodiscard]] SystemOp forged_operation(AdversaryWorld& world) const {
    const auto& slots = world.cluster.services.front().slots;
    const SlotId slot = slots[world.prng.below(slots.size())].id;
    const Incarnation incarnation{1 + world.prng.below(4)};
    if (odds(world.prng, 50)) {
      Join join{bearings_.service, slot, incarnation, {random_digest(world.prng).bytes}, {}};
      join.signature = sign_as(world, world.self, join_fields(world.cluster.id, join));
      return join;
    }
    EpochChange change;
    change.epoch = bearings_.epoch.next();
    change.evicted = {slot};
    for (const crypto::SlotEntry& other : slots) {
      if (other.id != slot && change.active.size() <= world.cluster.services.front().g)
        change.active.push_back(other.id);
    }
    for (std::uint16_t i = 0; i <= world.cluster.f; ++i) {
      Suspect suspect{bearings_.service, NodeId{i},         bearings_.epoch, slot, incarnation,
                      bearings_.n,       Suspicion::kWrong, change.active,   {}};
      suspect.signature = sign_as(world, suspect.signer, suspect_fields(world.cluster.id, suspect));
      change.proof.push_back(std::move(suspect));
    }
    return change;
  }

  Bearings bearings_;
  ViewChangePtr model_;
  ChangedProposals proposals_;
};

// ---- complain --------------------------------------------------------------------------------------------------

// Each complaint about once a second; what it names is mostly current, so that the signature is what it costs.
class Complain final : public Faulty {
 public:
  Complain() : Faulty("complain") {}

  bool incoming(AdversaryWorld&, const Parcel& parcel) override {
    if (const auto* vote = std::get_if<Vote>(&parcel.message->body)) {
      if (bearings_.incarnations.size() <= vote->slot.value && vote->slot.value < 64) {
        bearings_.incarnations.resize(vote->slot.value + std::size_t{1});
      }
      if (vote->slot.value < bearings_.incarnations.size())
        bearings_.incarnations[vote->slot.value] = vote->incarnation;
    }
    const auto* progress = std::get_if<Progress>(&parcel.message->body);
    if (progress != nullptr && parcel.from.role == crypto::Role::kNode) hear(parcel.from.node(), *progress);
    return true;
  }
  void outgoing(AdversaryWorld&, const Parcel& parcel, std::vector<Leaving>& out) override {
    bearings_.heed(parcel);
    pass(parcel, out);
  }

  void act(AdversaryWorld& world, std::vector<Leaving>& out) override {
    if (odds(world.prng, 2)) complain(world, out);
    if (odds(world.prng, 2)) suspect(world, out);
    if (odds(world.prng, 2)) wake(world, out);
  }

 private:
  void complain(AdversaryWorld& world, std::vector<Leaving>& out) const {
    count(world.counters, "byzantine.complain.view-change");
    auto made = std::make_shared<ViewChange>();
    made->service = bearings_.service;
    made->signer = world.self;
    made->view = View{bearings_.view.value + 1 + (odds(world.prng, 20) ? world.prng.below(1'000) : 0)};
    made->stable = bearings_.certificate;
    made->complaints = shown(world, View{made->view.value - 1});
    made->signature = world.keys.at(world.self)->sign(view_change_fields(world.cluster.id, *made));
    tell_all(world, ViewChangePtr{std::move(made)}, out);
  }

  void tell_all(const AdversaryWorld& world, const Body& body, std::vector<Leaving>& out) const {
    for (std::uint16_t i = 0; i < world.cluster.n(); ++i) {
      if (NodeId{i} != world.self) send(world, peer_of(NodeId{i}), bearings_.service, body, out);
    }
  }

  // Keeps complaints after they were taken back: it can end each of these views once, at any time (decision 0014).
  void hear(NodeId from, const Progress& progress) {
    if (!progress.complains) return;
    heard_[progress.view][from] = progress.complaint;
    if (heard_.size() > kViewsMax) heard_.erase(heard_.begin());
  }
  [[nodiscard]] std::vector<StableCertificate::Part> shown(AdversaryWorld& world, View view) const {
    std::map<NodeId, crypto::Signature> parts;
    if (const auto found = heard_.find(view); found != heard_.end()) parts = found->second;
    for (const auto& [node, key] : world.keys) {
      parts[node] = key->sign(complaint_fields(world.cluster.id, bearings_.service, node, view));
    }
    const std::size_t quorum = 2 * world.cluster.f + 1;
    std::vector<StableCertificate::Part> out;
    if (parts.size() < quorum) {
      if (!odds(world.prng, 30)) return out;
      count(world.counters, "byzantine.complain.forged");
      const crypto::Signature own = parts.at(world.self);
      for (std::uint16_t i = 0; parts.size() < quorum; ++i) parts.try_emplace(NodeId{i}, own);
    } else {
      count(world.counters, "byzantine.complain.shown");
    }
    for (const auto& [node, signature] : parts) out.push_back({node, signature});
    return out;
  }

  [[nodiscard]] SlotId any_slot(AdversaryWorld& world) const {
    const std::size_t slots = world.cluster.services.front().slots.size();
    return SlotId{static_cast<std::uint16_t>(world.prng.below(slots))};
  }
  [[nodiscard]] Incarnation incarnation_of(AdversaryWorld& world, SlotId slot) const {
    const bool known = slot.value < bearings_.incarnations.size() && bearings_.incarnations[slot.value].value != 0;
    return known && !odds(world.prng, 10) ? bearings_.incarnations[slot.value] : Incarnation{1 + world.prng.below(4)};
  }

  void suspect(AdversaryWorld& world, std::vector<Leaving>& out) const {
    count(world.counters, "byzantine.complain.suspect");
    Suspect made;
    made.service = bearings_.service;
    made.signer = world.self;
    made.epoch = bearings_.epoch;
    made.slot = any_slot(world);
    made.incarnation = incarnation_of(world, made.slot);
    made.n = bearings_.n;
    made.why = static_cast<Suspicion>(world.prng.below(3));
    for (const crypto::SlotEntry& slot : world.cluster.services.front().slots) {
      if (slot.id != made.slot) made.agreeing.push_back(slot.id);
    }
    made.signature = world.keys.at(world.self)->sign(suspect_fields(world.cluster.id, made));
    tell_all(world, made, out);
  }

  void wake(AdversaryWorld& world, std::vector<Leaving>& out) const {
    count(world.counters, "byzantine.complain.wake");
    Wake made;
    made.service = bearings_.service;
    made.signer = world.self;
    made.epoch = bearings_.epoch;
    made.slot = any_slot(world);
    made.incarnation = incarnation_of(world, made.slot);
    made.n = bearings_.n;
    made.signature = world.keys.at(world.self)->sign(wake_fields(world.cluster.id, made));
    const HostId host = world.cluster.services.front().slots[made.slot.value].host;
    send(world, peer_of(host), made.service, made, out);
  }

  static constexpr std::size_t kViewsMax = 8;

  Bearings bearings_;
  std::map<View, std::map<NodeId, crypto::Signature>> heard_;
};

}  // namespace

std::unique_ptr<Adversary> make_equivocate() { return std::make_unique<Equivocate>(); }
std::unique_ptr<Adversary> make_forge() { return std::make_unique<Forge>(); }
std::unique_ptr<Adversary> make_complain() { return std::make_unique<Complain>(); }

}  // namespace zz::sim
