// The adversaries that lie about what they saw: in view changes, and about checkpoints.

#include <algorithm>
#include <utility>

#include "agreement/view_change.hpp"
#include "tests/sim/adversary_parts.hpp"

namespace zz::sim {

using namespace agreement;

namespace {

// ---- lie-view-change -------------------------------------------------------------------------------------------

class LieViewChange final : public Faulty {
 public:
  LieViewChange() : Faulty("lie-view-change") {}

  bool incoming(AdversaryWorld&, const Parcel& parcel) override {
    if (const auto* m = std::get_if<ViewChangePtr>(&parcel.message->body)) remember(*m);
    return true;
  }

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    bearings_.heed(parcel);
    const Body& body = parcel.message->body;
    if (const auto* m = std::get_if<ViewChangePtr>(&body); m != nullptr && (*m)->signer == world.self) {
      remember(*m);
      return replace(parcel, lie(world, **m), out);
    }
    if (const auto* m = std::get_if<NewViewPtr>(&body); m != nullptr && (*m)->signer == world.self) {
      return replace(parcel, lie(world, **m), out);
    }
    pass(parcel, out);
  }

  // Now and then it wants to leave by itself, and tells some only.
  void act(AdversaryWorld& world, std::vector<Leaving>& out) override {
    if (!odds(world.prng, 1)) return;
    count(world.counters, "byzantine.lie-view-change.leaves");
    ViewChange made;
    made.service = bearings_.service;
    made.signer = world.self;
    made.view = View{bearings_.view.value + 1 + world.prng.below(3)};
    made.stable = bearings_.certificate;
    const ViewChangePtr lied = lie(world, made);
    for (std::uint16_t i = 0; i < world.cluster.n(); ++i) {
      if (NodeId{i} != world.self && odds(world.prng, 50)) send(world, peer_of(NodeId{i}), made.service, lied, out);
    }
  }

 private:
  static constexpr std::size_t kViewsMax = 8;

  void remember(const ViewChangePtr& m) {
    if (changes_.size() >= kViewsMax && !changes_.contains(m->view)) changes_.erase(changes_.begin());
    changes_[m->view][m->signer] = m;
  }

  [[nodiscard]] ViewChangePtr lie(AdversaryWorld& world, const ViewChange& real) const {
    auto made = std::make_shared<ViewChange>(real);
    switch (world.prng.below(8)) {
      case 0:
        count(world.counters, "byzantine.lie-view-change.no-p");
        made->prepared.clear();
        break;
      case 1:
        count(world.counters, "byzantine.lie-view-change.no-q");
        made->pre_prepared.clear();
        break;
      case 2:
        count(world.counters, "byzantine.lie-view-change.nothing");
        made->prepared.clear();
        made->pre_prepared.clear();
        break;
      case 3:
      case 4:
        count(world.counters, "byzantine.lie-view-change.bogus");
        claim_bogus(world, *made);
        break;
      case 5:
        count(world.counters, "byzantine.lie-view-change.higher-view");
        made->view.value += 1 + world.prng.below(3);
        made->complaints.clear();
        break;
      case 6:
        count(world.counters, "byzantine.lie-view-change.old-checkpoint");
        made->stable = nullptr;
        claims_below(made->prepared, Seq{world.cluster.limits.window_batches});
        claims_below(made->pre_prepared, Seq{world.cluster.limits.window_batches});
        break;
      default:
        count(world.counters, "byzantine.lie-view-change.higher-claims");
        for (Claim& claim : made->prepared) claim.view = View{made->view.value - 1};
        for (Claim& claim : made->pre_prepared) claim.view = View{made->view.value - 1};
        break;
    }
    made->signature = world.keys.at(world.self)->sign(view_change_fields(world.cluster.id, *made));
    return made;
  }

  static void claims_below(std::vector<Claim>& claims, Seq last) {
    std::erase_if(claims, [last](const Claim& claim) { return claim.n > last; });
  }

  // Prepared, in the newest view possible, what nobody ever proposed; instead of what was prepared there.
  static void claim_bogus(AdversaryWorld& world, ViewChange& made) {
    const std::uint64_t first = stable_n(made.stable).value + 1;
    const std::uint64_t count_of = 1 + world.prng.below(4);
    const View view{made.view.value - 1};
    const std::uint64_t from = first + world.prng.below(world.cluster.limits.window_batches / 2);
    for (std::uint64_t i = 0; i < count_of; ++i) {
      const Seq n{from + i};
      const Claim claim{n, invented(view, n), view};
      std::erase_if(made.prepared, [n](const Claim& c) { return c.n == n; });
      made.prepared.push_back(claim);
      std::erase_if(made.pre_prepared, [&](const Claim& c) { return c.n == n && c.digest == claim.digest; });
      made.pre_prepared.push_back(claim);
    }
    std::sort(made.prepared.begin(), made.prepared.end());
    std::sort(made.pre_prepared.begin(), made.pre_prepared.end());
  }

  [[nodiscard]] NewViewPtr lie(AdversaryWorld& world, const NewView& real) const {
    auto made = std::make_shared<NewView>(real);
    const std::uint64_t what = world.prng.below(7);
    if (what == 0 && !made->chosen.empty()) {
      count(world.counters, "byzantine.lie-view-change.drops-choice");
      made->chosen.pop_back();
    } else if (what == 1 && !made->chosen.empty()) {
      count(world.counters, "byzantine.lie-view-change.null-choice");
      made->chosen[world.prng.below(made->chosen.size())] = Digest{};
    } else if (what == 2 && !made->chosen.empty()) {
      count(world.counters, "byzantine.lie-view-change.other-choice");
      flip_bit(world.prng, made->chosen[world.prng.below(made->chosen.size())]);
    } else if (what == 3) {
      count(world.counters, "byzantine.lie-view-change.longer-choice");
      made->chosen.push_back(invented(made->view, Seq{made->start.value + made->chosen.size() + 1}));
    } else if (what == 4) {
      count(world.counters, "byzantine.lie-view-change.thin-proof");
      if (odds(world.prng, 50)) made->proof[0] = made->proof.back();
      made->proof.pop_back();
    } else if (what == 5) {
      other_proof(world, *made);
    }
    made->signature = world.keys.at(world.self)->sign(new_view_fields(world.cluster.id, *made));
    return made;
  }

  // Another set of VIEW-CHANGEs, just as valid: this receiver gets another beginning of the same view. One's own
  // VIEW-CHANGE is a lie of its own each time.
  void other_proof(AdversaryWorld& world, NewView& made) const {
    const auto known = changes_.find(made.view);
    if (known == changes_.end()) return;
    std::map<NodeId, ViewChangePtr> all = known->second;
    const auto own = all.find(world.self);
    if (own != all.end()) {
      ViewChangePtr lied = lie(world, *own->second);
      if (lied->view == made.view) own->second = std::move(lied);
    }
    while (all.size() > 2 * std::size_t{world.cluster.f} + 1) {
      all.erase(std::next(all.begin(), static_cast<std::ptrdiff_t>(world.prng.below(all.size()))));
    }
    std::vector<ViewChangePtr> proof;
    for (const auto& [signer, change] : all) proof.push_back(change);
    const auto choice = choose(world.cluster.f, world.cluster.limits.window_batches, proof);
    if (!choice) return;
    count(world.counters, "byzantine.lie-view-change.other-proof");
    made.proof = std::move(proof);
    made.start = stable_n(choice->stable);
    made.chosen = choice->chosen;
  }

  Bearings bearings_;
  std::map<View, std::map<NodeId, ViewChangePtr>> changes_;
};

// ---- lie-checkpoint --------------------------------------------------------------------------------------------

class LieCheckpoint final : public Faulty {
 public:
  LieCheckpoint() : Faulty("lie-checkpoint") {}

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    bearings_.heed(parcel);
    const Body& body = parcel.message->body;
    if (const auto* m = std::get_if<Checkpoint>(&body)) return replace(parcel, lie(world, *m), out);
    if (const auto* m = std::get_if<Stable>(&body); m != nullptr && odds(world.prng, 60)) {
      return replace(parcel, Stable{lie(world, *m->certificate)}, out);
    }
    if (const auto* m = std::get_if<OrderProof>(&body); m != nullptr && odds(world.prng, 60)) {
      return replace(parcel, lie(world, *m, parcel.to.index), out);
    }
    if (const auto* m = std::get_if<Batch>(&body); m != nullptr && parcel.to.role == crypto::Role::kNode) {
      const auto found = forged_.find({parcel.to.index, m->header->n});
      if (found != forged_.end()) return replace(parcel, Batch{found->second, batch_digest(*found->second), {}}, out);
    }
    pass(parcel, out);
  }

  // A checkpoint of its own making, ahead of time, or a certificate that only the faulty signed.
  void act(AdversaryWorld& world, std::vector<Leaving>& out) override {
    if (!odds(world.prng, 2)) return;
    Checkpoint made;
    made.service = bearings_.service;
    made.signer = world.self;
    made.state.n = Seq{bearings_.stable.value + world.cluster.limits.checkpoint_batches * (1 + world.prng.below(4))};
    made.state.history = invented(View{}, made.state.n);
    if (odds(world.prng, 50)) {
      count(world.counters, "byzantine.lie-checkpoint.early");
      made.signature = sign_as(world, world.self, fields(world, made.signer, made.state));
      return send(world, peer_of(other_node(world)), bearings_.service, made, out);
    }
    count(world.counters, "byzantine.lie-checkpoint.f-signatures");
    StableCertificate base;
    base.service = bearings_.service;
    base.state = made.state;
    // Draws, as other_node() does: one after the other.
    const CertificatePtr forged = signed_by_few(world, base, odds(world.prng, 60));
    send(world, peer_of(other_node(world)), bearings_.service, Stable{forged}, out);
    for (std::uint16_t i = 0; i < bearings_.incarnations.size(); ++i) {
      count(world.counters, "byzantine.lie-checkpoint.to-slot");
      const crypto::Peer slot{crypto::Role::kExecutor, 0, bearings_.service, SlotId{i}, bearings_.incarnations[i]};
      send(world, slot, bearings_.service, Stable{forged}, out);
    }
  }

 private:
  [[nodiscard]] Bytes fields(const AdversaryWorld& world, NodeId signer, const CheckpointState& state) const {
    return checkpoint_fields(world.cluster.id, bearings_.service, signer, state);
  }

  void spoil(AdversaryWorld& world, CheckpointState& state) const {
    switch (world.prng.below(5)) {
      case 0:
        count(world.counters, "byzantine.lie-checkpoint.history");
        return flip_bit(world.prng, state.history);
      case 1:
        count(world.counters, "byzantine.lie-checkpoint.results");
        return flip_bit(world.prng, state.results);
      case 2:
        count(world.counters, "byzantine.lie-checkpoint.table");
        return flip_bit(world.prng, state.table);
      case 3:
        count(world.counters, "byzantine.lie-checkpoint.root");
        return flip_bit(world.prng, state.root);
      default:
        count(world.counters, "byzantine.lie-checkpoint.number");
        state.n.value += 1 + world.prng.below(world.cluster.limits.checkpoint_batches);
        return;
    }
  }

  [[nodiscard]] Checkpoint lie(AdversaryWorld& world, Checkpoint m) const {
    if (m.signer != world.self || odds(world.prng, 25)) return m;  // the truth, to some
    spoil(world, m.state);
    m.signature = sign_as(world, m.signer, fields(world, m.signer, m.state));
    return m;
  }

  // The faulty nodes' signatures are good; the rest is filled up, with repetitions or with signatures that are none.
  [[nodiscard]] CertificatePtr signed_by_few(AdversaryWorld& world, const StableCertificate& base, bool fill) const {
    auto made = std::make_shared<StableCertificate>(base);
    made->parts.clear();
    for (const auto& [node, key] : world.keys) {
      made->parts.push_back({node, key->sign(fields(world, node, made->state))});
    }
    const bool repeat = odds(world.prng, 50);
    for (std::uint16_t i = 0; fill && made->parts.size() < 2 * world.cluster.f + 1; ++i) {
      const NodeId node{static_cast<std::uint16_t>(i % world.cluster.n())};
      if (repeat) {
        made->parts.push_back(made->parts.front());
      } else if (!world.keys.contains(node)) {
        made->parts.push_back({node, sign_as(world, node, {})});
      }
    }
    const auto ascending = [](const auto& a, const auto& b) { return a.signer < b.signer; };
    std::stable_sort(made->parts.begin(), made->parts.end(), ascending);
    return made;
  }

  [[nodiscard]] CertificatePtr lie(AdversaryWorld& world, const StableCertificate& real) const {
    if (odds(world.prng, 40)) {
      count(world.counters, "byzantine.lie-checkpoint.f-signatures");
      return signed_by_few(world, real, odds(world.prng, 60));
    }
    auto made = std::make_shared<StableCertificate>(real);
    spoil(world, made->state);
    return made;
  }

  // A batch of its own making, which the proof and the batches that follow it agree on.
  void forge(AdversaryWorld& world, OrderProof& m, std::uint32_t to) {
    count(world.counters, "byzantine.lie-checkpoint.forged-batch");
    const std::size_t index = world.prng.below(m.digests.size());
    auto header = std::make_shared<BatchHeader>();
    header->service = bearings_.service;
    header->n = Seq{m.from.value + index};
    header->time = Micros{1 + static_cast<std::int64_t>(world.prng.below(1'000))};
    m.digests[index] = batch_digest(*header);
    forged_[{to, header->n}] = std::move(header);
    if (forged_.size() > kForgedMax) forged_.erase(forged_.begin());
  }

  [[nodiscard]] OrderProof lie(AdversaryWorld& world, OrderProof m, std::uint32_t to) {
    count(world.counters, "byzantine.lie-checkpoint.order-proof");
    const std::uint64_t what = world.prng.below(4);
    if (what == 0 || m.digests.empty()) {
      m.certificate = lie(world, *m.certificate);
    } else if (what == 1) {
      forge(world, m, to);
    } else if (what == 2) {
      m.digests.pop_back();
    } else {
      std::swap(m.digests.front(), m.digests.back());
      m.from.value += 1;
    }
    return m;
  }

  static constexpr std::size_t kForgedMax = 64;

  Bearings bearings_;
  std::map<std::pair<std::uint32_t, Seq>, HeaderPtr> forged_;  // by node and number
};

}  // namespace

std::unique_ptr<Adversary> make_lie_view_change() { return std::make_unique<LieViewChange>(); }
std::unique_ptr<Adversary> make_lie_checkpoint() { return std::make_unique<LieCheckpoint>(); }

}  // namespace zz::sim
