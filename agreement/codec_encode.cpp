#include <cstring>

#include "agreement/codec_parts.hpp"

namespace zz::agreement {
namespace codec {

// ---- sizes
// -----------------------------------------------------------------------------------------------------------

namespace {

std::size_t slots_words(const std::vector<SlotId>& slots) { return data_words(slots.size() * 2); }

constexpr std::size_t kSignatureWords = sizeof(crypto::Signature) / 8;
constexpr std::size_t kDigestWords = sizeof(Digest) / 8;
constexpr std::size_t kClaimWords = 2 + kDigestWords;
constexpr std::size_t kKeyWords = sizeof(crypto::PublicKey) / 8;

template <class Items, class Payload>
std::size_t payload_words(const Items& items, Payload payload) {
  std::size_t sum = 0;
  for (const auto& item : items) sum += data_words(payload(item).size());
  return sum;
}

}  // namespace

std::size_t words(const Suspect& m) { return kStructWords<wire::Suspect> + slots_words(m.agreeing) + kSignatureWords; }
std::size_t words(const Join&) { return kStructWords<wire::Join> + kKeyWords + kSignatureWords; }
std::size_t words(const EpochChange& m) {
  std::size_t sum = kStructWords<wire::EpochChange> + slots_words(m.active) + slots_words(m.evicted);
  ++sum;  // the tag of the proof
  for (const Suspect& s : m.proof) sum += words(s);
  return sum;
}
std::size_t words(const BatchHeader& h) {
  std::size_t sum = kStructWords<wire::Header> + list_words<wire::Reference>(h.references.size());
  sum += list_words<wire::SystemOperation>(h.system.size());
  for (const SystemOp& op : h.system) sum += std::visit([](const auto& o) { return words(o); }, op);
  return sum;
}
std::size_t batch_words(const BatchHeader& header, const std::vector<RequestPtr>& requests) {
  return kStructWords<wire::Batch> + words(header) + list_words<wire::Batch::Body>(requests.size()) +
         payload_words(requests, [](const RequestPtr& r) -> const SharedBytes& { return r->op; });
}
std::size_t words(const std::vector<StableCertificate::Part>& parts) {
  return list_words<wire::StableCertificate::Part>(parts.size()) + parts.size() * kSignatureWords;
}
std::size_t words(const StableCertificate& m) {
  return kStructWords<wire::StableCertificate> + kStructWords<wire::CheckpointState> + words(m.parts);
}
std::size_t words(const ViewChange& m) {
  return kStructWords<wire::ViewChange> + (m.stable ? words(*m.stable) : 0) +
         (m.prepared.size() + m.pre_prepared.size()) * kClaimWords + kSignatureWords + words(m.complaints);
}
std::size_t words(const NewView& m) {
  std::size_t sum = kStructWords<wire::NewView> + m.chosen.size() * kDigestWords + kSignatureWords;
  ++sum;  // the tag of the proof
  for (const ViewChangePtr& part : m.proof) sum += words(*part);
  return sum;
}

std::size_t references_words(const std::vector<Reference>& references) {
  return list_words<wire::Reference>(references.size());
}

namespace {

// One overload per member of Body.
struct Sizer {
  std::size_t operator()(const PrePrepare& m) { return kStructWords<wire::PrePrepare> + words(*m.header); }
  std::size_t operator()(const Prepare&) { return kStructWords<wire::Ballot>; }
  std::size_t operator()(const Commit&) { return kStructWords<wire::Ballot>; }
  std::size_t operator()(const FetchBodies& m) {
    return kStructWords<wire::FetchBodies> + list_words<wire::Reference>(m.wanted.size());
  }
  std::size_t operator()(const Bodies& m) {
    return kStructWords<wire::Bodies> + list_words<wire::Request>(m.requests.size()) +
           payload_words(m.requests, [](const RequestPtr& r) -> const SharedBytes& { return r->op; });
  }
  std::size_t operator()(const Requests& m) {
    return kStructWords<wire::Requests> + list_words<wire::Requests::Item>(m.items.size()) +
           payload_words(m.items, [](const Requests::Item& i) -> const SharedBytes& { return i.op; });
  }
  std::size_t operator()(const Acks& m) {
    return kStructWords<wire::Acks> + list_words<wire::Acks::Item>(m.items.size()) +
           payload_words(m.items, [](const Acks::Item& i) -> const SharedBytes& { return i.body; });
  }
  std::size_t operator()(const Rejected&) { return kStructWords<wire::Rejected>; }
  std::size_t operator()(const Subscribe&) { return kStructWords<wire::Subscribe>; }
  std::size_t operator()(const Orders& m) { return kStructWords<wire::Orders> + m.digests.size() * kDigestWords; }
  std::size_t operator()(const Batch& m) { return batch_words(*m.header, m.requests); }
  std::size_t operator()(const Vote& m) { return kStructWords<wire::Vote> + m.replies.size() * kDigestWords; }
  std::size_t operator()(const Replies& m) {
    return kStructWords<wire::Replies> + list_words<wire::Replies::Item>(m.items.size()) +
           payload_words(m.items, [](const Replies::Item& i) -> const SharedBytes& { return i.body; });
  }
  std::size_t operator()(const FetchReplies& m) {
    return kStructWords<wire::FetchReplies> + list_words<wire::FetchReplies::Item>(m.items.size());
  }
  std::size_t operator()(const ReplyDigests& m) {
    return kStructWords<wire::ReplyDigests> + list_words<wire::ReplyDigests::Item>(m.items.size());
  }
  std::size_t operator()(const Wake&) { return kStructWords<wire::Wake> + kSignatureWords; }
  std::size_t operator()(const Suspect& m) { return words(m); }
  std::size_t operator()(const Join& m) { return words(m); }
  std::size_t operator()(const EpochNotice& m) {
    return kStructWords<wire::EpochNotice> + slots_words(m.active) + m.incarnations.size() + m.evicted_through.size();
  }
  std::size_t operator()(const SlotDead&) { return kStructWords<wire::SlotDead>; }
  std::size_t operator()(const StatusQuery&) { return 0; }
  std::size_t operator()(const StatusReport& m) { return kStructWords<wire::StatusReport> + data_words(m.json.size()); }

  std::size_t operator()(const FetchHeaders& m) {
    return kStructWords<wire::FetchHeaders> + m.wanted.size() * kDigestWords;
  }
  std::size_t operator()(const Headers& m) {
    std::size_t sum = kStructWords<wire::Headers> + 1;
    for (const HeaderPtr& header : m.headers) sum += words(*header);
    return sum;
  }
  std::size_t operator()(const Checkpoint&) {
    return kStructWords<wire::Checkpoint> + kStructWords<wire::CheckpointState> + kSignatureWords;
  }
  std::size_t operator()(const Stable& m) { return words(*m.certificate); }
  std::size_t operator()(const FetchOrder&) { return kStructWords<wire::FetchOrder>; }
  std::size_t operator()(const OrderProof& m) {
    return kStructWords<wire::OrderProof> + words(*m.certificate) + m.digests.size() * kDigestWords;
  }
  std::size_t operator()(const ViewChangePtr& m) { return words(*m); }
  std::size_t operator()(const NewViewPtr& m) { return words(*m); }
  std::size_t operator()(const Progress&) { return kStructWords<wire::Progress> + kSignatureWords; }
  std::size_t operator()(const Closings& m) { return kStructWords<wire::Closings> + m.digests.size() * kDigestWords; }
  std::size_t operator()(const ExecCheckpoint&) { return kStructWords<wire::ExecCheckpoint> + kSignatureWords; }
  std::size_t operator()(const FetchState& m) {
    return kStructWords<wire::FetchState> + list_words<wire::FetchState::Want>(m.wants.size()) +
           list_words<wire::FetchState::Path>(m.paths.size());
  }
  std::size_t operator()(const StateParts& m) {
    return kStructWords<wire::StateParts> + list_words<wire::StateParts::Part>(m.parts.size()) +
           payload_words(m.parts, [](const StatePart& p) -> const SharedBytes& { return p.bytes; });
  }
  std::size_t operator()(const VouchQuery& m) {
    return kStructWords<wire::VouchQuery> + references_words(m.references);
  }
  std::size_t operator()(const Propose& m) {
    return kStructWords<wire::SystemOperation> + std::visit([](const auto& o) { return words(o); }, m.op);
  }
  std::size_t operator()(const Vouched& m) { return kStructWords<wire::Vouched> + references_words(m.references); }
};

}  // namespace

// ---- contents
// --------------------------------------------------------------------------------------------------------

namespace {

std::uint64_t word_of(const std::uint8_t* bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

template <class Group>
void put(Group out, const Digest& digest) {
  out.setA(word_of(digest.bytes.data()));
  out.setB(word_of(digest.bytes.data() + 8));
  out.setC(word_of(digest.bytes.data() + 16));
  out.setD(word_of(digest.bytes.data() + 24));
}

// Requires out.size() == digests.size() * 32.
void put(capnp::Data::Builder out, const std::vector<Digest>& digests) {
  static_assert(sizeof(Digest) == 32);
  if (!digests.empty()) std::memcpy(out.begin(), digests.data(), digests.size() * sizeof(Digest));
}

// Requires out.size() == claims.size() * kClaimWords * 8.
void put(capnp::Data::Builder out, const std::vector<Claim>& claims) {
  std::uint8_t* to = out.begin();
  for (const Claim& claim : claims) {
    for (const std::uint64_t word : {claim.n.value, claim.view.value}) {
      for (int i = 0; i < 8; ++i) *to++ = static_cast<std::uint8_t>(word >> (8 * i));
    }
    to = std::copy(claim.digest.bytes.begin(), claim.digest.bytes.end(), to);
  }
}

template <class List, class Ids>
void put_ids(List out, const Ids& ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) out.set(narrow(i), ids[i].value);
}

void put(wire::Reference::Builder out, const Reference& r) {
  out.setClient(r.client.value);
  out.setSession(r.session.value);
  out.setNumber(r.number.value);
  put(out.getDigest(), r.digest);
}

void put(capnp::List<wire::Reference>::Builder out, const std::vector<Reference>& references) {
  for (std::size_t i = 0; i < references.size(); ++i) put(out[narrow(i)], references[i]);
}

void put(wire::Suspect::Builder out, const Suspect& s, ServiceId service) {
  ZZ_ASSERT(s.service == service);
  out.setSigner(s.signer.value);
  out.setSlot(s.slot.value);
  out.setWhy(static_cast<wire::Suspicion>(s.why));
  out.setEpoch(s.epoch.value);
  out.setIncarnation(s.incarnation.value);
  out.setN(s.n.value);
  put_ids(out.initAgreeing(narrow(s.agreeing.size())), s.agreeing);
  out.setSignature(data_of(s.signature.bytes));
}

void put(wire::Join::Builder out, const Join& j, ServiceId service) {
  ZZ_ASSERT(j.service == service);
  out.setSlot(j.slot.value);
  out.setIncarnation(j.incarnation.value);
  out.setKey(data_of(j.key.bytes));
  out.setSignature(data_of(j.signature.bytes));
}

void put(wire::EpochChange::Builder out, const EpochChange& change, ServiceId service) {
  out.setEpoch(change.epoch.value);
  put_ids(out.initActive(narrow(change.active.size())), change.active);
  put_ids(out.initEvicted(narrow(change.evicted.size())), change.evicted);
  auto proof = out.initProof(narrow(change.proof.size()));
  for (std::size_t i = 0; i < change.proof.size(); ++i) put(proof[narrow(i)], change.proof[i], service);
}

void put(wire::CheckpointState::Builder out, const CheckpointState& state) {
  out.setN(state.n.value);
  put(out.getHistory(), state.history);
  put(out.getResults(), state.results);
  put(out.getTable(), state.table);
  put(out.getRoot(), state.root);
}

void put(wire::SystemOperation::Builder out, const SystemOp& op, ServiceId service) {
  if (const auto* change = std::get_if<EpochChange>(&op)) {
    put(out.initEpochChange(), *change, service);
  } else {
    put(out.initJoin(), std::get<Join>(op), service);
  }
}

void put(wire::Header::Builder out, const BatchHeader& header, ServiceId service) {
  ZZ_ASSERT(header.service == service);
  out.setN(header.n.value);
  out.setTime(header.time.value);
  put(out.initReferences(narrow(header.references.size())), header.references);
  auto system = out.initSystem(narrow(header.system.size()));
  for (std::size_t i = 0; i < header.system.size(); ++i) put(system[narrow(i)], header.system[i], service);
}

void put(wire::Ballot::Builder out, View view, Seq n, const Digest& digest) {
  out.setView(view.value);
  out.setN(n.value);
  put(out.getDigest(), digest);
}

void put(wire::Batch::Builder out, const BatchHeader& header, const std::vector<RequestPtr>& requests,
         ServiceId service) {
  ZZ_ASSERT(requests.size() == header.references.size());
  put(out.initHeader(), header, service);
  auto bodies = out.initBodies(narrow(requests.size()));
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto item = bodies[narrow(i)];
    item.setFlags(requests[i]->flags);
    item.setOp(data_of(requests[i]->op.view()));
  }
}

void put(capnp::List<wire::StableCertificate::Part>::Builder out, const std::vector<StableCertificate::Part>& parts) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    auto part = out[narrow(i)];
    part.setSigner(parts[i].signer.value);
    part.setSignature(data_of(parts[i].signature.bytes));
  }
}

void put(wire::StableCertificate::Builder out, const StableCertificate& certificate, ServiceId service) {
  ZZ_ASSERT(certificate.service == service);
  put(out.initState(), certificate.state);
  put(out.initParts(narrow(certificate.parts.size())), certificate.parts);
}

void put(wire::ViewChange::Builder out, const ViewChange& message, ServiceId service) {
  ZZ_ASSERT(message.service == service);
  out.setSigner(message.signer.value);
  out.setView(message.view.value);
  if (message.stable) put(out.initStable(), *message.stable, service);
  put(out.initPrepared(narrow(message.prepared.size() * kClaimWords * 8)), message.prepared);
  put(out.initPrePrepared(narrow(message.pre_prepared.size() * kClaimWords * 8)), message.pre_prepared);
  out.setSignature(data_of(message.signature.bytes));
  put(out.initComplaints(narrow(message.complaints.size())), message.complaints);
}

void put(wire::NewView::Builder out, const NewView& message, ServiceId service) {
  ZZ_ASSERT(message.service == service);
  out.setSigner(message.signer.value);
  out.setView(message.view.value);
  auto proof = out.initProof(narrow(message.proof.size()));
  for (std::size_t i = 0; i < message.proof.size(); ++i) put(proof[narrow(i)], *message.proof[i], service);
  out.setStart(message.start.value);
  put(out.initChosen(narrow(message.chosen.size() * sizeof(Digest))), message.chosen);
  out.setSignature(data_of(message.signature.bytes));
}

namespace {

// One overload per member of Body.
struct Writer {
  ServiceId service;
  wire::Message::Body::Builder out;

  void operator()(const PrePrepare& m) {
    auto to = out.initPrePrepare();
    to.setView(m.view.value);
    put(to.initHeader(), *m.header, service);
  }
  void operator()(const Prepare& m) { put(out.initPrepare(), m.view, m.n, m.digest); }
  void operator()(const Commit& m) { put(out.initCommit(), m.view, m.n, m.digest); }
  void operator()(const FetchBodies& m) { put(out.initFetchBodies().initWanted(narrow(m.wanted.size())), m.wanted); }
  void operator()(const Bodies& m) {
    auto to = out.initBodies().initRequests(narrow(m.requests.size()));
    for (std::size_t i = 0; i < m.requests.size(); ++i) {
      const Request& r = *m.requests[i];
      auto item = to[narrow(i)];
      item.setClient(r.client.value);
      item.setFlags(r.flags);
      item.setSession(r.session.value);
      item.setNumber(r.number.value);
      item.setOp(data_of(r.op.view()));
    }
  }
  void operator()(const Requests& m) {
    auto to = out.initRequests();
    to.setSession(m.session.value);
    auto items = to.initItems(narrow(m.items.size()));
    for (std::size_t i = 0; i < m.items.size(); ++i) {
      auto item = items[narrow(i)];
      item.setNumber(m.items[i].number.value);
      item.setFlags(m.items[i].flags);
      item.setOp(data_of(m.items[i].op.view()));
    }
  }
  void operator()(const Acks& m) {
    auto to = out.initAcks();
    to.setSession(m.session.value);
    auto items = to.initItems(narrow(m.items.size()));
    for (std::size_t i = 0; i < m.items.size(); ++i) {
      auto item = items[narrow(i)];
      item.setNumber(m.items[i].number.value);
      put(item.getDigest(), m.items[i].reply_digest);
      item.setHasBody(m.items[i].has_body);
      if (m.items[i].has_body) item.setBody(data_of(m.items[i].body.view()));
    }
  }
  void operator()(const Rejected& m) {
    auto to = out.initRejected();
    to.setSession(m.session.value);
    to.setNumber(m.number.value);
    to.setReason(m.reason);
  }
  void operator()(const Subscribe& m) {
    auto to = out.initSubscribe();
    to.setFrom(m.from.value);
    to.setBearer(m.bearer);
  }
  void operator()(const Orders& m) {
    auto to = out.initOrders();
    to.setFirstN(m.first_n.value);
    put(to.initDigests(narrow(m.digests.size() * sizeof(Digest))), m.digests);
  }
  void operator()(const Batch& m) { put(out.initBatch(), *m.header, m.requests, service); }
  void operator()(const Vote& m) {
    auto to = out.initVote();
    to.setEpoch(m.epoch.value);
    to.setN(m.n.value);
    to.setSlot(m.slot.value);
    to.setIncarnation(m.incarnation.value);
    put(to.initReplies(narrow(m.replies.size() * sizeof(Digest))), m.replies);
  }
  void operator()(const Replies& m) {
    auto to = out.initReplies();
    to.setN(m.n.value);
    auto items = to.initItems(narrow(m.items.size()));
    for (std::size_t i = 0; i < m.items.size(); ++i) {
      auto item = items[narrow(i)];
      item.setIndex(m.items[i].index);
      item.setBody(data_of(m.items[i].body.view()));
    }
  }
  void operator()(const FetchReplies& m) {
    auto to = out.initFetchReplies();
    to.setN(m.n.value);
    auto items = to.initItems(narrow(m.items.size()));
    for (std::size_t i = 0; i < m.items.size(); ++i) {
      auto item = items[narrow(i)];
      item.setIndex(m.items[i].index);
      item.setClient(m.items[i].client.value);
      item.setSession(m.items[i].session.value);
      item.setNumber(m.items[i].number.value);
    }
    to.setDigests(m.digests);
  }
  void operator()(const ReplyDigests& m) {
    auto to = out.initReplyDigests();
    to.setN(m.n.value);
    auto items = to.initItems(narrow(m.items.size()));
    for (std::size_t i = 0; i < m.items.size(); ++i) {
      auto item = items[narrow(i)];
      item.setIndex(m.items[i].index);
      put(item.initDigest(), m.items[i].digest);
    }
  }
  void operator()(const Wake& m) {
    ZZ_ASSERT(m.service == service);
    auto to = out.initWake();
    to.setSigner(m.signer.value);
    to.setSlot(m.slot.value);
    to.setSign(m.sign);
    to.setEpoch(m.epoch.value);
    to.setIncarnation(m.incarnation.value);
    to.setN(m.n.value);
    to.setSignature(data_of(m.signature.bytes));
  }
  void operator()(const Suspect& m) { put(out.initSuspect(), m, service); }
  void operator()(const EpochNotice& m) {
    ZZ_ASSERT(m.service == service);
    auto to = out.initEpochNotice();
    to.setEpoch(m.epoch.value);
    to.setN(m.n.value);
    put_ids(to.initActive(narrow(m.active.size())), m.active);
    put_ids(to.initIncarnations(narrow(m.incarnations.size())), m.incarnations);
    put_ids(to.initEvictedThrough(narrow(m.evicted_through.size())), m.evicted_through);
  }
  void operator()(const Join& m) { put(out.initJoin(), m, service); }
  void operator()(const SlotDead& m) {
    auto to = out.initSlotDead();
    to.setSlot(m.slot.value);
    to.setIncarnation(m.incarnation.value);
  }
  void operator()(const StatusQuery&) { out.setStatusQuery(); }
  void operator()(const StatusReport& m) { out.initStatusReport().setJson(data_of(as_bytes(m.json))); }
  void operator()(const FetchHeaders& m) {
    put(out.initFetchHeaders().initWanted(narrow(m.wanted.size() * sizeof(Digest))), m.wanted);
  }
  void operator()(const Headers& m) {
    auto to = out.initHeaders().initHeaders(narrow(m.headers.size()));
    for (std::size_t i = 0; i < m.headers.size(); ++i) put(to[narrow(i)], *m.headers[i], service);
  }
  void operator()(const Checkpoint& m) {
    ZZ_ASSERT(m.service == service);
    auto to = out.initCheckpoint();
    to.setSigner(m.signer.value);
    put(to.initState(), m.state);
    to.setSignature(data_of(m.signature.bytes));
  }
  void operator()(const Stable& m) { put(out.initStable(), *m.certificate, service); }
  void operator()(const FetchOrder& m) { out.initFetchOrder().setFrom(m.from.value); }
  void operator()(const OrderProof& m) {
    auto to = out.initOrderProof();
    put(to.initCertificate(), *m.certificate, service);
    to.setFrom(m.from.value);
    put(to.initDigests(narrow(m.digests.size() * sizeof(Digest))), m.digests);
  }
  void operator()(const ViewChangePtr& m) { put(out.initViewChange(), *m, service); }
  void operator()(const NewViewPtr& m) { put(out.initNewView(), *m, service); }
  void operator()(const Progress& m) {
    auto to = out.initProgress();
    to.setView(m.view.value);
    to.setChanging(m.changing);
    to.setDelivered(m.delivered.value);
    to.setStable(m.stable.value);
    to.setComplains(m.complains);
    to.setSettled(m.settled.value);
    to.setClosed(m.closed.value);
    if (m.complains) to.setComplaint(data_of(m.complaint.bytes));
  }
  void operator()(const Closings& m) {
    auto to = out.initClosings();
    to.setFirstN(m.first_n.value);
    put(to.initDigests(narrow(m.digests.size() * sizeof(Digest))), m.digests);
  }
  void operator()(const ExecCheckpoint& m) {
    ZZ_ASSERT(m.service == service);
    auto to = out.initExecCheckpoint();
    to.setSlot(m.slot.value);
    to.setIncarnation(m.incarnation.value);
    to.setN(m.n.value);
    put(to.getRoot(), m.root);
    to.setSignature(data_of(m.signature.bytes));
  }
  void operator()(const FetchState& m) {
    auto to = out.initFetchState();
    to.setTicket(m.ticket);
    to.setSource(m.source.value);
    to.setN(m.n.value);
    auto wants = to.initWants(narrow(m.wants.size()));
    for (std::size_t i = 0; i < m.wants.size(); ++i) {
      auto item = wants[narrow(i)];
      item.setKind(m.wants[i].kind);
      item.setDepth(m.wants[i].depth);
      item.setPrefix(m.wants[i].prefix);
      item.setBytesMax(m.wants[i].bytes_max);
      put(item.getDigest(), m.wants[i].digest);
    }
    auto paths = to.initPaths(narrow(m.paths.size()));
    for (std::size_t i = 0; i < m.paths.size(); ++i) {
      auto item = paths[narrow(i)];
      item.setObject(m.paths[i].object);
      item.setBelow(m.paths[i].below);
      item.setWithRoot(m.paths[i].with_root);
    }
  }
  void operator()(const StateParts& m) {
    auto to = out.initStateParts();
    to.setTicket(m.ticket);
    auto parts = to.initParts(narrow(m.parts.size()));
    for (std::size_t i = 0; i < m.parts.size(); ++i) {
      auto item = parts[narrow(i)];
      item.setKind(m.parts[i].kind);
      item.setDepth(m.parts[i].depth);
      item.setPrefix(m.parts[i].prefix);
      item.setBytes(data_of(m.parts[i].bytes.view()));
    }
  }
  void operator()(const VouchQuery& m) {
    put(out.initVouchQuery().initReferences(narrow(m.references.size())), m.references);
  }
  void operator()(const Propose& m) { put(out.initPropose(), m.op, service); }
  void operator()(const Vouched& m) {
    put(out.initVouched().initReferences(narrow(m.references.size())), m.references);
  }
};

}  // namespace

kj::ArrayPtr<capnp::word> FrameBuilder::allocateSegment(unsigned minimum_words) {
  ZZ_ASSERT(!given_ && minimum_words < words_);  // sizes above are exact, see the codec tests
  given_ = true;
  return {reinterpret_cast<capnp::word*>(buffer_.get() + 1), words_ - 1};
}

SharedBytes FrameBuilder::finish() {
  const auto segments = getSegmentsForOutput();
  ZZ_ASSERT(segments.size() == 1);
  const std::uint64_t used = segments[0].size();
  auto* bytes = reinterpret_cast<std::uint8_t*>(buffer_.get());
  for (int i = 0; i < 4; ++i) bytes[4 + i] = static_cast<std::uint8_t>(used >> (8 * i));
  return SharedBytes(buffer_, ByteView(bytes, (used + 1) * 8));
}

}  // namespace codec

SharedBytes encode(const Message& message) {
  const std::size_t body = std::visit(codec::Sizer{}, message.body);
  codec::FrameBuilder builder(1 + codec::kStructWords<wire::Message> + body);
  auto root = builder.initRoot<wire::Message>();
  root.setService(message.service.value);
  std::visit(codec::Writer{message.service, root.getBody()}, message.body);
  return builder.finish();
}

}  // namespace zz::agreement
