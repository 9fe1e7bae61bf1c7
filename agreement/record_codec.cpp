#include "agreement/record_codec.hpp"

#include <algorithm>

#include "agreement/codec_parts.hpp"

namespace zz::agreement {
namespace codec {
namespace {

std::size_t body_words(const std::vector<RequestPtr>& bodies) {
  std::size_t count = 0;
  std::size_t sum = 0;
  for (const RequestPtr& body : bodies) {
    if (!body) continue;
    ++count;
    sum += data_words(body->op.size());
  }
  return list_words<wire::AcceptedRecord::Item>(count) + sum;
}

struct RecordSizer {
  std::size_t operator()(const ViewRecord& r) {
    return kStructWords<wire::ViewRecord> + (r.sent ? words(*r.sent) : 0) + (r.accepted ? words(*r.accepted) : 0);
  }
  std::size_t operator()(const AcceptedRecord& r) {
    return kStructWords<wire::AcceptedRecord> + kStructWords<wire::Ballot> + (r.header ? words(*r.header) : 0) +
           body_words(r.bodies);
  }
  std::size_t operator()(const PreparedRecord&) { return kStructWords<wire::Ballot>; }
  std::size_t operator()(const OrderedRecord& r) { return batch_words(*r.header, r.requests); }
  std::size_t operator()(const StableRecord& r) { return words(*r.certificate); }
  std::size_t operator()(const LearnerRecord&) { return 0; }
};

struct RecordWriter {
  ServiceId service;
  wire::Record::Builder out;

  void operator()(const ViewRecord& r) {
    auto to = out.initView();
    to.setView(r.view.value);
    to.setChanging(r.changing);
    if (r.sent) put(to.initSent(), *r.sent, service);
    if (r.accepted) put(to.initAccepted(), *r.accepted, service);
  }
  void operator()(const AcceptedRecord& r) {
    ZZ_ASSERT(!r.header || r.header->n == r.n);
    ZZ_ASSERT(r.bodies.size() == (r.header ? r.header->references.size() : 0));
    auto to = out.initAccepted();
    put(to.initBallot(), r.view, r.n, r.digest);
    if (r.header) put(to.initHeader(), *r.header, service);
    const auto at_hand =
        std::count_if(r.bodies.begin(), r.bodies.end(), [](const auto& body) { return body != nullptr; });
    auto items = to.initBodies(narrow(static_cast<std::size_t>(at_hand)));
    unsigned next = 0;
    for (std::size_t i = 0; i < r.bodies.size(); ++i) {
      if (!r.bodies[i]) continue;
      auto item = items[next++];
      item.setIndex(narrow(i));
      item.setFlags(r.bodies[i]->flags);
      item.setOp(data_of(r.bodies[i]->op.view()));
    }
  }
  void operator()(const PreparedRecord& r) { put(out.initPrepared(), r.view, r.n, r.digest); }
  void operator()(const OrderedRecord& r) {
    ZZ_ASSERT(r.header->n == r.n);
    put(out.initOrdered(), *r.header, r.requests, service);
  }
  void operator()(const StableRecord& r) { put(out.initStable(), *r.certificate, service); }
  void operator()(const LearnerRecord& r) { out.setLearner(r.learner); }
};

}  // namespace

bool Decoder::get(wire::ViewRecord::Reader in, ViewRecord& out) {
  out.view.value = in.getView();
  out.changing = in.getChanging();
  return (!in.hasSent() || get(in.getSent(), out.sent)) && (!in.hasAccepted() || get(in.getAccepted(), out.accepted));
}

bool Decoder::get(wire::AcceptedRecord::Reader in, AcceptedRecord& out) {
  if (!require(in.hasBallot()) || !ballot(in.getBallot(), out)) return false;
  const auto bodies = in.getBodies();
  if (!in.hasHeader()) return require(bodies.size() == 0);
  Digest digest;
  if (!header(in.getHeader(), out.header, digest)) return false;
  const auto& references = out.header->references;
  out.bodies.resize(references.size());
  std::size_t next = 0;
  for (const auto from : bodies) {
    const std::size_t index = from.getIndex();
    if (!require(index >= next && index < references.size())) return false;
    if (!request(references[index], from.getFlags(), from.getOp(), out.bodies[index])) return false;
    next = index + 1;
  }
  return require(out.header->n == out.n && digest == out.digest);
}

bool Decoder::read(wire::Record::Reader in, DecodedRecord& out) {
  service_.value = in.getService();
  out.service = service_;
  LogRecord& to = out.record;
  switch (in.which()) {
    case wire::Record::VIEW:
      return require(in.hasView()) && get(in.getView(), to.emplace<ViewRecord>());
    case wire::Record::ACCEPTED:
      return require(in.hasAccepted()) && get(in.getAccepted(), to.emplace<AcceptedRecord>());
    case wire::Record::PREPARED:
      return require(in.hasPrepared()) && ballot(in.getPrepared(), to.emplace<PreparedRecord>());
    case wire::Record::ORDERED: {
      Batch batch;
      if (!require(in.hasOrdered()) || !get(in.getOrdered(), batch)) return false;
      to = OrderedRecord{batch.header->n, batch.digest, std::move(batch.header), std::move(batch.requests)};
      return true;
    }
    case wire::Record::STABLE:
      return require(in.hasStable()) && certificate(in.getStable(), to.emplace<StableRecord>().certificate);
    case wire::Record::LEARNER:
      to = LearnerRecord{in.getLearner()};
      return true;
  }
  return fail(Refusal::kMalformed);
}

}  // namespace codec

SharedBytes encode_record(ServiceId service, const LogRecord& record) {
  const std::size_t body = std::visit(codec::RecordSizer{}, record);
  codec::FrameBuilder builder(1 + codec::kStructWords<wire::Record> + body);
  auto root = builder.initRoot<wire::Record>();
  root.setService(service.value);
  std::visit(codec::RecordWriter{service, root}, record);
  return builder.finish();
}

DecodedRecord decode_record(const SharedBytes& bytes, const CodecLimits& limits) {
  DecodedRecord out;
  out.refusal = codec::decode_root<wire::Record>(bytes, limits, out);
  return out;
}

}  // namespace zz::agreement
