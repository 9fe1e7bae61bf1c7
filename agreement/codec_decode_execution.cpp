// What executors and nodes tell each other, from bytes.

#include "agreement/codec_parts.hpp"

namespace zz::agreement::codec {
namespace {

constexpr std::uint8_t kStateKindMax = 2;    // an object
constexpr std::uint8_t kStateDepthMax = 16;  // nibbles of an object's number

}  // namespace

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
    if (!request(references[i], bodies[i].getFlags(), bodies[i].getOp(), out.requests.emplace_back())) return false;
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
  out.digests = in.getDigests();
  return true;
}

bool Decoder::get(wire::ReplyDigests::Reader in, ReplyDigests& out) {
  out.n.value = in.getN();
  const auto list = in.getItems();
  if (!within(list.size(), limits_.batch_requests_max)) return false;
  out.items.reserve(list.size());
  for (const auto from : list) {
    out.items.push_back({from.getIndex(), digest_of(from.getDigest())});
    if (!require(out.items.back().index < limits_.batch_requests_max)) return false;
  }
  return true;
}

bool Decoder::get(wire::ExecCheckpoint::Reader in, ExecCheckpoint& out) {
  out.service = service_;
  out.incarnation.value = in.getIncarnation();
  out.n.value = in.getN();
  out.root = digest_of(in.getRoot());
  return slot(in.getSlot(), out.slot) && fixed(in.getSignature(), out.signature.bytes);
}

bool Decoder::get(wire::FetchState::Reader in, FetchState& out) {
  out.ticket = in.getTicket();
  out.n.value = in.getN();
  const auto wants = in.getWants();
  const auto paths = in.getPaths();
  if (!slot(in.getSource(), out.source)) return false;
  if (!within(std::size_t{wants.size()} + paths.size(), kStateWantsMax)) return false;
  out.wants.reserve(wants.size());
  for (const auto from : wants) {
    out.wants.push_back(
        {from.getKind(), from.getPrefix(), from.getDepth(), from.getBytesMax(), digest_of(from.getDigest())});
    if (!require(from.getKind() <= kStateKindMax && from.getDepth() <= kStateDepthMax)) return false;
  }
  out.paths.reserve(paths.size());
  for (const auto from : paths) {
    out.paths.push_back({from.getObject(), from.getBelow(), from.getWithRoot()});
    if (!require(from.getBelow() <= kStateDepthMax)) return false;
  }
  return true;
}

bool Decoder::get(wire::StateParts::Reader in, StateParts& out) {
  out.ticket = in.getTicket();
  const auto list = in.getParts();
  if (!within(list.size(), kStatePartsMax)) return false;
  out.parts.reserve(list.size());
  std::size_t bytes = 0;
  for (const auto from : list) {
    StatePart& part = out.parts.emplace_back();
    part.kind = from.getKind();
    part.prefix = from.getPrefix();
    part.depth = from.getDepth();
    if (!require(part.kind <= kStateKindMax && part.depth <= kStateDepthMax)) return false;
    if (!payload(from.getBytes(), kStatePartBytesMax, part.bytes)) return false;
    bytes += part.bytes.size();
    if (!within(bytes, kStateBytesMax + kStatePartBytesMax)) return false;
  }
  return true;
}

}  // namespace zz::agreement::codec
