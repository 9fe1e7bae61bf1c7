#include <cstring>

#include "agreement/codec_parts.hpp"
#include "crypto/cluster.hpp"

namespace zz::agreement {
namespace codec {
namespace {

// System operations are rare: an epoch change and one join per slot is the most one batch has a use for, with room.
constexpr std::size_t kSystemOpsMax = 64;
constexpr std::size_t kNodesMax = 3 * crypto::kFaultsMax + 1;
constexpr std::size_t kHeadersMax = 16;
constexpr std::size_t kChosenMax = 1'024;  // the largest window_batches
constexpr std::size_t kClaimBytes = 48;
constexpr int kNestingMax = 16;

std::uint64_t word_at(const std::uint8_t* bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

capnp::ReaderOptions reader_options(std::size_t segment_words) {
  capnp::ReaderOptions options;
  // Everything is read once, so an honest message is charged its own size; aliased objects soon exceed this.
  options.traversalLimitInWords = 2 * segment_words + 16;
  options.nestingLimit = kNestingMax;
  return options;
}

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

bool Decoder::request(const Reference& name, std::uint32_t flags, capnp::Data::Reader op, RequestPtr& out) {
  auto made = std::make_shared<Request>();
  if (!require(flags == 0) || !payload(op, made->op)) return false;
  made->client = name.client;
  made->session = name.session;
  made->number = name.number;
  made->digest = request_digest(service_, name.client, name.session, name.number, flags, made->op.view());
  out = std::move(made);
  return true;
}

bool Decoder::signer(std::uint16_t in, NodeId& out) {
  out.value = in;
  return require(in < kNodesMax);
}

bool Decoder::claims(capnp::Data::Reader in, std::vector<Claim>& out) {
  if (!require(in.size() % kClaimBytes == 0)) return false;
  const std::size_t count = in.size() / kClaimBytes;
  if (!within(count, kClaimsMax)) return false;
  out.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* from = in.begin() + i * kClaimBytes;
    out[i].n.value = word_at(from);
    out[i].view.value = word_at(from + 8);
    std::memcpy(out[i].digest.bytes.data(), from + 16, sizeof(Digest));
  }
  return true;
}

bool Decoder::parts(capnp::List<wire::StableCertificate::Part>::Reader in, std::vector<StableCertificate::Part>& out) {
  if (!within(in.size(), kNodesMax)) return false;
  out.reserve(in.size());
  for (const auto from : in) {
    StableCertificate::Part& part = out.emplace_back();
    if (!signer(from.getSigner(), part.signer) || !fixed(from.getSignature(), part.signature.bytes)) return false;
  }
  return true;
}

bool Decoder::certificate(wire::StableCertificate::Reader in, CertificatePtr& out) {
  auto made = std::make_shared<StableCertificate>();
  made->service = service_;
  if (!require(in.hasState()) || !get(in.getState(), made->state)) return false;
  if (!parts(in.getParts(), made->parts)) return false;
  out = std::move(made);
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
    const Reference name{ClientId{item.getClient()}, SessionId{item.getSession()}, RequestNumber{item.getNumber()}, {}};
    if (!request(name, item.getFlags(), item.getOp(), out.requests.emplace_back())) return false;
  }
  return true;
}

bool Decoder::get(wire::FetchHeaders::Reader in, FetchHeaders& out) {
  return digests(in.getWanted(), kClaimsMax, out.wanted);
}

bool Decoder::get(wire::Headers::Reader in, Headers& out) {
  const auto list = in.getHeaders();
  if (!within(list.size(), kHeadersMax)) return false;
  out.headers.resize(list.size());
  Digest digest;
  for (unsigned i = 0; i < list.size(); ++i) {
    if (!header(list[i], out.headers[i], digest)) return false;
  }
  return true;
}

bool Decoder::get(wire::VouchQuery::Reader in, VouchQuery& out) {
  return references(in.getReferences(), out.references);
}

bool Decoder::get(wire::Vouched::Reader in, Vouched& out) { return references(in.getReferences(), out.references); }

// ---- checkpoints
// -----------------------------------------------------------------------------------------------------

bool Decoder::get(wire::CheckpointState::Reader in, CheckpointState& out) {
  out.n.value = in.getN();
  out.history = digest_of(in.getHistory());
  out.results = digest_of(in.getResults());
  out.table = digest_of(in.getTable());
  out.root = digest_of(in.getRoot());
  return true;
}

bool Decoder::get(wire::Checkpoint::Reader in, Checkpoint& out) {
  out.service = service_;
  return require(in.hasState()) && get(in.getState(), out.state) && signer(in.getSigner(), out.signer) &&
         fixed(in.getSignature(), out.signature.bytes);
}

bool Decoder::get(wire::FetchOrder::Reader in, FetchOrder& out) {
  out.from.value = in.getFrom();
  return true;
}

bool Decoder::get(wire::OrderProof::Reader in, OrderProof& out) {
  out.from.value = in.getFrom();
  return require(in.hasCertificate()) && digests(in.getDigests(), kProofDigestsMax, out.digests) &&
         certificate(in.getCertificate(), out.certificate);
}

// ---- view change
// -----------------------------------------------------------------------------------------------------

bool Decoder::get(wire::ViewChange::Reader in, ViewChangePtr& out) {
  auto made = std::make_shared<ViewChange>();
  made->service = service_;
  made->view.value = in.getView();
  if (!signer(in.getSigner(), made->signer) || !fixed(in.getSignature(), made->signature.bytes)) return false;
  if (in.hasStable() && !certificate(in.getStable(), made->stable)) return false;
  if (!claims(in.getPrepared(), made->prepared) || !claims(in.getPrePrepared(), made->pre_prepared)) return false;
  if (!parts(in.getComplaints(), made->complaints)) return false;
  out = std::move(made);
  return true;
}

bool Decoder::get(wire::NewView::Reader in, NewViewPtr& out) {
  auto made = std::make_shared<NewView>();
  made->service = service_;
  made->view.value = in.getView();
  made->start.value = in.getStart();
  if (!signer(in.getSigner(), made->signer) || !fixed(in.getSignature(), made->signature.bytes)) return false;
  if (!digests(in.getChosen(), kChosenMax, made->chosen)) return false;
  const auto proof = in.getProof();
  if (!within(proof.size(), kNodesMax)) return false;
  made->proof.resize(proof.size());
  for (unsigned i = 0; i < proof.size(); ++i) {
    if (!get(proof[i], made->proof[i])) return false;
  }
  out = std::move(made);
  return true;
}

bool Decoder::get(wire::Progress::Reader in, Progress& out) {
  out.view.value = in.getView();
  out.changing = in.getChanging();
  out.delivered.value = in.getDelivered();
  out.stable.value = in.getStable();
  out.complains = in.getComplains();
  out.settled.value = in.getSettled();
  out.closed.value = in.getClosed();
  return out.complains ? fixed(in.getComplaint(), out.complaint.bytes) : require(in.getComplaint().size() == 0);
}

bool Decoder::get(wire::Closings::Reader in, Closings& out) {
  out.first_n.value = in.getFirstN();
  return digests(in.getDigests(), kClosingsMax, out.digests);
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

// ---- system operations and the pool
// ----------------------------------------------------------------------------------

bool Decoder::get(wire::Suspect::Reader in, Suspect& out) {
  out.service = service_;
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
  return slot(in.getSlot(), out.slot) && signer(in.getSigner(), out.signer) && slots(in.getAgreeing(), out.agreeing) &&
         fixed(in.getSignature(), out.signature.bytes);
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
  out.epoch.value = in.getEpoch();
  out.incarnation.value = in.getIncarnation();
  out.n.value = in.getN();
  out.sign = in.getSign();
  return slot(in.getSlot(), out.slot) && signer(in.getSigner(), out.signer) &&
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
    case B::REPLY_DIGESTS:
      return require(body.hasReplyDigests()) && get(body.getReplyDigests(), to.emplace<ReplyDigests>());
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
    case B::FETCH_HEADERS:
      return require(body.hasFetchHeaders()) && get(body.getFetchHeaders(), to.emplace<FetchHeaders>());
    case B::HEADERS:
      return require(body.hasHeaders()) && get(body.getHeaders(), to.emplace<Headers>());
    case B::CHECKPOINT:
      return require(body.hasCheckpoint()) && get(body.getCheckpoint(), to.emplace<Checkpoint>());
    case B::STABLE:
      return require(body.hasStable()) && certificate(body.getStable(), to.emplace<Stable>().certificate);
    case B::FETCH_ORDER:
      return require(body.hasFetchOrder()) && get(body.getFetchOrder(), to.emplace<FetchOrder>());
    case B::ORDER_PROOF:
      return require(body.hasOrderProof()) && get(body.getOrderProof(), to.emplace<OrderProof>());
    case B::VIEW_CHANGE:
      return require(body.hasViewChange()) && get(body.getViewChange(), to.emplace<ViewChangePtr>());
    case B::NEW_VIEW:
      return require(body.hasNewView()) && get(body.getNewView(), to.emplace<NewViewPtr>());
    case B::PROGRESS:
      return require(body.hasProgress()) && get(body.getProgress(), to.emplace<Progress>());
    case B::VOUCH_QUERY:
      return require(body.hasVouchQuery()) && get(body.getVouchQuery(), to.emplace<VouchQuery>());
    case B::VOUCHED:
      return require(body.hasVouched()) && get(body.getVouched(), to.emplace<Vouched>());
    case B::PROPOSE:
      return require(body.hasPropose()) && system(body.getPropose(), to.emplace<Propose>().op);
    case B::CLOSINGS:
      return require(body.hasClosings()) && get(body.getClosings(), to.emplace<Closings>());
    case B::EXEC_CHECKPOINT:
      return require(body.hasExecCheckpoint()) && get(body.getExecCheckpoint(), to.emplace<ExecCheckpoint>());
    case B::FETCH_STATE:
      return require(body.hasFetchState()) && get(body.getFetchState(), to.emplace<FetchState>());
    case B::STATE_PARTS:
      return require(body.hasStateParts()) && get(body.getStateParts(), to.emplace<StateParts>());
  }
  return fail(Refusal::kMalformed);
}

}  // namespace codec

Decoded decode(const SharedBytes& bytes, const CodecLimits& limits) {
  Decoded out;
  out.refusal = codec::decode_root<wire::Message>(bytes, limits, out.message);
  return out;
}

}  // namespace zz::agreement
