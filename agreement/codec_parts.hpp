#pragma once

// What the codecs of messages and of log records share: the words a part needs, the writers of parts, the frame
// they are written into, and the reader of everything. For codec_*.cpp and record_codec.cpp only, since it shows
// generated code. Any thread; no state.

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <cstring>
#include <memory>
#include <vector>

#include "agreement/codec.hpp"
#include "agreement/messages.capnp.h"
#include "agreement/record_codec.hpp"

namespace zz::agreement::codec {

// ---- writing
// ---------------------------------------------------------------------------------------------------------
// words(): the exact number of words a part needs, so that it is written once into its final buffer.

template <class Wire>
constexpr std::size_t kStructWords = Wire::_capnpPrivate::dataWordSize + Wire::_capnpPrivate::pointerCount;

template <class Wire>
std::size_t list_words(std::size_t count) {
  return 1 + count * kStructWords<Wire>;  // even an empty one has its tag
}
inline std::size_t data_words(std::size_t bytes) { return (bytes + 7) / 8; }

inline unsigned narrow(std::size_t count) { return static_cast<unsigned>(count); }
inline capnp::Data::Reader data_of(ByteView bytes) { return {bytes.data(), bytes.size()}; }

std::size_t words(const BatchHeader& header);
std::size_t words(const StableCertificate& certificate);
std::size_t words(const ViewChange& message);
std::size_t words(const NewView& message);
std::size_t batch_words(const BatchHeader& header, const std::vector<RequestPtr>& requests);

// What names a service inside must name `service`: the bytes carry it once.
void put(wire::Header::Builder out, const BatchHeader& header, ServiceId service);
void put(wire::Ballot::Builder out, View view, Seq n, const Digest& digest);
void put(wire::StableCertificate::Builder out, const StableCertificate& certificate, ServiceId service);
void put(wire::ViewChange::Builder out, const ViewChange& message, ServiceId service);
void put(wire::NewView::Builder out, const NewView& message, ServiceId service);
void put(wire::Batch::Builder out, const BatchHeader& header, const std::vector<RequestPtr>& requests,
         ServiceId service);

// Writes its only segment behind the segment table, in a buffer that becomes the frame.
class FrameBuilder final : public capnp::MessageBuilder {
 public:
  // `segment_words`: at least what root pointer and content need.
  explicit FrameBuilder(std::size_t segment_words)
      : words_(segment_words + 1), buffer_(std::make_shared<std::uint64_t[]>(words_)) {}

  kj::ArrayPtr<capnp::word> allocateSegment(unsigned minimum_words) override;
  SharedBytes finish();

 private:
  std::size_t words_;
  std::shared_ptr<std::uint64_t[]> buffer_;
  bool given_ = false;
};

// ---- reading
// ---------------------------------------------------------------------------------------------------------

template <class Group>
Digest digest_of(Group group) {
  Digest out;
  const std::uint64_t words[4] = {group.getA(), group.getB(), group.getC(), group.getD()};
  for (std::size_t i = 0; i < 32; ++i) out.bytes[i] = static_cast<std::uint8_t>(words[i / 8] >> (8 * (i % 8)));
  return out;
}

// Reads one message or record. Every function says whether to go on; the reason is kept in refusal().
class Decoder {
 public:
  Decoder(const SharedBytes& frame, const CodecLimits& limits) : frame_(frame), limits_(limits) {}

  [[nodiscard]] Refusal refusal() const { return refusal_; }

  bool read(wire::Message::Reader in, Message& out);
  bool read(wire::Record::Reader in, DecodedRecord& out);  // record_codec.cpp

 private:
  bool fail(Refusal reason) {
    refusal_ = reason;
    return false;
  }
  bool require(bool condition) { return condition || fail(Refusal::kMalformed); }
  bool within(std::size_t count, std::size_t max) { return count <= max || fail(Refusal::kOversize); }

  bool payload(capnp::Data::Reader in, SharedBytes& out) { return payload(in, limits_.op_bytes_max, out); }
  bool payload(capnp::Data::Reader in, std::size_t bytes_max, SharedBytes& out) {
    if (!within(in.size(), bytes_max)) return false;
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
  bool signer(std::uint16_t in, NodeId& out);
  bool claims(capnp::Data::Reader in, std::vector<Claim>& out);
  bool certificate(wire::StableCertificate::Reader in, CertificatePtr& out);
  bool parts(capnp::List<wire::StableCertificate::Part>::Reader in, std::vector<StableCertificate::Part>& out);
  bool slots(capnp::List<std::uint16_t>::Reader in, std::vector<SlotId>& out);
  bool incarnations(capnp::List<std::uint64_t>::Reader in, std::vector<Incarnation>& out);
  bool references(capnp::List<wire::Reference>::Reader in, std::vector<Reference>& out);
  bool header(wire::Header::Reader in, HeaderPtr& out, Digest& digest);
  bool system(wire::SystemOperation::Reader in, SystemOp& out);
  // The request that `name` names; its digest is computed.
  bool request(const Reference& name, std::uint32_t flags, capnp::Data::Reader op, RequestPtr& out);
  template <class Ballot>
  bool ballot(wire::Ballot::Reader in, Ballot& out) {
    out.view.value = in.getView();
    out.n.value = in.getN();
    out.digest = digest_of(in.getDigest());
    return true;
  }

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
  bool get(wire::ReplyDigests::Reader in, ReplyDigests& out);
  bool get(wire::Wake::Reader in, Wake& out);
  bool get(wire::Suspect::Reader in, Suspect& out);
  bool get(wire::EpochChange::Reader in, EpochChange& out);
  bool get(wire::EpochNotice::Reader in, EpochNotice& out);
  bool get(wire::Join::Reader in, Join& out);
  bool get(wire::SlotDead::Reader in, SlotDead& out);
  bool get(wire::StatusReport::Reader in, StatusReport& out);
  bool get(wire::FetchHeaders::Reader in, FetchHeaders& out);
  bool get(wire::Headers::Reader in, Headers& out);
  bool get(wire::CheckpointState::Reader in, CheckpointState& out);
  bool get(wire::Checkpoint::Reader in, Checkpoint& out);
  bool get(wire::FetchOrder::Reader in, FetchOrder& out);
  bool get(wire::OrderProof::Reader in, OrderProof& out);
  bool get(wire::ViewChange::Reader in, ViewChangePtr& out);
  bool get(wire::NewView::Reader in, NewViewPtr& out);
  bool get(wire::Progress::Reader in, Progress& out);
  bool get(wire::Closings::Reader in, Closings& out);
  bool get(wire::ExecCheckpoint::Reader in, ExecCheckpoint& out);
  bool get(wire::FetchState::Reader in, FetchState& out);
  bool get(wire::StateParts::Reader in, StateParts& out);
  bool get(wire::VouchQuery::Reader in, VouchQuery& out);
  bool get(wire::Vouched::Reader in, Vouched& out);
  bool get(wire::ViewRecord::Reader in, ViewRecord& out);
  bool get(wire::AcceptedRecord::Reader in, AcceptedRecord& out);

  const SharedBytes& frame_;
  const CodecLimits& limits_;
  ServiceId service_;
  Refusal refusal_ = Refusal::kNone;
};

// Whether the bytes are one segment that fills the frame behind the segment table.
bool is_one_segment(const SharedBytes& bytes);
capnp::ReaderOptions reader_options(std::size_t segment_words);

// kMalformed or kOversize: `out` is meaningless. Never throws.
template <class Root, class Out>
Refusal decode_root(const SharedBytes& bytes, const CodecLimits& limits, Out& out) {
  if (!is_one_segment(bytes)) return Refusal::kMalformed;
  Decoder decoder(bytes, limits);
  try {
    const kj::ArrayPtr<const capnp::word> segment(reinterpret_cast<const capnp::word*>(bytes.data()) + 1,
                                                  bytes.size() / 8 - 1);
    const kj::ArrayPtr<const capnp::word> segments[1] = {segment};
    capnp::SegmentArrayMessageReader reader(kj::arrayPtr(segments, 1), reader_options(segment.size()));
    decoder.read(reader.getRoot<Root>(), out);
    return decoder.refusal();
  } catch (const kj::Exception&) {
    return Refusal::kMalformed;
  }
}

}  // namespace zz::agreement::codec
