#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <cstring>

#include "agreement/codec.hpp"
#include "agreement/messages.capnp.h"
#include "crypto/cluster.hpp"

namespace zz::agreement {
namespace {

// System operations are rare: an epoch change and one join per slot is the most one batch has a use for, with room.
constexpr std::size_t kSystemOpsMax = 64;
constexpr std::size_t kNodesMax = 3 * crypto::kFaultsMax + 1;
constexpr int kNestingMax = 16;

capnp::ReaderOptions options_for(std::size_t words) {
  capnp::ReaderOptions options;
  // Everything is read once, so an honest message is charged its own size; aliased objects soon exceed this.
  options.traversalLimitInWords = 2 * words + 16;
  options.nestingLimit = kNestingMax;
  return options;
}

// One segment that fills the frame behind the segment table.
bool is_one_segment(const SharedBytes& bytes) {
  if (bytes.size() < 16 || bytes.size() % 8 != 0) return false;
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(capnp::word) != 0) return false;
  std::uint64_t segments = 0;
  std::uint64_t words = 0;
  for (int i = 3; i >= 0; --i) {
    segments = segments << 8 | bytes.data()[i];
    words = words << 8 | bytes.data()[4 + i];
  }
  return segments == 0 && words == bytes.size() / 8 - 1;
}

template <class Group>
Digest digest_of(Group group) {
  Digest out;
  const std::uint64_t words[4] = {group.getA(), group.getB(), group.getC(), group.getD()};
  for (std::size_t i = 0; i < 32; ++i) out.bytes[i] = static_cast<std::uint8_t>(words[i / 8] >> (8 * (i % 8)));
  return out;
}

// Reads one message. Every function says whether to go on; the reason is kept in refusal().
class Decoder {
 public:
  Decoder(const SharedBytes& frame, const CodecLimits& limits) : frame_(frame), limits_(limits) {}

  [[nodiscard]] Refusal refusal() const { return refusal_; }

  bool read(wire::Message::Reader in, Message& out);

 private:
  bool fail(Refusal reason) {
    refusal_ = reason;
    return false;
  }
  bool require(bool condition) { return condition || fail(Refusal::kMalformed); }
  bool within(std::size_t count, std::size_t max) { return count <= max || fail(Refusal::kOversize); }

  bool payload(capnp::Data::Reader in, SharedBytes& out) {
    if (!within(in.size(), limits_.op_bytes_max)) return false;
    out =
        in.size() == 0 ? SharedBytes() : frame_.slice(static_cast<std::size_t>(in.begin() - frame_.data()), in.size());
    return true;
  }
  template <std::size_t kSize>
  bool fixed(capnp::Data::Reader in, std::array<std::uint8_t, kSize>& out) {
    if (!require(in.size() == kSize)) return false;
    std::memcpy(out.data(), in.begin(), kSize);
    return true;
  }
  bool digests(capnp::Data::Reader in, std::size_t max, std::vector<Digest>& out) {
    if (!require(in.size() % sizeof(Digest) == 0)) return false;
    const std::size_t count = in.size() / sizeof(Digest);
    if (!within(count, max)) return false;
    out.resize(count);
    if (count > 0) std::memcpy(out.data(), in.begin(), in.size());
    return true;
  }
  bool slot(std::uint16_t in, SlotId& out) {
    out.value = in;
    return require(in < limits_.slots_max);
  }
  bool slots(capnp::List<std::uint16_t>::Reader in, std::vector<SlotId>& out);
  bool incarnations(capnp::List<std::uint64_t>::Reader in, std::vector<Incarnation>& out);
  bool references(capnp::List<wire::Reference>::Reader in, std::vector<Reference>& out);
  bool header(wire::Header::Reader in, HeaderPtr& out, Digest& digest);
  bool system(wire::SystemOperation::Reader in, SystemOp& out);
  bool request(Request& out, std::uint32_t flags, capnp::Data::Reader op);
  template <class Ballot>
  bool ballot(wire::Ballot::Reader in, Ballot& out);

  bool get(wire::PrePrepare::Reader in, PrePrepare& out);
  bool get(wire::FetchBodies::Reader in, FetchBodies& out);
  bool get(wire::Bodies::Reader in, Bodies& out);
  bool get(wire::Requests::Reader in, Requests& out);
  bool get(wire::Acks::Reader in, Acks& out);
  bool get(wire::Rejected::Reader in, Rejected& out);
  bool get(wire::Subscribe::Reader in, Subscribe& out);
  bool get(wire::Orders::Reader in, Orders& out);
  bool get(wire::Batch::Reader in, Batch& out);
  bool get(wire::Vote::Reader in, Vote& out);
  bool get(wire::Replies::Reader in, Replies& out);
  bool get(wire::FetchReplies::Reader in, FetchReplies& out);
  bool get(wire::Wake::Reader in, Wake& out);
  bool get(wire::Suspect::Reader in, Suspect& out);
  bool get(wire::EpochChange::Reader in, EpochChange& out);
  bool get(wire::EpochNotice::Reader in, EpochNotice& out);
  bool get(wire::Join::Reader in, Join& out);
  bool get(wire::SlotDead::Reader in, SlotDead& out);
  bool get(wire::StatusReport::Reader in, StatusReport& out);

  const SharedBytes& frame_;
  const CodecLimits& limits_;
  ServiceId service_;
  Refusal refusal_ = Refusal::kNone;
};

// ---- parts
// -----------------------------------------------------------------------------------------------------------

bool Decoder::slots(capnp::List<std::uint16_t>::Reader in, std::vector<SlotId>& out) {
  if (!within(in.size(), limits_.slots_max)) return false;
  out.resize(in.size());
  for (unsigned i = 0; i < in.size(); ++i) {
    if (!slot(in[i], out[i])) return false;
    if (!require(i == 0 || out[i - 1] < out[i])) return false;
  }
  return true;
}

bool Decoder::incarnations(capnp::List<std::uint64_t>::Reader in, std::vector<Incarnation>& out) {
  if (!within(in.size(), limits_.slots_max)) return false;
  out.resize(in.size());
  for (unsigned i = 0; i < in.size(); ++i) out[i].value = in[i];
  return true;
}

bool Decoder::references(capnp::List<wire::Reference>::Reader in, std::vector<Reference>& out) {
  if (!within(in.size(), limits_.batch_requests_max)) return false;
  out.reserve(in.size());
  for (const auto r : in) {
    out.push_back(
        {ClientId{r.getClient()}, SessionId{r.getSession()}, RequestNumber{r.getNumber()}, digest_of(r.getDigest())});
  }
  return true;
}

bool Decoder::header(wire::Header::Reader in, HeaderPtr& out, Digest& digest) {
  auto header = std::make_shared<BatchHeader>();
  header->service = service_;
  header->n.value = in.getN();
  header->time.value = in.getTime();
  if (!references(in.getReferences(), header->references)) return false;
  const auto operations = in.getSystem();
  if (!within(operations.size(), kSystemOpsMax)) return false;
  header->system.reserve(operations.size());
  for (const auto op : operations) {
    if (!system(op, header->system.emplace_back())) return false;
  }
  digest = batch_digest(*header);
  out = std::move(header);
  return true;
}

bool Decoder::system(wire::SystemOperation::Reader in, SystemOp& out) {
  switch (in.which()) {
    case wire::SystemOperation::EPOCH_CHANGE:
      return require(in.hasEpochChange()) && get(in.getEpochChange(), out.emplace<EpochChange>());
    case wire::SystemOperation::JOIN:
      return require(in.hasJoin()) && get(in.getJoin(), out.emplace<Join>());
  }
  return fail(Refusal::kMalformed);
}

// Requires the names of `out` to be set already.
bool Decoder::request(Request& out, std::uint32_t flags, capnp::Data::Reader op) {
  if (!require(flags == 0) || !payload(op, out.op)) return false;
  out.flags = flags;
  out.digest = request_digest(service_, out.client, out.session, out.number, flags, out.op.view());
  return true;
}

template <class Ballot>
bool Decoder::ballot(wire::Ballot::Reader in, Ballot& out) {
  out.view.value = in.getView();
  out.n.value = in.getN();
  out.digest = digest_of(in.getDigest());
  return true;
}

// ---- ordering
// --------------------------------------------------------------------------------------------------------

bool Decoder::get(wire::PrePrepare::Reader in, PrePrepare& out) {
  out.view.value = in.getView();
  return require(in.hasHeader()) && header(in.getHeader(), out.header, out.digest);
}

bool Decoder::get(wire::FetchBodies::Reader in, FetchBodies& out) { return references(in.getWanted(), out.wanted); }

bool Decoder::get(wire::Bodies::Reader in, Bodies& out) {
  const auto list = in.getRequests();
  if (!within(list.size(), limits_.batch_requests_max)) return false;
  out.requests.reserve(list.size());
  for (const auto item : list) {
    auto made = std::make_shared<Request>();
    made->client.value = item.getClient();
    made->session.value = item.getSession();
    made->number.value = item.getNumber();
    if (!request(*made, item.getFlags(), item.getOp())) return false;
    out.requests.push_back(std::move(made));
  }
  return true;
}

// ---- client
// ----------------------------------------------------------------------------------------------------------

bool Decoder::get(wire::Requests::Reader in, Requests& out) {
  out.session.value = in.getSession();
  const auto list = in.getItems();
  if (!within(list.size(), limits_.batch_requests_max)) return false;
  out.items.reserve(list.size());
  for (const auto from : list) {
    Requests::Item& item = out.items.emplace_back();
    item.number.value = from.getNumber();
    item.flags = from.getFlags();
    if (!require(item.flags == 0) || !payload(from.getOp(), item.op)) return false;
  }
  return true;
}

bool Decoder::get(wire::Acks::Reader in, Acks& out) {
  out.session.value = in.getSession();
  const auto list = in.getItems();
  if (!within(list.size(), limits_.batch_requests_max)) return false;
  out.items.reserve(list.size());
  for (const auto from : list) {
    Acks::Item& item = out.items.emplace_back();
    item.number.value = from.getNumber();
    item.reply_digest = digest_of(from.getDigest());
    item.has_body = from.getHasBody();
    if (!item.has_body) {
      if (!require(!from.hasBody())) return false;
    } else if (!payload(from.getBody(), item.body)) {
      return false;
    }
  }
  return true;
}

bool Decoder::get(wire::Rejected::Reader in, Rejected& out) {
  out.session.value = in.getSession();
  out.number.value = in.getNumber();
  out.reason = in.getReason();
  return require(out.reason != 0 && out.reason < static_cast<std::uint8_t>(Refusal::kCount));
}

// ---- execution
// -------------------------------------------------------------------------------------------------------

bool Decoder::get(wire::Subscribe::Reader in, Subscribe& out) {
  out.from.value = in.getFrom();
  out.bearer = in.getBearer();
  return true;
}

bool Decoder::get(wire::Orders::Reader in, Orders& out) {
  out.first_n.value = in.getFirstN();
  return digests(in.getDigests(), limits_.orders_max, out.digests);
}

bool Decoder::get(wire::Batch::Reader in, Batch& out) {
  if (!require(in.hasHeader()) || !header(in.getHeader(), out.header, out.digest)) return false;
  const auto& references = out.header->references;
  const auto bodies = in.getBodies();
  if (!require(bodies.size() == references.size())) return false;
  out.requests.reserve(references.size());
  for (unsigned i = 0; i < bodies.size(); ++i) {
    auto made = std::make_shared<Request>();
    made->client = references[i].client;
    made->session = references[i].session;
    made->number = references[i].number;
    if (!request(*made, bodies[i].getFlags(), bodies[i].getOp())) return false;
    out.requests.push_back(std::move(made));
  }
  return true;
}

bool Decoder::get(wire::Vote::Reader in, Vote& out) {
  out.epoch.value = in.getEpoch();
  out.n.value = in.getN();
  out.incarnation.value = in.getIncarnation();
  return slot(in.getSlot(), out.slot) && digests(in.getReplies(), limits_.batch_requests_max, out.replies);
}

bool Decoder::get(wire::Replies::Reader in, Replies& out) {
  out.n.value = in.getN();
  const auto list = in.getItems();
  if (!within(list.size(), limits_.batch_requests_max)) return false;
  out.items.reserve(list.size());
  for (const auto from : list) {
    Replies::Item& item = out.items.emplace_back();
    item.index = from.getIndex();
    if (!require(item.index < limits_.batch_requests_max) || !payload(from.getBody(), item.body)) return false;
  }
  return true;
}

bool Decoder::get(wire::FetchReplies::Reader in, FetchReplies& out) {
  out.n.value = in.getN();
  const auto list = in.getItems();
  if (!within(list.size(), limits_.batch_requests_max)) return false;
  out.items.reserve(list.size());
  for (const auto from : list) {
    out.items.push_back(
        {from.getIndex(), ClientId{from.getClient()}, SessionId{from.getSession()}, RequestNumber{from.getNumber()}});
    if (!require(out.items.back().index < limits_.batch_requests_max)) return false;
  }
  return true;
}

// ---- system operations and the pool
// ----------------------------------------------------------------------------------

bool Decoder::get(wire::Suspect::Reader in, Suspect& out) {
  out.service = service_;
  out.signer.value = in.getSigner();
  out.epoch.value = in.getEpoch();
  out.incarnation.value = in.getIncarnation();
  out.n.value = in.getN();
  switch (in.getWhy()) {
    case wire::Suspicion::WRONG:
      out.why = Suspicion::kWrong;
      break;
    case wire::Suspicion::LATE:
      out.why = Suspicion::kLate;
      break;
    case wire::Suspicion::SURPLUS:
      out.why = Suspicion::kSurplus;
      break;
    default:
      return fail(Refusal::kMalformed);
  }
  return slot(in.getSlot(), out.slot) && require(out.signer.value < kNodesMax) &&
         slots(in.getAgreeing(), out.agreeing) && fixed(in.getSignature(), out.signature.bytes);
}

bool Decoder::get(wire::EpochChange::Reader in, EpochChange& out) {
  out.epoch.value = in.getEpoch();
  if (!slots(in.getActive(), out.active) || !slots(in.getEvicted(), out.evicted)) return false;
  const auto proof = in.getProof();
  if (!within(proof.size(), kNodesMax * limits_.slots_max)) return false;
  out.proof.reserve(proof.size());
  for (const auto suspect : proof) {
    if (!get(suspect, out.proof.emplace_back())) return false;
  }
  return true;
}

bool Decoder::get(wire::Join::Reader in, Join& out) {
  out.service = service_;
  out.incarnation.value = in.getIncarnation();
  return slot(in.getSlot(), out.slot) && fixed(in.getKey(), out.key.bytes) &&
         fixed(in.getSignature(), out.signature.bytes);
}

bool Decoder::get(wire::Wake::Reader in, Wake& out) {
  out.service = service_;
  out.signer.value = in.getSigner();
  out.epoch.value = in.getEpoch();
  out.incarnation.value = in.getIncarnation();
  out.n.value = in.getN();
  out.sign = in.getSign();
  return slot(in.getSlot(), out.slot) && require(out.signer.value < kNodesMax) &&
         fixed(in.getSignature(), out.signature.bytes);
}

bool Decoder::get(wire::EpochNotice::Reader in, EpochNotice& out) {
  out.service = service_;
  out.epoch.value = in.getEpoch();
  out.n.value = in.getN();
  return slots(in.getActive(), out.active) && incarnations(in.getIncarnations(), out.incarnations) &&
         incarnations(in.getEvictedThrough(), out.evicted_through) &&
         require(out.incarnations.size() == out.evicted_through.size());
}

bool Decoder::get(wire::SlotDead::Reader in, SlotDead& out) {
  out.incarnation.value = in.getIncarnation();
  return slot(in.getSlot(), out.slot);
}

bool Decoder::get(wire::StatusReport::Reader in, StatusReport& out) {
  const auto json = in.getJson();
  if (!within(json.size(), limits_.status_bytes_max)) return false;
  out.json.assign(reinterpret_cast<const char*>(json.begin()), json.size());
  return true;
}

// ---- root
// ------------------------------------------------------------------------------------------------------------

bool Decoder::read(wire::Message::Reader in, Message& out) {
  service_.value = in.getService();
  out.service = service_;
  const auto body = in.getBody();
  Body& to = out.body;
  using B = wire::Message::Body;
  switch (body.which()) {
    case B::PRE_PREPARE:
      return require(body.hasPrePrepare()) && get(body.getPrePrepare(), to.emplace<PrePrepare>());
    case B::PREPARE:
      return require(body.hasPrepare()) && ballot(body.getPrepare(), to.emplace<Prepare>());
    case B::COMMIT:
      return require(body.hasCommit()) && ballot(body.getCommit(), to.emplace<Commit>());
    case B::FETCH_BODIES:
      return require(body.hasFetchBodies()) && get(body.getFetchBodies(), to.emplace<FetchBodies>());
    case B::BODIES:
      return require(body.hasBodies()) && get(body.getBodies(), to.emplace<Bodies>());
    case B::REQUESTS:
      return require(body.hasRequests()) && get(body.getRequests(), to.emplace<Requests>());
    case B::ACKS:
      return require(body.hasAcks()) && get(body.getAcks(), to.emplace<Acks>());
    case B::REJECTED:
      return require(body.hasRejected()) && get(body.getRejected(), to.emplace<Rejected>());
    case B::SUBSCRIBE:
      return require(body.hasSubscribe()) && get(body.getSubscribe(), to.emplace<Subscribe>());
    case B::ORDERS:
      return require(body.hasOrders()) && get(body.getOrders(), to.emplace<Orders>());
    case B::BATCH:
      return require(body.hasBatch()) && get(body.getBatch(), to.emplace<Batch>());
    case B::VOTE:
      return require(body.hasVote()) && get(body.getVote(), to.emplace<Vote>());
    case B::REPLIES:
      return require(body.hasReplies()) && get(body.getReplies(), to.emplace<Replies>());
    case B::FETCH_REPLIES:
      return require(body.hasFetchReplies()) && get(body.getFetchReplies(), to.emplace<FetchReplies>());
    case B::WAKE:
      return require(body.hasWake()) && get(body.getWake(), to.emplace<Wake>());
    case B::SUSPECT:
      return require(body.hasSuspect()) && get(body.getSuspect(), to.emplace<Suspect>());
    case B::EPOCH_NOTICE:
      return require(body.hasEpochNotice()) && get(body.getEpochNotice(), to.emplace<EpochNotice>());
    case B::JOIN:
      return require(body.hasJoin()) && get(body.getJoin(), to.emplace<Join>());
    case B::SLOT_DEAD:
      return require(body.hasSlotDead()) && get(body.getSlotDead(), to.emplace<SlotDead>());
    case B::STATUS_QUERY:
      to.emplace<StatusQuery>();
      return true;
    case B::STATUS_REPORT:
      return require(body.hasStatusReport()) && get(body.getStatusReport(), to.emplace<StatusReport>());
  }
  return fail(Refusal::kMalformed);
}

}  // namespace

Decoded decode(const SharedBytes& bytes, const CodecLimits& limits) {
  Decoded out;
  if (!is_one_segment(bytes)) {
    out.refusal = Refusal::kMalformed;
    return out;
  }
  Decoder decoder(bytes, limits);
  try {
    const kj::ArrayPtr<const capnp::word> segment(reinterpret_cast<const capnp::word*>(bytes.data()) + 1,
                                                  bytes.size() / 8 - 1);
    const kj::ArrayPtr<const capnp::word> segments[1] = {segment};
    capnp::SegmentArrayMessageReader reader(kj::arrayPtr(segments, 1), options_for(segment.size()));
    decoder.read(reader.getRoot<wire::Message>(), out.message);
    out.refusal = decoder.refusal();
  } catch (const kj::Exception&) {
    out.refusal = Refusal::kMalformed;
  }
  return out;
}

}  // namespace zz::agreement
