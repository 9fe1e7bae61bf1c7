#include <capnp/message.h>

#include <cstring>

#include "agreement/codec.hpp"
#include "agreement/messages.capnp.h"

namespace zz::agreement {
namespace {

// ---- sizes
// -----------------------------------------------------------------------------------------------------------
// The exact number of words a message needs, so that it is written once into its final buffer.

template <class Wire>
constexpr std::size_t kStructWords = Wire::_capnpPrivate::dataWordSize + Wire::_capnpPrivate::pointerCount;

template <class Wire>
std::size_t list_words(std::size_t count) {
  return 1 + count * kStructWords<Wire>;  // even an empty one has its tag
}
std::size_t data_words(std::size_t bytes) { return (bytes + 7) / 8; }
std::size_t slots_words(const std::vector<SlotId>& slots) { return data_words(slots.size() * 2); }

constexpr std::size_t kSignatureWords = sizeof(crypto::Signature) / 8;
constexpr std::size_t kKeyWords = sizeof(crypto::PublicKey) / 8;

template <class Items, class Payload>
std::size_t payload_words(const Items& items, Payload payload) {
  std::size_t sum = 0;
  for (const auto& item : items) sum += data_words(payload(item).size());
  return sum;
}

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
std::size_t words(const PrePrepare& m) { return kStructWords<wire::PrePrepare> + words(*m.header); }
std::size_t words(const Prepare&) { return kStructWords<wire::Ballot>; }
std::size_t words(const Commit&) { return kStructWords<wire::Ballot>; }
std::size_t words(const FetchBodies& m) {
  return kStructWords<wire::FetchBodies> + list_words<wire::Reference>(m.wanted.size());
}
std::size_t words(const Bodies& m) {
  return kStructWords<wire::Bodies> + list_words<wire::Request>(m.requests.size()) +
         payload_words(m.requests, [](const RequestPtr& r) -> const SharedBytes& { return r->op; });
}
std::size_t words(const Requests& m) {
  return kStructWords<wire::Requests> + list_words<wire::Requests::Item>(m.items.size()) +
         payload_words(m.items, [](const Requests::Item& i) -> const SharedBytes& { return i.op; });
}
std::size_t words(const Acks& m) {
  return kStructWords<wire::Acks> + list_words<wire::Acks::Item>(m.items.size()) +
         payload_words(m.items, [](const Acks::Item& i) -> const SharedBytes& { return i.body; });
}
std::size_t words(const Rejected&) { return kStructWords<wire::Rejected>; }
std::size_t words(const Subscribe&) { return kStructWords<wire::Subscribe>; }
std::size_t words(const Orders& m) { return kStructWords<wire::Orders> + m.digests.size() * 4; }
std::size_t words(const Batch& m) {
  return kStructWords<wire::Batch> + words(*m.header) + list_words<wire::Batch::Body>(m.requests.size()) +
         payload_words(m.requests, [](const RequestPtr& r) -> const SharedBytes& { return r->op; });
}
std::size_t words(const Vote& m) { return kStructWords<wire::Vote> + m.replies.size() * 4; }
std::size_t words(const Replies& m) {
  return kStructWords<wire::Replies> + list_words<wire::Replies::Item>(m.items.size()) +
         payload_words(m.items, [](const Replies::Item& i) -> const SharedBytes& { return i.body; });
}
std::size_t words(const FetchReplies& m) {
  return kStructWords<wire::FetchReplies> + list_words<wire::FetchReplies::Item>(m.items.size());
}
std::size_t words(const Wake&) { return kStructWords<wire::Wake> + kSignatureWords; }
std::size_t words(const EpochNotice& m) {
  return kStructWords<wire::EpochNotice> + slots_words(m.active) + m.incarnations.size() + m.evicted_through.size();
}
std::size_t words(const SlotDead&) { return kStructWords<wire::SlotDead>; }
std::size_t words(const StatusQuery&) { return 0; }
std::size_t words(const StatusReport& m) { return kStructWords<wire::StatusReport> + data_words(m.json.size()); }

// ---- contents
// --------------------------------------------------------------------------------------------------------

unsigned narrow(std::size_t count) { return static_cast<unsigned>(count); }

std::uint64_t word_of(const std::uint8_t* bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

template <class Group>
void put(Group out, const Digest& digest) {
  out.setA(word_of(digest.bytes.data()));
  out.setB(word_of(digest.bytes.data() + 8));
  out.setC(word_of(digest.bytes.data() + 16));
  out.setD(word_of(digest.bytes.data() + 24));
}

capnp::Data::Reader data_of(ByteView bytes) { return {bytes.data(), bytes.size()}; }

// Requires out.size() == digests.size() * 32.
void put(capnp::Data::Builder out, const std::vector<Digest>& digests) {
  static_assert(sizeof(Digest) == 32);
  if (!digests.empty()) std::memcpy(out.begin(), digests.data(), digests.size() * sizeof(Digest));
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

// What names a service inside a message must name the message's: the wire carries it once.
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

void put(wire::Header::Builder out, const BatchHeader& header, ServiceId service) {
  ZZ_ASSERT(header.service == service);
  out.setN(header.n.value);
  out.setTime(header.time.value);
  auto references = out.initReferences(narrow(header.references.size()));
  for (std::size_t i = 0; i < header.references.size(); ++i) put(references[narrow(i)], header.references[i]);
  auto system = out.initSystem(narrow(header.system.size()));
  for (std::size_t i = 0; i < header.system.size(); ++i) {
    auto op = system[narrow(i)];
    if (const auto* change = std::get_if<EpochChange>(&header.system[i])) {
      put(op.initEpochChange(), *change, service);
    } else {
      put(op.initJoin(), std::get<Join>(header.system[i]), service);
    }
  }
}

template <class Ballot>
void put_ballot(wire::Ballot::Builder out, const Ballot& ballot) {
  out.setView(ballot.view.value);
  out.setN(ballot.n.value);
  put(out.getDigest(), ballot.digest);
}

// One overload per member of the union.
struct Writer {
  ServiceId service;
  wire::Message::Body::Builder out;

  void operator()(const PrePrepare& m) {
    auto to = out.initPrePrepare();
    to.setView(m.view.value);
    put(to.initHeader(), *m.header, service);
  }
  void operator()(const Prepare& m) { put_ballot(out.initPrepare(), m); }
  void operator()(const Commit& m) { put_ballot(out.initCommit(), m); }
  void operator()(const FetchBodies& m) {
    auto to = out.initFetchBodies().initWanted(narrow(m.wanted.size()));
    for (std::size_t i = 0; i < m.wanted.size(); ++i) put(to[narrow(i)], m.wanted[i]);
  }
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
  void operator()(const Batch& m) {
    ZZ_ASSERT(m.requests.size() == m.header->references.size());
    auto to = out.initBatch();
    put(to.initHeader(), *m.header, service);
    auto bodies = to.initBodies(narrow(m.requests.size()));
    for (std::size_t i = 0; i < m.requests.size(); ++i) {
      auto item = bodies[narrow(i)];
      item.setFlags(m.requests[i]->flags);
      item.setOp(data_of(m.requests[i]->op.view()));
    }
  }
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
};

// Writes its only segment behind the segment table, in a buffer that becomes the frame.
class FrameBuilder final : public capnp::MessageBuilder {
 public:
  // `segment_words`: at least what the message needs.
  explicit FrameBuilder(std::size_t segment_words)
      : words_(segment_words + 1), buffer_(std::make_shared<std::uint64_t[]>(words_)) {}

  kj::ArrayPtr<capnp::word> allocateSegment(unsigned minimum_words) override {
    ZZ_ASSERT(!given_ && minimum_words < words_);  // sizes above are exact, see the codec tests
    given_ = true;
    return {reinterpret_cast<capnp::word*>(buffer_.get() + 1), words_ - 1};
  }

  SharedBytes finish() {
    const auto segments = getSegmentsForOutput();
    ZZ_ASSERT(segments.size() == 1);
    const std::uint64_t used = segments[0].size();
    auto* bytes = reinterpret_cast<std::uint8_t*>(buffer_.get());
    for (int i = 0; i < 4; ++i) bytes[4 + i] = static_cast<std::uint8_t>(used >> (8 * i));
    return SharedBytes(buffer_, ByteView(bytes, (used + 1) * 8));
  }

 private:
  std::size_t words_;
  std::shared_ptr<std::uint64_t[]> buffer_;
  bool given_ = false;
};

}  // namespace

SharedBytes encode(const Message& message) {
  const std::size_t body = std::visit([](const auto& m) { return words(m); }, message.body);
  FrameBuilder builder(1 + kStructWords<wire::Message> + body);
  auto root = builder.initRoot<wire::Message>();
  root.setService(message.service.value);
  std::visit(Writer{message.service, root.getBody()}, message.body);
  return builder.finish();
}

}  // namespace zz::agreement
