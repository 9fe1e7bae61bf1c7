#include "tests/sim/witness.hpp"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "agreement/oversight.hpp"
#include "tests/sim/witness_agreement.hpp"
#include "tests/sim/witness_clients.hpp"
#include "tests/sim/witness_complaints.hpp"
#include "tests/sim/witness_ghost.hpp"
#include "tests/sim/witness_roots.hpp"

namespace zz::sim {

using namespace agreement;

namespace {

constexpr std::size_t kForeignWakesMax = 8;  // of faulty nodes, kept per guest and epoch until a signature check is due
constexpr std::size_t kWakeKeysMax = 4'096;
constexpr std::size_t kNoticesMax = 512;  // different ones, per host

// Wake-ups, evictions, joins: what hosts may act on and what the order says of slots.
class ActivationWitness {
 public:
  explicit ActivationWitness(Ghost& ghost) : ghost_(ghost), slots_(ghost.cluster.services[ghost.service.value].slots) {}

  void sent(const Parcel& parcel) {
    const Body& body = parcel.message->body;  // hosts go by the service that is signed, not by the envelope's
    if (parcel.from.role == crypto::Role::kHost) {
      if (const auto* join = std::get_if<Join>(&body)) joins_.insert({join->slot, join->incarnation, join->key});
      return;
    }
    const NodeId from = parcel.from.node();
    if (parcel.to.role == crypto::Role::kHost) {
      if (const auto* wake = std::get_if<Wake>(&body)) take(from, parcel.to.host(), *wake);
      if (const auto* notice = std::get_if<EpochNotice>(&body)) take(from, parcel.to.host(), *notice);
    } else if (!ghost_.is_correct(from)) {
      return;
    } else if (const auto* suspect = std::get_if<Suspect>(&body)) {
      said(from, *suspect);
    } else if (const auto* proposal = std::get_if<PrePrepare>(&body)) {
      if (proposal->header) {
        for (const SystemOp& op : proposal->header->system) said(from, op);
      }
    } else if (const auto* wish = std::get_if<Propose>(&body)) {
      said(from, wish->op);
    }
  }

  void woken(SlotId slot, Incarnation incarnation) {
    if (slot.value >= slots_.size()) return;
    note_life(slot, incarnation);
    const HostId host = slots_[slot.value].host;
    for (auto& [key, wakes] : wakes_) {
      if (std::get<0>(key) == slot && std::get<1>(key) == incarnation && backed(wakes)) return;
    }
    for (const auto& [notice, senders] : notices_[host]) {
      if (size_of(senders) < ghost_.f + 1 || slot.value >= notice.incarnations.size()) continue;
      const bool active = std::find(notice.active.begin(), notice.active.end(), slot) != notice.active.end();
      if (active && notice.incarnations[slot.value] == incarnation) return;
    }
    ghost_.fail("I21 wake-up without cause: neither f+1 WAKEs nor f+1 notices", at(slot, incarnation));
  }

  void observed(const Event& event) {
    switch (event.kind) {
      case EventKind::kSlotState:
        return note_life(event.slot, event.incarnation);
      case EventKind::kSuspected:
      case EventKind::kEvicted:
        if (event.why == "wrong" && ghost_.is_correct(event.node) && ghost_.is_correct(event.slot)) {
          ghost_.fail("I26 conviction: a correct slot is called wrong", at(event.slot, event.incarnation));
        }
        return;
      case EventKind::kConflict:
        if (event.incarnation.value != 0) {  // said by a slot
          if (!ghost_.is_correct(event.slot)) return;
          return ghost_.fail("I19 determinism: a correct slot's state is not the certified one, or is damaged",
                             at(event.slot, event.incarnation) + ", " + at(event.n));
        }
        if (ghost_.is_correct(event.node))
          ghost_.fail("I1 agreement: a node saw a contradiction", at(event.node, event.n));
        return;
      case EventKind::kNotDeterministic:
        if (ghost_.is_correct(event.node)) {
          ghost_.fail("I19 determinism: no g+1 votes agree", at(event.node, event.n));
        }
        return;
      default:
        return;
    }
  }

  void executed(SlotId slot, Incarnation incarnation) {
    if (ghost_.is_correct(slot)) note_life(slot, incarnation);
  }

  // System operations that were ordered: hosts' and nodes' own words.
  void ordered(const GhostBatch& batch) {
    requests_ += batch.header->references.size();
    for (const SystemOp& op : batch.header->system) {
      if (const auto* join = std::get_if<Join>(&op)) {
        if (!joins_.contains({join->slot, join->incarnation, join->key})) {
          ghost_.fail("I3 validity: a JOIN that its host never sent", at(batch.n));
        }
      } else {
        check(batch, std::get<EpochChange>(op));
      }
    }
  }

 private:
  struct Wakes {
    Mask senders = 0;           // whose signatures are good
    std::vector<Wake> foreign;  // of faulty nodes, not looked at yet
    bool flooded = false;
  };

  // Its own suspicion may leave within an operation before, or instead of, by itself.
  void said(NodeId from, const Suspect& suspect) {
    if (suspect.signer == from) suspects_.insert(suspect.signature);
  }
  void said(NodeId from, const SystemOp& op) {
    const auto* change = std::get_if<EpochChange>(&op);
    if (change == nullptr) return;
    for (const Suspect& suspect : change->proof) said(from, suspect);
  }

  void take(NodeId from, HostId host, const Wake& wake) {
    if (wake.signer != from || wake.service != ghost_.service || wake.slot.value >= slots_.size()) return;
    if (slots_[wake.slot.value].host != host) return;
    const bool rejuvenates = wake.sign == static_cast<std::uint8_t>(Sign::kRejuvenation);
    if (rejuvenates && ghost_.is_correct(from) && !may_rejuvenate()) {
      ghost_.fail("I21 wake-up without cause: no slot is to be rejuvenated yet", at(from, wake.n));
    }
    const auto key = std::tuple(wake.slot, wake.incarnation, wake.epoch);
    if (wakes_.size() >= kWakeKeysMax && !wakes_.contains(key) && !ghost_.is_correct(from)) return;
    Wakes& wakes = wakes_[key];
    if (ghost_.is_correct(from)) {
      wakes.senders |= bit_of(from);
      return;
    }
    const auto is = [&](const Wake& other) { return other.signer == from && other.signature == wake.signature; };
    if (std::any_of(wakes.foreign.begin(), wakes.foreign.end(), is)) return;
    if (wakes.foreign.size() < kForeignWakesMax) {
      wakes.foreign.push_back(wake);
    } else {
      wakes.flooded = true;
    }
  }

  // By time no bound is known: a node that is alone for long goes by its own clock.
  [[nodiscard]] bool may_rejuvenate() const {
    const crypto::ServiceEntry& service = ghost_.cluster.services[ghost_.service.value];
    const std::uint32_t every = service.rejuvenate_every_requests;
    return service.rejuvenate_every_ms != 0 || (every != 0 && requests_ >= every);
  }

  [[nodiscard]] bool backed(Wakes& wakes) {
    for (const Wake& wake : wakes.foreign) {
      if (crypto::verify(ghost_.cluster.nodes[wake.signer.value].key, wake_fields(ghost_.cluster.id, wake),
                         wake.signature)) {
        wakes.senders |= bit_of(wake.signer);
      }
    }
    wakes.foreign.clear();
    if (wakes.flooded) wakes.senders |= ~ghost_.correct & ((Mask{1} << ghost_.nodes) - 1);
    return size_of(wakes.senders) >= ghost_.f + 1;
  }

  void take(NodeId from, HostId host, const EpochNotice& notice) {
    if (notice.service != ghost_.service) return;
    if (ghost_.is_correct(from)) check_active(from, notice);
    auto& known = notices_[host];
    auto it = std::find_if(known.begin(), known.end(), [&](const auto& k) { return k.first == notice; });
    if (it == known.end()) {
      if (known.size() >= kNoticesMax && !ghost_.is_correct(from)) return;
      it = known.insert(known.end(), {notice, 0});
    }
    it->second |= bit_of(from);
  }

  // Between g+1 and 2g+1 slots are called active, each once.
  void check_active(NodeId from, const EpochNotice& notice) {
    const std::set<SlotId> active(notice.active.begin(), notice.active.end());
    const bool known = active.empty() || active.rbegin()->value < slots_.size();
    if (active.size() <= ghost_.g || active.size() != notice.active.size() || !known) {
      ghost_.fail("I25 activation: not between g+1 and 2g+1 active slots", at(from, notice.n));
    }
  }

  void note_life(SlotId slot, Incarnation incarnation) {
    if (slot.value >= slots_.size() || incarnation.value == 0) return;
    Incarnation& newest = newest_[slot];
    if (incarnation < newest) ghost_.fail("I24 incarnations: an earlier life is back", at(slot, incarnation));
    newest = std::max(newest, incarnation);
  }

  void check(const GhostBatch& batch, const EpochChange& change) {
    for (const SlotId slot : change.evicted) {
      Mask signers = 0;
      for (const Suspect& suspect : change.proof) {
        if (suspect.slot == slot && suspect.signer.value < ghost_.nodes) signers |= bit_of(suspect.signer);
      }
      if (size_of(signers) < ghost_.f + 1) ghost_.fail("I26 conviction: without f+1 suspicions", at(batch.n));
    }
    for (const Suspect& suspect : change.proof) {
      if (ghost_.is_correct(suspect.signer) && !suspects_.contains(suspect.signature)) {
        ghost_.fail("I26 conviction: a suspicion that its node never sent", at(suspect.signer, batch.n));
      }
    }
  }

  Ghost& ghost_;
  const std::vector<crypto::SlotEntry>& slots_;
  std::map<std::tuple<SlotId, Incarnation, Epoch>, Wakes> wakes_;
  std::map<HostId, std::vector<std::pair<EpochNotice, Mask>>> notices_;
  std::set<std::tuple<SlotId, Incarnation, crypto::PublicKey>> joins_;
  std::set<crypto::Signature> suspects_;  // of correct nodes
  std::map<SlotId, Incarnation> newest_;
  std::uint64_t requests_ = 0;  // ordered
};

class TheWitness final : public Witness {
 public:
  TheWitness(const crypto::ClusterFile& cluster, ServiceId service, const std::set<NodeId>& byzantine_nodes,
             const std::set<SlotId>& byzantine_slots)
      : ghost_(make_ghost(cluster, service, byzantine_nodes, byzantine_slots)),
        agreement_(ghost_),
        clients_(ghost_),
        activation_(ghost_),
        roots_(ghost_),
        complaints_(ghost_, clients_) {}

  void sent(Micros now, const Parcel& parcel) override {
    now_ = now;
    complaints_.sent(now, parcel);
    roots_.sent(parcel);
    switch (parcel.from.role) {
      case crypto::Role::kNode:
        agreement_.sent(parcel);
        activation_.sent(parcel);
        clients_.closings(parcel);
        return;
      case crypto::Role::kExecutor:
        return clients_.voted(parcel);
      case crypto::Role::kHost:
        return activation_.sent(parcel);
      case crypto::Role::kClient:
      case crypto::Role::kOperator:
        return clients_.asked(parcel.from.client(), parcel.message);
    }
  }

  void persisted(NodeId node, const LogRecord& record, bool synced) override {
    if (synced && ghost_.is_correct(node)) agreement_.persisted(node, record);
  }

  void delivered(NodeId node, const Delivery& delivery) override {
    if (!ghost_.is_correct(node)) return;
    if (delivery.header) complaints_.delivered(now_, node, delivery.header->n);
    if (!agreement_.delivered(node, delivery)) return;
    GhostBatch& batch = agreement_.newest();
    activation_.ordered(batch);
    results_ = results_digest(results_, clients_.ordered(batch));
    batch.results = results_;
  }

  void observed(Micros now, const Event& event) override {
    now_ = now;
    if (event.kind == EventKind::kClosed && ghost_.is_correct(event.node) &&
        !agreement_.certified(event.node, event.n)) {
      clients_.closed(event.node, event.n);
    }
    activation_.observed(event);
    complaints_.observed(now, event);
  }

  void node_restarted(NodeId node, bool amnesiac) override {
    agreement_.restarted(node, amnesiac);
    complaints_.restarted(now_, node);
  }

  void submitted(Micros now, ClientId client, SessionId session, RequestNumber number, const SharedBytes& op) override {
    clients_.submitted(now, client, session, number, op);
  }

  void accepted(Micros now, ClientId client, SessionId session, RequestNumber number,
                const SharedBytes& reply) override {
    clients_.accepted(now, client, session, number, reply);
  }

  void executed(SlotId slot, Incarnation incarnation, Seq n, const std::vector<Digest>& replies,
                const Digest& state) override {
    activation_.executed(slot, incarnation);
    clients_.executed(slot, incarnation, n, replies, state);
  }

  void adopted(SlotId slot, Incarnation incarnation, const CertificatePtr& certificate) override {
    if (!agreement_.valid(certificate)) {
      ghost_.fail("I6 quorum: adopted a state without a certificate of 2f+1 signers",
                  at(slot, incarnation) + ", " + at(certificate->state.n));
    }
    clients_.adopted(slot, incarnation, certificate->state.n);
  }

  void replays(SlotId slot, Incarnation incarnation) override { clients_.adopted(slot, incarnation, {}); }

  void goes_on(SlotId slot, Incarnation incarnation, Seq n) override {
    ghost_.fail("I16 checkpoints: a slot goes on with another state than the certified one",
                at(slot, incarnation) + ", " + at(n));
  }

  void woken(Micros, SlotId slot, Incarnation incarnation) override { activation_.woken(slot, incarnation); }

  void channel(Micros now, NodeId node, SlotId slot, Incarnation incarnation, bool up) override {
    complaints_.channel(now, node, slot, incarnation, up);
  }

  [[nodiscard]] std::optional<std::string> violation() const override { return ghost_.violation; }

  [[nodiscard]] std::optional<std::string> open_complaint(const std::set<NodeId>& core, Micros before) const override {
    return complaints_.open_complaint(core, before);
  }
  [[nodiscard]] std::optional<std::string> needless_change(const std::set<NodeId>& core, Micros since) const override {
    return complaints_.needless_change(core, since);
  }

  [[nodiscard]] std::optional<std::string> final_violation() override {
    clients_.final_check();
    return ghost_.violation;
  }

 private:
  static Ghost make_ghost(const crypto::ClusterFile& cluster, ServiceId service,
                          const std::set<NodeId>& byzantine_nodes, const std::set<SlotId>& byzantine_slots) {
    Ghost ghost{cluster, service, cluster.f, cluster.services[service.value].g, cluster.n(), 0, 0, std::nullopt};
    ghost.correct = (Mask{1} << ghost.nodes) - 1;
    for (const NodeId node : byzantine_nodes) ghost.correct &= ~bit_of(node);
    for (const SlotId slot : byzantine_slots) ghost.wrong_slots |= bit_of(slot);
    return ghost;
  }

  Ghost ghost_;
  AgreementWitness agreement_;
  ClientWitness clients_;
  ActivationWitness activation_;
  RootWitness roots_;
  ComplaintWitness complaints_;
  Digest results_;
  Micros now_;  // the last that was told
};

}  // namespace

std::unique_ptr<Witness> make_witness(const crypto::ClusterFile& cluster, ServiceId service,
                                      const std::set<NodeId>& byzantine_nodes,
                                      const std::set<SlotId>& byzantine_slots) {
  return std::make_unique<TheWitness>(cluster, service, byzantine_nodes, byzantine_slots);
}

}  // namespace zz::sim
