#include "tests/agreement/random_messages.hpp"

#include <algorithm>
#include <tuple>

#include "agreement/codec.hpp"

namespace zz::agreement::testing {
namespace {

const CodecLimits kLimits;

struct Maker {
  Prng& prng;
  const RandomShape& shape;
  ServiceId service;

  template <class Id>
  void id(Id& out) {
    // Small and huge values both matter.
    out.value = static_cast<typename Id::rep>(prng.below(2) ? prng.next() : prng.below(10));
  }
  void slot(SlotId& out) { out.value = static_cast<std::uint16_t>(prng.below(kLimits.slots_max)); }
  void signer(NodeId& out) { out.value = static_cast<std::uint16_t>(prng.below(16)); }
  std::size_t count() { return prng.below(shape.items_max + 1); }
  template <std::size_t kSize>
  void fill(std::array<std::uint8_t, kSize>& out) {
    for (auto& byte : out) byte = static_cast<std::uint8_t>(prng.next());
  }
  SharedBytes payload() {
    Bytes out(prng.below(shape.bytes_max + 1));
    for (auto& byte : out) byte = static_cast<std::uint8_t>(prng.next());
    return SharedBytes(std::move(out));
  }
  std::vector<SlotId> slots() {
    std::vector<SlotId> out;
    for (std::uint16_t i = 0; i < kLimits.slots_max; ++i) {
      if (prng.below(2) != 0) out.push_back(SlotId{i});
    }
    return out;
  }
  std::vector<Digest> digests() {
    std::vector<Digest> out(count());
    for (auto& digest : out) fill(digest.bytes);
    return out;
  }
  std::vector<Incarnation> incarnations(std::size_t size) {
    std::vector<Incarnation> out(size);
    for (auto& incarnation : out) id(incarnation);
    return out;
  }
  Reference reference() {
    Reference r;
    id(r.client);
    id(r.session);
    id(r.number);
    fill(r.digest.bytes);
    return r;
  }
  RequestPtr request() {
    auto r = std::make_shared<Request>();
    id(r->client);
    id(r->session);
    id(r->number);
    r->op = payload();
    r->digest = request_digest(service, r->client, r->session, r->number, r->flags, r->op.view());
    return r;
  }
  SystemOp system() {
    if (prng.below(2) != 0) {
      Join join;
      make(join);
      return join;
    }
    EpochChange change;
    id(change.epoch);
    change.active = slots();
    change.evicted = slots();
    change.proof.resize(prng.below(6));
    for (Suspect& s : change.proof) make(s);
    return change;
  }
  std::shared_ptr<BatchHeader> header() {
    auto h = std::make_shared<BatchHeader>();
    h->service = service;
    id(h->n);
    id(h->time);
    for (std::size_t i = prng.below(4); i > 0; --i) h->system.push_back(system());
    return h;
  }

  void make(PrePrepare& m) {
    id(m.view);
    auto h = header();
    for (std::size_t i = count(); i > 0; --i) h->references.push_back(reference());
    m.digest = batch_digest(*h);
    m.header = std::move(h);
  }
  void make(Prepare& m) {
    id(m.view);
    id(m.n);
    fill(m.digest.bytes);
  }
  void make(Commit& m) {
    id(m.view);
    id(m.n);
    fill(m.digest.bytes);
  }
  void make(FetchBodies& m) {
    for (std::size_t i = count(); i > 0; --i) m.wanted.push_back(reference());
  }
  void make(Bodies& m) {
    for (std::size_t i = count(); i > 0; --i) m.requests.push_back(request());
  }
  void make(Requests& m) {
    id(m.session);
    m.items.resize(count());
    for (auto& item : m.items) {
      id(item.number);
      item.op = payload();
    }
  }
  void make(Acks& m) {
    id(m.session);
    m.items.resize(count());
    for (auto& item : m.items) {
      id(item.number);
      fill(item.reply_digest.bytes);
      item.has_body = prng.below(2) != 0;
      if (item.has_body) item.body = payload();
    }
  }
  void make(Rejected& m) {
    id(m.session);
    id(m.number);
    m.reason = static_cast<std::uint8_t>(1 + prng.below(static_cast<std::uint64_t>(Refusal::kCount) - 1));
  }
  void make(Subscribe& m) {
    id(m.from);
    m.bearer = prng.below(2) != 0;
  }
  void make(Orders& m) {
    id(m.first_n);
    m.digests = digests();
  }
  void make(Batch& m) {
    auto h = header();
    for (std::size_t i = count(); i > 0; --i) {
      m.requests.push_back(request());
      h->references.push_back(reference_of(*m.requests.back()));
    }
    m.digest = batch_digest(*h);
    m.header = std::move(h);
  }
  void make(Vote& m) {
    id(m.epoch);
    id(m.n);
    slot(m.slot);
    id(m.incarnation);
    m.replies = digests();
  }
  void make(Replies& m) {
    id(m.n);
    m.items.resize(count());
    for (auto& item : m.items) {
      item.index = static_cast<std::uint32_t>(prng.below(kLimits.batch_requests_max));
      item.body = payload();
    }
  }
  void make(FetchReplies& m) {
    id(m.n);
    m.items.resize(count());
    for (auto& item : m.items) {
      item.index = static_cast<std::uint32_t>(prng.below(kLimits.batch_requests_max));
      id(item.client);
      id(item.session);
      id(item.number);
    }
    m.digests = prng.below(2) == 1;
  }
  void make(ReplyDigests& m) {
    id(m.n);
    m.items.resize(count());
    for (auto& item : m.items) {
      item.index = static_cast<std::uint32_t>(prng.below(kLimits.batch_requests_max));
      fill(item.digest.bytes);
    }
  }
  void make(Wake& m) {
    m.service = service;
    signer(m.signer);
    id(m.epoch);
    slot(m.slot);
    id(m.incarnation);
    id(m.n);
    m.sign = static_cast<std::uint8_t>(prng.next());
    fill(m.signature.bytes);
  }
  void make(Suspect& m) {
    m.service = service;
    signer(m.signer);
    id(m.epoch);
    slot(m.slot);
    id(m.incarnation);
    id(m.n);
    m.why = static_cast<Suspicion>(prng.below(3));
    m.agreeing = slots();
    fill(m.signature.bytes);
  }
  void make(EpochNotice& m) {
    m.service = service;
    id(m.epoch);
    id(m.n);
    m.active = slots();
    const std::size_t size = prng.below(kLimits.slots_max + 1);
    m.incarnations = incarnations(size);
    m.evicted_through = incarnations(size);
  }
  void make(Join& m) {
    m.service = service;
    slot(m.slot);
    id(m.incarnation);
    fill(m.key.bytes);
    fill(m.signature.bytes);
  }
  void make(SlotDead& m) {
    slot(m.slot);
    id(m.incarnation);
  }
  void make(StatusQuery&) {}
  void make(StatusReport& m) { m.json = payload().text(); }

  std::shared_ptr<BatchHeader> header_with_references() {
    auto h = header();
    for (std::size_t i = count(); i > 0; --i) h->references.push_back(reference());
    return h;
  }
  CheckpointState state() {
    CheckpointState out;
    id(out.n);
    fill(out.history.bytes);
    fill(out.results.bytes);
    fill(out.table.bytes);
    fill(out.root.bytes);
    return out;
  }
  std::vector<StableCertificate::Part> parts() {
    std::vector<StableCertificate::Part> out(prng.below(17));
    for (auto& part : out) {
      signer(part.signer);
      fill(part.signature.bytes);
    }
    return out;
  }
  CertificatePtr certificate() {
    auto made = std::make_shared<StableCertificate>();
    made->service = service;
    made->state = state();
    made->parts = parts();
    return made;
  }
  std::vector<Claim> claims() {
    std::vector<Claim> out(count());
    for (Claim& claim : out) {
      id(claim.n);
      id(claim.view);
      fill(claim.digest.bytes);
    }
    return out;
  }
  void make(FetchHeaders& m) { m.wanted = digests(); }
  void make(Headers& m) {
    for (std::size_t i = prng.below(std::min<std::size_t>(shape.items_max, 16) + 1); i > 0; --i) {
      m.headers.push_back(prng.below(4) == 0 ? null_header(service, Seq{prng.next()}) : header_with_references());
    }
  }
  void make(Checkpoint& m) {
    m.service = service;
    signer(m.signer);
    m.state = state();
    fill(m.signature.bytes);
  }
  void make(Stable& m) { m.certificate = certificate(); }
  void make(FetchOrder& m) { id(m.from); }
  void make(OrderProof& m) {
    m.certificate = certificate();
    id(m.from);
    m.digests = digests();
  }
  void make(ViewChangePtr& m) {
    auto made = std::make_shared<ViewChange>();
    made->service = service;
    signer(made->signer);
    id(made->view);
    if (prng.below(3) != 0) made->stable = certificate();
    made->prepared = claims();
    made->pre_prepared = claims();
    fill(made->signature.bytes);
    if (prng.below(3) != 0) made->complaints = parts();
    m = std::move(made);
  }
  void make(NewViewPtr& m) {
    auto made = std::make_shared<NewView>();
    made->service = service;
    signer(made->signer);
    id(made->view);
    made->proof.resize(prng.below(5));
    for (ViewChangePtr& part : made->proof) make(part);
    id(made->start);
    made->chosen = digests();
    if (!made->chosen.empty()) made->chosen.front() = Digest{};  // null
    fill(made->signature.bytes);
    m = std::move(made);
  }
  void make(Progress& m) {
    id(m.view);
    m.changing = prng.below(2) != 0;
    id(m.delivered);
    id(m.stable);
    m.complains = prng.below(2) != 0;
    id(m.settled);
    id(m.closed);
    if (m.complains) fill(m.complaint.bytes);
  }
  void make(Closings& m) {
    id(m.first_n);
    m.digests = digests();
  }
  void make(ExecCheckpoint& m) {
    m.service = service;
    slot(m.slot);
    id(m.incarnation);
    id(m.n);
    fill(m.root.bytes);
    fill(m.signature.bytes);
  }
  void make(FetchState& m) {
    m.ticket = prng.next();
    slot(m.source);
    id(m.n);
    m.wants.resize(count());
    for (StateWant& want : m.wants) {
      want.kind = static_cast<std::uint8_t>(prng.below(3));
      want.prefix = prng.next();
      want.depth = static_cast<std::uint8_t>(prng.below(17));
      want.bytes_max = prng.next();
      fill(want.digest.bytes);
    }
    m.paths.resize(count());
    for (StatePath& path : m.paths) {
      path = {prng.next(), static_cast<std::uint8_t>(prng.below(17)), prng.below(2) != 0};
    }
  }
  void make(StateParts& m) {
    m.ticket = prng.next();
    m.parts.resize(count());
    for (StatePart& part : m.parts) {
      part.kind = static_cast<std::uint8_t>(prng.below(3));
      part.prefix = prng.next();
      part.depth = static_cast<std::uint8_t>(prng.below(17));
      part.bytes = payload();
    }
  }
  void make(VouchQuery& m) {
    for (std::size_t i = count(); i > 0; --i) m.references.push_back(reference());
  }
  void make(Propose& m) { m.op = system(); }
  void make(Vouched& m) {
    for (std::size_t i = count(); i > 0; --i) m.references.push_back(reference());
  }

  void make(ViewRecord& r) {
    id(r.view);
    r.changing = prng.below(2) != 0;
    if (r.changing) make(r.sent);
    if (!r.changing && prng.below(3) != 0) make(r.accepted);
  }
  void make(AcceptedRecord& r) {
    id(r.view);
    if (prng.below(8) == 0) {  // the header is in another record
      id(r.n);
      fill(r.digest.bytes);
      return;
    }
    Batch batch;
    make(batch);
    r.n = batch.header->n;
    r.digest = batch.digest;
    r.header = batch.header;
    r.bodies = batch.requests;
    for (RequestPtr& body : r.bodies) {
      if (prng.below(3) == 0) body = nullptr;
    }
  }
  void make(PreparedRecord& r) {
    id(r.view);
    id(r.n);
    fill(r.digest.bytes);
  }
  void make(OrderedRecord& r) {
    Batch batch;
    make(batch);
    r = {batch.header->n, batch.digest, batch.header, batch.requests};
  }
  void make(StableRecord& r) { r.certificate = certificate(); }
  void make(LearnerRecord& r) { r.learner = prng.below(2) != 0; }
};

template <std::size_t kIndex = 0, class Variant>
void make_kind(Maker& maker, std::size_t kind, Variant& out) {
  if constexpr (kIndex < std::variant_size_v<Variant>) {
    if (kind == kIndex) return maker.make(out.template emplace<kIndex>());
    make_kind<kIndex + 1>(maker, kind, out);
  }
}

template <class Items, class Same>
bool all_equal(const Items& a, const Items& b, Same same) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

bool same(const Suspect& a, const Suspect& b) {
  return std::tie(a.service, a.signer, a.epoch, a.slot, a.incarnation, a.n, a.why, a.agreeing, a.signature) ==
         std::tie(b.service, b.signer, b.epoch, b.slot, b.incarnation, b.n, b.why, b.agreeing, b.signature);
}
bool same(const Join& a, const Join& b) {
  return std::tie(a.service, a.slot, a.incarnation, a.key, a.signature) ==
         std::tie(b.service, b.slot, b.incarnation, b.key, b.signature);
}
bool same(const EpochChange& a, const EpochChange& b) {
  return std::tie(a.epoch, a.active, a.evicted) == std::tie(b.epoch, b.active, b.evicted) &&
         all_equal(a.proof, b.proof, [](const auto& x, const auto& y) { return same(x, y); });
}
bool same(const SystemOp& x, const SystemOp& y) {
  if (x.index() != y.index()) return false;
  if (const auto* change = std::get_if<EpochChange>(&x)) return same(*change, std::get<EpochChange>(y));
  return same(std::get<Join>(x), std::get<Join>(y));
}
bool same(const HeaderPtr& a, const HeaderPtr& b) {
  if (!a || !b) return a == b;
  return std::tie(a->service, a->n, a->time, a->references) == std::tie(b->service, b->n, b->time, b->references) &&
         all_equal(a->system, b->system, [](const SystemOp& x, const SystemOp& y) { return same(x, y); });
}
bool same(const RequestPtr& a, const RequestPtr& b) {
  if (!a || !b) return a == b;
  return std::tie(a->client, a->session, a->number, a->flags, a->op, a->digest) ==
         std::tie(b->client, b->session, b->number, b->flags, b->op, b->digest);
}
bool same(const std::vector<RequestPtr>& a, const std::vector<RequestPtr>& b) {
  return all_equal(a, b, [](const auto& x, const auto& y) { return same(x, y); });
}
bool same(const PrePrepare& a, const PrePrepare& b) {
  return a.view == b.view && a.digest == b.digest && same(a.header, b.header);
}
bool same(const Prepare& a, const Prepare& b) {
  return std::tie(a.view, a.n, a.digest) == std::tie(b.view, b.n, b.digest);
}
bool same(const Commit& a, const Commit& b) {
  return std::tie(a.view, a.n, a.digest) == std::tie(b.view, b.n, b.digest);
}
bool same(const FetchBodies& a, const FetchBodies& b) { return a.wanted == b.wanted; }
bool same(const Bodies& a, const Bodies& b) { return same(a.requests, b.requests); }
bool same(const Requests& a, const Requests& b) {
  return a.session == b.session && all_equal(a.items, b.items, [](const auto& x, const auto& y) {
           return std::tie(x.number, x.flags, x.op) == std::tie(y.number, y.flags, y.op);
         });
}
bool same(const Acks& a, const Acks& b) {
  return a.session == b.session && all_equal(a.items, b.items, [](const auto& x, const auto& y) {
           return std::tie(x.number, x.reply_digest, x.has_body, x.body) ==
                  std::tie(y.number, y.reply_digest, y.has_body, y.body);
         });
}
bool same(const Rejected& a, const Rejected& b) {
  return std::tie(a.session, a.number, a.reason) == std::tie(b.session, b.number, b.reason);
}
bool same(const Subscribe& a, const Subscribe& b) { return a.from == b.from && a.bearer == b.bearer; }
bool same(const Orders& a, const Orders& b) { return a.first_n == b.first_n && a.digests == b.digests; }
bool same(const Batch& a, const Batch& b) {
  return a.digest == b.digest && same(a.header, b.header) && same(a.requests, b.requests);
}
bool same(const Vote& a, const Vote& b) {
  return std::tie(a.epoch, a.n, a.slot, a.incarnation, a.replies) ==
         std::tie(b.epoch, b.n, b.slot, b.incarnation, b.replies);
}
bool same(const Replies& a, const Replies& b) {
  return a.n == b.n && all_equal(a.items, b.items,
                                 [](const auto& x, const auto& y) { return x.index == y.index && x.body == y.body; });
}
bool same(const FetchReplies& a, const FetchReplies& b) {
  return a.n == b.n && a.digests == b.digests && all_equal(a.items, b.items, [](const auto& x, const auto& y) {
           return std::tie(x.index, x.client, x.session, x.number) == std::tie(y.index, y.client, y.session, y.number);
         });
}
bool same(const ReplyDigests& a, const ReplyDigests& b) {
  return a.n == b.n && all_equal(a.items, b.items, [](const auto& x, const auto& y) {
           return x.index == y.index && x.digest == y.digest;
         });
}
bool same(const Wake& a, const Wake& b) {
  return std::tie(a.service, a.signer, a.epoch, a.slot, a.incarnation, a.n, a.sign, a.signature) ==
         std::tie(b.service, b.signer, b.epoch, b.slot, b.incarnation, b.n, b.sign, b.signature);
}
bool same(const EpochNotice& a, const EpochNotice& b) { return a == b; }
bool same(const SlotDead& a, const SlotDead& b) { return a.slot == b.slot && a.incarnation == b.incarnation; }
bool same(const StatusQuery&, const StatusQuery&) { return true; }
bool same(const StatusReport& a, const StatusReport& b) { return a.json == b.json; }
bool same(const FetchHeaders& a, const FetchHeaders& b) { return a.wanted == b.wanted; }
bool same(const Headers& a, const Headers& b) {
  return all_equal(a.headers, b.headers, [](const auto& x, const auto& y) { return same(x, y); });
}
bool same(const Checkpoint& a, const Checkpoint& b) {
  return std::tie(a.service, a.signer, a.state, a.signature) == std::tie(b.service, b.signer, b.state, b.signature);
}
bool same(const std::vector<StableCertificate::Part>& a, const std::vector<StableCertificate::Part>& b) {
  return all_equal(a, b,
                   [](const auto& x, const auto& y) { return x.signer == y.signer && x.signature == y.signature; });
}
bool same(const CertificatePtr& a, const CertificatePtr& b) {
  if (!a || !b) return a == b;
  return a->service == b->service && a->state == b->state && same(a->parts, b->parts);
}
bool same(const Stable& a, const Stable& b) { return same(a.certificate, b.certificate); }
bool same(const FetchOrder& a, const FetchOrder& b) { return a.from == b.from; }
bool same(const OrderProof& a, const OrderProof& b) {
  return a.from == b.from && a.digests == b.digests && same(a.certificate, b.certificate);
}
bool same(const ViewChangePtr& a, const ViewChangePtr& b) {
  if (!a || !b) return a == b;
  return std::tie(a->service, a->signer, a->view, a->prepared, a->pre_prepared, a->signature) ==
             std::tie(b->service, b->signer, b->view, b->prepared, b->pre_prepared, b->signature) &&
         same(a->complaints, b->complaints) && same(a->stable, b->stable);
}
bool same(const NewViewPtr& a, const NewViewPtr& b) {
  if (!a || !b) return a == b;
  return std::tie(a->service, a->signer, a->view, a->start, a->chosen, a->signature) ==
             std::tie(b->service, b->signer, b->view, b->start, b->chosen, b->signature) &&
         all_equal(a->proof, b->proof, [](const auto& x, const auto& y) { return same(x, y); });
}
bool same(const Progress& a, const Progress& b) {
  return std::tie(a.view, a.changing, a.delivered, a.stable, a.complains, a.settled, a.closed, a.complaint) ==
         std::tie(b.view, b.changing, b.delivered, b.stable, b.complains, b.settled, b.closed, b.complaint);
}
bool same(const Closings& a, const Closings& b) { return a.first_n == b.first_n && a.digests == b.digests; }
bool same(const ExecCheckpoint& a, const ExecCheckpoint& b) {
  return std::tie(a.service, a.slot, a.incarnation, a.n, a.root, a.signature) ==
         std::tie(b.service, b.slot, b.incarnation, b.n, b.root, b.signature);
}
bool same(const FetchState& a, const FetchState& b) {
  return std::tie(a.ticket, a.source, a.n, a.wants, a.paths) == std::tie(b.ticket, b.source, b.n, b.wants, b.paths);
}
bool same(const StateParts& a, const StateParts& b) {
  return a.ticket == b.ticket && all_equal(a.parts, b.parts, [](const auto& x, const auto& y) {
           return std::tie(x.kind, x.prefix, x.depth, x.bytes) == std::tie(y.kind, y.prefix, y.depth, y.bytes);
         });
}
bool same(const VouchQuery& a, const VouchQuery& b) { return a.references == b.references; }
bool same(const Propose& a, const Propose& b) { return same(a.op, b.op); }
bool same(const Vouched& a, const Vouched& b) { return a.references == b.references; }

bool same(const ViewRecord& a, const ViewRecord& b) {
  return a.view == b.view && a.changing == b.changing && same(a.sent, b.sent) && same(a.accepted, b.accepted);
}
bool same(const AcceptedRecord& a, const AcceptedRecord& b) {
  return std::tie(a.view, a.n, a.digest) == std::tie(b.view, b.n, b.digest) && same(a.header, b.header) &&
         same(a.bodies, b.bodies);
}
bool same(const PreparedRecord& a, const PreparedRecord& b) {
  return std::tie(a.view, a.n, a.digest) == std::tie(b.view, b.n, b.digest);
}
bool same(const OrderedRecord& a, const OrderedRecord& b) {
  return std::tie(a.n, a.digest) == std::tie(b.n, b.digest) && same(a.header, b.header) && same(a.requests, b.requests);
}
bool same(const StableRecord& a, const StableRecord& b) { return same(a.certificate, b.certificate); }
bool same(const LearnerRecord& a, const LearnerRecord& b) { return a.learner == b.learner; }

}  // namespace

Message random_message(Prng& prng, std::size_t kind, const RandomShape& shape) {
  Message out;
  out.service.value = static_cast<std::uint16_t>(prng.below(64));
  Maker maker{prng, shape, out.service};
  make_kind(maker, kind, out.body);
  return out;
}

LogRecord random_record(Prng& prng, std::size_t kind, ServiceId service, const RandomShape& shape) {
  LogRecord out;
  Maker maker{prng, shape, service};
  make_kind(maker, kind, out);
  return out;
}

const char* kind_name(std::size_t kind) {
  static constexpr const char* kNames[] = {
      "PrePrepare",   "Prepare",    "Commit",      "FetchBodies", "Bodies",     "Requests",    "Acks",
      "Rejected",     "Subscribe",  "Orders",      "Batch",       "Vote",       "Replies",     "FetchReplies",
      "Wake",         "Suspect",    "EpochNotice", "Join",        "SlotDead",   "StatusQuery", "StatusReport",
      "FetchHeaders", "Headers",    "Checkpoint",  "Stable",      "FetchOrder", "OrderProof",  "ViewChange",
      "NewView",      "Progress",   "VouchQuery",  "Vouched",     "Propose",    "Closings",    "ExecCheckpoint",
      "FetchState",   "StateParts", "ReplyDigests"};
  static_assert(std::size(kNames) == kKinds);
  return kNames[kind];
}

const char* record_name(std::size_t kind) {
  static constexpr const char* kNames[] = {"View", "Accepted", "Prepared", "Ordered", "Stable", "Learner"};
  static_assert(std::size(kNames) == kRecordKinds);
  return kNames[kind];
}

bool equal(const Message& a, const Message& b) {
  if (a.service != b.service || a.body.index() != b.body.index()) return false;
  return std::visit([&b](const auto& x) { return same(x, std::get<std::decay_t<decltype(x)>>(b.body)); }, a.body);
}

bool equal(const LogRecord& a, const LogRecord& b) {
  if (a.index() != b.index()) return false;
  return std::visit([&b](const auto& x) { return same(x, std::get<std::decay_t<decltype(x)>>(b)); }, a);
}

}  // namespace zz::agreement::testing
