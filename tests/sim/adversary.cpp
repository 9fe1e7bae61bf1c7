#include "tests/sim/adversary.hpp"

#include <algorithm>
#include <limits>

#include "base/assert.hpp"
#include "tests/sim/adversary_parts.hpp"

namespace zz::sim {

using namespace agreement;

// ---- common ----------------------------------------------------------------------------------------------------

NodeId other_node(const AdversaryWorld& world) {
  const std::uint64_t step = 1 + world.prng.below(world.cluster.n() - 1);
  return NodeId{static_cast<std::uint16_t>((world.self.value + step) % world.cluster.n())};
}

void send(const AdversaryWorld& world, const crypto::Peer& to, ServiceId service, Body body, std::vector<Leaving>& out,
          Micros delay) {
  out.push_back({{peer_of(world.self), to, std::make_shared<const Message>(Message{service, std::move(body)})}, delay});
}

crypto::Signature sign_as(const AdversaryWorld& world, NodeId signer, const Bytes& fields) {
  const auto key = world.keys.find(signer);
  if (key != world.keys.end()) return key->second->sign(fields);
  crypto::Signature none;
  for (std::size_t i = 0; i < none.bytes.size(); ++i) none.bytes[i] = static_cast<std::uint8_t>(world.prng.next());
  return none;
}

void Faulty::replace(const Parcel& parcel, Body body, std::vector<Leaving>& out) {
  auto message = std::make_shared<const Message>(Message{parcel.message->service, std::move(body)});
  out.push_back({{parcel.from, parcel.to, std::move(message)}, {}});
}

void Bearings::heed(const Parcel& outgoing) {
  const Message& message = *outgoing.message;
  service = message.service;
  const auto voted = [this](View v, Seq number) {
    view = std::max(view, v);
    n = std::max(n, number);
  };
  if (const auto* m = std::get_if<Prepare>(&message.body)) voted(m->view, m->n);
  if (const auto* m = std::get_if<Commit>(&message.body)) voted(m->view, m->n);
  if (const auto* m = std::get_if<PrePrepare>(&message.body)) voted(m->view, m->header->n);
  if (const auto* m = std::get_if<Progress>(&message.body)) {
    voted(m->view, m->delivered);
    stable = std::max(stable, m->stable);
  }
  if (const auto* m = std::get_if<Stable>(&message.body)) certificate = m->certificate;
  if (const auto* m = std::get_if<OrderProof>(&message.body)) certificate = m->certificate;
  if (const auto* m = std::get_if<ViewChangePtr>(&message.body)) {
    view = std::max(view, (*m)->view);
    if ((*m)->stable) certificate = (*m)->stable;
  }
  if (const auto* m = std::get_if<EpochNotice>(&message.body)) {
    epoch = m->epoch;
    incarnations = m->incarnations;
  }
}

MessagePtr ChangedProposals::keep(const Message& original, HeaderPtr header) {
  const auto& m = std::get<PrePrepare>(original.body);
  const Digest digest = batch_digest(*header);
  if (digests_.size() >= kMax) digests_.erase(digests_.begin());
  digests_[{m.view, m.header->n}] = {m.digest, digest};
  return std::make_shared<const Message>(Message{original.service, PrePrepare{m.view, std::move(header), digest}});
}

MessagePtr ChangedProposals::vote(const Message& message) const {
  const auto instead = [&](auto vote) -> MessagePtr {
    const auto it = digests_.find({vote.view, vote.n});
    if (it == digests_.end() || it->second.first != vote.digest) return nullptr;
    vote.digest = it->second.second;
    return std::make_shared<const Message>(Message{message.service, vote});
  };
  if (const auto* m = std::get_if<Prepare>(&message.body)) return instead(*m);
  if (const auto* m = std::get_if<Commit>(&message.body)) return instead(*m);
  return nullptr;
}

// ---- mutations -------------------------------------------------------------------------------------------------

namespace {

struct Mutator {
  AdversaryWorld& world;

  [[nodiscard]] bool coin() const { return world.prng.below(2) == 0; }
  [[nodiscard]] std::uint64_t draw(std::uint64_t bound) const { return world.prng.below(bound); }
  template <class Id>
  void by_one(Id& id) const {  // 0 becomes the largest there is
    id.value = static_cast<typename Id::rep>(coin() ? id.value + 1 : id.value - 1);
  }
  void flip(Digest& digest) const { flip_bit(world.prng, digest); }
  template <class List>
  [[nodiscard]] auto& any(List& list) const {
    return list[draw(list.size())];
  }

  // In its own name half of the time; else the old signature no longer fits.
  template <class Signed>
  void maybe_sign(Signed& m, Bytes (*fields)(const crypto::ClusterId&, const Signed&)) const {
    if (coin()) m.signature = sign_as(world, m.signer, fields(world.cluster.id, m));
  }

  [[nodiscard]] HeaderPtr change(const BatchHeader& original) const {
    auto header = std::make_shared<BatchHeader>(original);
    const std::uint64_t what = draw(5);
    if (what == 0) {
      by_one(header->n);
    } else if (what == 1) {
      header->time.value += coin() ? 1 : -1;
    } else if (what == 2) {
      by_one(header->service);
    } else if (what == 3 && header->references.size() > 1) {
      std::swap(header->references.front(), header->references.back());
    } else if (!header->references.empty()) {
      flip(any(header->references).digest);
    } else {
      header->time.value += 1;
    }
    return header;
  }
  [[nodiscard]] CertificatePtr change(const CertificatePtr& original) const {
    auto certificate = std::make_shared<StableCertificate>(*original);
    const std::uint64_t what = draw(5);
    if (what == 0) by_one(certificate->state.n);
    if (what == 1) flip(certificate->state.history);
    if (what == 4) flip(certificate->state.root);
    if (what == 2) by_one(certificate->service);
    if (what == 3 && !certificate->parts.empty()) certificate->parts.back() = certificate->parts.front();
    return certificate;
  }
  bool change(std::vector<Reference>& references) const {
    if (references.empty()) return false;
    Reference& reference = any(references);
    if (coin()) {
      flip(reference.digest);
    } else {
      by_one(reference.number);
    }
    return true;
  }
  template <class Ballot>
  bool ballot(Ballot& m) const {
    const std::uint64_t what = draw(4);
    if (what == 0) by_one(m.view);
    if (what == 1) by_one(m.n);
    if (what == 2) flip(m.digest);
    if (what == 3) std::swap(m.view.value, m.n.value);
    return true;
  }

  bool operator()(PrePrepare& m) const {
    if (draw(4) == 0) {
      by_one(m.view);
    } else {
      m.header = change(*m.header);
      m.digest = batch_digest(*m.header);
    }
    return true;
  }
  bool operator()(Prepare& m) const { return ballot(m); }
  bool operator()(Commit& m) const { return ballot(m); }
  bool operator()(FetchBodies& m) const { return change(m.wanted); }
  bool operator()(Vouched& m) const { return change(m.references); }
  bool operator()(VouchQuery& m) const { return change(m.references); }
  bool operator()(Checkpoint& m) const {
    const std::uint64_t what = draw(6);
    if (what == 0) by_one(m.state.n);
    if (what == 1) flip(m.state.history);
    if (what == 2) flip(m.state.results);
    if (what == 3) flip(m.state.table);
    if (what == 4) std::swap(m.state.history, m.state.results);
    if (what == 5) flip(m.state.root);
    if (coin())
      m.signature = sign_as(world, m.signer, checkpoint_fields(world.cluster.id, m.service, m.signer, m.state));
    return true;
  }
  bool operator()(Stable& m) const {
    m.certificate = change(m.certificate);
    return true;
  }
  bool operator()(OrderProof& m) const {
    if (m.digests.empty() || draw(3) == 0) {
      m.certificate = change(m.certificate);
    } else if (coin()) {
      flip(any(m.digests));
    } else {
      by_one(m.from);
    }
    return true;
  }
  bool operator()(FetchOrder& m) const {
    by_one(m.from);
    return true;
  }
  bool operator()(ViewChangePtr& m) const {
    auto changed = std::make_shared<ViewChange>(*m);
    const std::uint64_t what = draw(5);
    if (what == 0) by_one(changed->view);
    if (what == 0 && coin()) changed->complaints.clear();
    if (what == 1) std::swap(changed->prepared, changed->pre_prepared);
    if (what == 2 && !changed->prepared.empty()) flip(any(changed->prepared).digest);
    if (what == 3 && !changed->pre_prepared.empty()) by_one(any(changed->pre_prepared).n);
    if (what == 4) by_one(changed->service);
    maybe_sign(*changed, &view_change_fields);
    m = changed;
    return true;
  }
  bool operator()(NewViewPtr& m) const {
    auto changed = std::make_shared<NewView>(*m);
    const std::uint64_t what = draw(4);
    if (what == 0) by_one(changed->view);
    if (what == 1) by_one(changed->start);
    if (what == 2 && !changed->chosen.empty()) flip(any(changed->chosen));
    if (what == 3 && changed->proof.size() > 1) std::swap(changed->proof.front(), changed->proof.back());
    maybe_sign(*changed, &new_view_fields);
    m = changed;
    return true;
  }
  bool operator()(Progress& m) const {
    const std::uint64_t what = draw(5);
    if (what == 0) by_one(m.view);
    if (what == 1) by_one(m.delivered);
    if (what == 2) by_one(m.stable);
    if (what == 3) m.changing = !m.changing;
    if (what == 4) by_one(m.closed);
    return true;
  }
  bool operator()(Closings& m) const {
    if (m.digests.empty() || coin()) {
      by_one(m.first_n);
    } else {
      flip(any(m.digests));
    }
    return true;
  }
  bool operator()(Orders& m) const {
    if (m.digests.empty() || coin()) {
      by_one(m.first_n);
    } else {
      flip(any(m.digests));
    }
    return true;
  }
  bool operator()(Batch& m) const {
    if (m.requests.empty() || coin()) {
      m.header = change(*m.header);
      m.digest = batch_digest(*m.header);
      return true;
    }
    return spoil(any(m.requests));
  }
  bool operator()(Bodies& m) const { return !m.requests.empty() && spoil(any(m.requests)); }
  [[nodiscard]] bool spoil(RequestPtr& request) const {
    auto changed = std::make_shared<Request>(*request);
    Bytes op(request->op.view().begin(), request->op.view().end());
    op.push_back('!');
    changed->op = SharedBytes(std::move(op));
    changed->digest = request_digest(world.cluster.services.front().id, changed->client, changed->session,
                                     changed->number, changed->flags, changed->op.view());
    request = changed;
    return true;
  }
  bool operator()(Acks& m) const {
    if (m.items.empty()) return false;
    Acks::Item& item = any(m.items);
    if (item.has_body && coin()) {
      item.body = SharedBytes::copy("not what was answered");
    } else if (coin()) {
      flip(item.reply_digest);
    } else {
      by_one(item.number);
    }
    return true;
  }
  bool operator()(Suspect& m) const {
    const std::uint64_t what = draw(3);
    if (what == 0) by_one(m.slot);
    if (what == 1) by_one(m.epoch);
    if (what == 2) by_one(m.incarnation);
    maybe_sign(m, &suspect_fields);
    return true;
  }
  bool operator()(Wake& m) const {
    const std::uint64_t what = draw(3);
    if (what == 0) by_one(m.slot);
    if (what == 1) by_one(m.epoch);
    if (what == 2) by_one(m.incarnation);
    maybe_sign(m, &wake_fields);
    return true;
  }
  bool operator()(EpochNotice& m) const {
    if (m.incarnations.empty() || coin()) {
      by_one(m.epoch);
    } else {
      by_one(any(m.incarnations));
    }
    return true;
  }
  bool operator()(Propose& m) const {
    if (auto* join = std::get_if<Join>(&m.op)) {
      if (coin()) {
        by_one(join->slot);
      } else {
        by_one(join->incarnation);
      }
    } else {
      by_one(std::get<EpochChange>(m.op).epoch);
    }
    return true;
  }
  bool operator()(FetchState& m) const {
    count(world.counters, "byzantine.mutate.fetch-state");
    const std::uint64_t what = draw(4);
    if (what == 0) by_one(m.n);
    if (what == 1) by_one(m.source);
    if (what == 2 && !m.wants.empty()) flip(any(m.wants).digest);
    if (what == 3) ++m.ticket;
    return true;
  }
  bool operator()(StateParts& m) const {
    count(world.counters, "byzantine.mutate.state-parts");
    if (m.parts.empty() || draw(4) == 0) {
      ++m.ticket;
    } else if (coin()) {
      m.parts.pop_back();
    } else {
      StatePart& part = any(m.parts);
      Bytes bytes(part.bytes.view().begin(), part.bytes.view().end());
      if (bytes.empty() || coin()) {
        part.prefix += 1;
      } else {
        bytes[draw(bytes.size())] ^= 1;
        part.bytes = SharedBytes(std::move(bytes));
      }
    }
    return true;
  }
  template <class Other>
  bool operator()(Other&) const {
    return false;
  }
};

}  // namespace

std::optional<Message> mutated(AdversaryWorld& world, const Message& message) {
  Message changed = message;
  if (world.prng.below(10) == 0) {
    changed.service.value = static_cast<std::uint16_t>(changed.service.value + 1);
    return changed;
  }
  if (!std::visit(Mutator{world}, changed.body)) return std::nullopt;
  return changed;
}

// ---- the simple kinds ------------------------------------------------------------------------------------------

namespace {

class Silent final : public Faulty {
 public:
  explicit Silent(Prng& prng)
      : Faulty("silent"),
        mode_(static_cast<Mode>(prng.below(3))),
        kinds_(prng.next() & prng.next()),
        nodes_(1 + prng.next()) {}

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    const bool kept = (mode_ == Mode::kKinds && ((kinds_ >> parcel.message->body.index()) & 1) == 0) ||
                      (mode_ == Mode::kSome && ((nodes_ >> (parcel.to.index % 16)) & 1) == 0);
    if (kept) return pass(parcel, out);
    count(world.counters, mode_ == Mode::kAll     ? "byzantine.silent.all"
                          : mode_ == Mode::kKinds ? "byzantine.silent.kinds"
                                                  : "byzantine.silent.nodes");
  }

 private:
  enum class Mode { kAll, kKinds, kSome };
  Mode mode_;
  std::uint64_t kinds_;  // bit per kind of message
  std::uint64_t nodes_;  // bit per receiver
};

class Slow final : public Faulty {
 public:
  explicit Slow(Prng& prng) : Faulty("slow"), percent_(20 + prng.below(81)) {}

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    const std::int64_t timeout = std::int64_t{world.cluster.timing.view_timeout_ms} * 1'000;
    if (std::holds_alternative<PrePrepare>(parcel.message->body)) {
      count(world.counters, "byzantine.slow.proposal");
      return pass(parcel, out, Micros{timeout * 9 / 10});
    }
    if (!odds(world.prng, percent_)) return pass(parcel, out);
    count(world.counters, "byzantine.slow.held");
    const auto extra = static_cast<std::int64_t>(world.prng.below(static_cast<std::uint64_t>(timeout) * 5 / 2));
    pass(parcel, out, Micros{timeout / 2 + extra});
  }

 private:
  std::uint64_t percent_;
};

class Mutate final : public Faulty {
 public:
  Mutate() : Faulty("mutate") {}

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    if (!odds(world.prng, 25)) return pass(parcel, out);
    auto changed = mutated(world, *parcel.message);
    if (!changed) return pass(parcel, out);
    count(world.counters, "byzantine.mutate.changed");
    out.push_back({{parcel.from, parcel.to, std::make_shared<const Message>(std::move(*changed))}, {}});
    if (odds(world.prng, 30)) pass(parcel, out);  // and the right one after it
  }
};

// Bursts of 1000 messages a second for a moment; a tenth of that on average.
class Replay final : public Faulty {
 public:
  Replay() : Faulty("replay") {}

  void outgoing(AdversaryWorld&, const Parcel& parcel, std::vector<Leaving>& out) override {
    if (parcel.to.role == crypto::Role::kNode) keep(parcel.message);
    pass(parcel, out);
  }
  bool incoming(AdversaryWorld&, const Parcel& parcel) override {
    if (parcel.from.role == crypto::Role::kNode) keep(parcel.message);
    return true;
  }
  void act(AdversaryWorld& world, std::vector<Leaving>& out) override {
    if (store_.empty()) return;
    if (burst_ == 0 && odds(world.prng, 2)) burst_ = 5;
    if (burst_ == 0) return;
    --burst_;
    count(world.counters, "byzantine.replay.said-again", kBurst);
    for (std::size_t i = 0; i < kBurst; ++i) {
      out.push_back({{peer_of(world.self), peer_of(other_node(world)), store_[world.prng.below(store_.size())]}, {}});
    }
  }

 private:
  static constexpr std::size_t kMax = 512;
  static constexpr std::size_t kBurst = 20;
  // Half of the room is for what came first, so that old views stay at hand.
  void keep(const MessagePtr& message) {
    if (!store_.empty() && (store_.back() == message || store_[last_] == message)) return;
    if (store_.size() < kMax) {
      last_ = store_.size();
      store_.push_back(message);
      return;
    }
    next_ = next_ + 1 < kMax ? next_ + 1 : kMax / 2;
    last_ = next_;
    store_[next_] = message;
  }

  std::vector<MessagePtr> store_;
  std::size_t next_ = kMax / 2;
  std::size_t last_ = 0;
  std::uint32_t burst_ = 0;
};

// Either its own code never hears the victim, or the victim's requests are taken out of finished proposals.
class Unfair final : public Faulty {
 public:
  explicit Unfair(Prng& prng) : Faulty("unfair"), deaf_(odds(prng, 70)) {}

  bool incoming(AdversaryWorld& world, const Parcel& parcel) override {
    if (parcel.from.role != crypto::Role::kClient) return true;
    if (!victim_ && odds(world.prng, 50)) victim_ = parcel.from.client();
    if (!deaf_ || victim_ != parcel.from.client()) return true;
    count(world.counters, "byzantine.unfair.not-heard");
    return false;
  }
  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    if (deaf_ || !victim_) return pass(parcel, out);
    MessagePtr changed = proposals_.vote(*parcel.message);
    if (std::holds_alternative<PrePrepare>(parcel.message->body)) {
      changed = proposals_.proposal(parcel.message, [&](const BatchHeader& real) -> HeaderPtr {
        auto header = std::make_shared<BatchHeader>(real);
        std::erase_if(header->references, [&](const Reference& r) { return r.client == victim_; });
        // An empty proposal would be refused at sight.
        if (header->references.size() == real.references.size()) return nullptr;
        if (header->references.empty() && header->system.empty()) return nullptr;
        count(world.counters, "byzantine.unfair.left-out");
        return header;
      });
    }
    pass(changed ? Parcel{parcel.from, parcel.to, changed} : parcel, out);
  }

 private:
  bool deaf_;
  std::optional<ClientId> victim_;
  ChangedProposals proposals_;
};

class BadTime final : public Faulty {
 public:
  BadTime() : Faulty("bad-time") {}

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    MessagePtr changed = proposals_.vote(*parcel.message);
    if (std::holds_alternative<PrePrepare>(parcel.message->body)) {
      changed = proposals_.proposal(parcel.message,
                                    [&](const BatchHeader& real) -> HeaderPtr { return change(world, real); });
    }
    pass(changed ? Parcel{parcel.from, parcel.to, changed} : parcel, out);
  }

 private:
  [[nodiscard]] HeaderPtr change(AdversaryWorld& world, const BatchHeader& real) {
    const Micros last = std::exchange(last_, real.time);
    auto header = std::make_shared<BatchHeader>(real);
    switch (world.prng.below(8)) {
      case 0:
        count(world.counters, "byzantine.bad-time.past");
        header->time.value -= 1'000'000;
        return header;
      case 1:
        count(world.counters, "byzantine.bad-time.future");
        header->time.value += 3'600'000'000;
        return header;
      case 2:
        if (last.value == 0) return nullptr;
        count(world.counters, "byzantine.bad-time.repeated");
        header->time = last;
        return header;
      case 3:
        count(world.counters, "byzantine.bad-time.extreme");
        header->time.value = world.prng.below(2) == 0 ? std::numeric_limits<std::int64_t>::max()
                                                      : std::numeric_limits<std::int64_t>::min();
        return header;
      default:
        return nullptr;
    }
  }

  Micros last_;
  ChangedProposals proposals_;
};

// One part at a time, so that what it does hangs together, with everything heard by all.
class Mixed final : public Faulty {
 public:
  explicit Mixed(Prng& prng) : Faulty("mixed") {
    for (const std::string& kind : adversary_kinds()) {
      if (kind != "mixed") parts_.push_back(make_adversary(kind, prng));
    }
    mood_ = prng.below(parts_.size() + 1);
  }

  void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) override {
    if (mood_ == parts_.size()) return pass(parcel, out);
    parts_[mood_]->outgoing(world, parcel, out);
  }
  bool incoming(AdversaryWorld& world, const Parcel& parcel) override {
    bool heard = true;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const bool let_in = parts_[i]->incoming(world, parcel);
      if (i == mood_) heard = let_in;
    }
    return heard;
  }
  void act(AdversaryWorld& world, std::vector<Leaving>& out) override {
    if (odds(world.prng, 1)) {
      count(world.counters, "byzantine.mixed.turned");
      mood_ = world.prng.below(parts_.size() + 1);
    }
    if (mood_ < parts_.size()) parts_[mood_]->act(world, out);
  }

 private:
  std::vector<std::unique_ptr<Adversary>> parts_;
  std::size_t mood_ = 0;  // parts_.size(): correct for a while
};

}  // namespace

const std::vector<std::string>& adversary_kinds() {
  static const std::vector<std::string> kKinds = {"silent",   "slow",   "equivocate",      "mutate",
                                                  "replay",   "forge",  "lie-view-change", "lie-checkpoint",
                                                  "complain", "unfair", "bad-time",        "mixed"};
  return kKinds;
}

std::unique_ptr<Adversary> make_adversary(std::string_view kind, Prng& prng) {
  if (kind == "silent") return std::make_unique<Silent>(prng);
  if (kind == "slow") return std::make_unique<Slow>(prng);
  if (kind == "equivocate") return make_equivocate();
  if (kind == "mutate") return std::make_unique<Mutate>();
  if (kind == "replay") return std::make_unique<Replay>();
  if (kind == "forge") return make_forge();
  if (kind == "lie-view-change") return make_lie_view_change();
  if (kind == "lie-checkpoint") return make_lie_checkpoint();
  if (kind == "complain") return make_complain();
  if (kind == "unfair") return std::make_unique<Unfair>(prng);
  if (kind == "bad-time") return std::make_unique<BadTime>();
  ZZ_ASSERT(kind == "mixed");
  return std::make_unique<Mixed>(prng);
}

}  // namespace zz::sim
