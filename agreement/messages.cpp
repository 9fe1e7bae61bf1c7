#include "agreement/messages.hpp"

#include "crypto/digest.hpp"

namespace zz::agreement {
namespace {

using crypto::DigestWriter;
using crypto::SignedFields;

void put_slots(DigestWriter& out, const std::vector<SlotId>& slots) {
  out.u64(slots.size());
  for (const SlotId slot : slots) out.id(slot);
}

void put(DigestWriter& out, const Suspect& s) {
  out.id(s.service).id(s.signer).id(s.epoch).id(s.slot).id(s.incarnation).id(s.n);
  out.u64(static_cast<std::uint64_t>(s.why));
  put_slots(out, s.agreeing);
  out.bytes(s.signature.bytes);
}

// The alternative's position comes first, so no operation can be taken for one of another kind.
void put(DigestWriter& out, const SystemOp& op) {
  out.u64(op.index());
  if (const auto* change = std::get_if<EpochChange>(&op)) {
    out.id(change->epoch);
    put_slots(out, change->active);
    put_slots(out, change->evicted);
    out.u64(change->proof.size());
    for (const Suspect& s : change->proof) put(out, s);
  } else {
    const Join& join = std::get<Join>(op);
    out.id(join.service).id(join.slot).id(join.incarnation);
    out.bytes(join.key.bytes).bytes(join.signature.bytes);
  }
}

Bytes copy_of(const SignedFields& fields) {
  const ByteView view = fields.view();
  return {view.begin(), view.end()};
}

}  // namespace

std::string_view to_string(Suspicion why) {
  switch (why) {
    case Suspicion::kWrong:
      return "wrong";
    case Suspicion::kLate:
      return "late";
    case Suspicion::kSurplus:
      return "surplus";
  }
  return "unknown";
}

Digest request_digest(ServiceId service, ClientId client, SessionId session, RequestNumber number, std::uint32_t flags,
                      ByteView op) {
  DigestWriter out("zz request");
  out.id(service).id(client).id(session).id(number).u64(flags).bytes(op);
  return out.finish();
}

Digest batch_digest(const BatchHeader& header) {
  DigestWriter out("zz batch");
  out.id(header.service).id(header.n).id(header.time);
  out.u64(header.references.size());
  for (const Reference& r : header.references) out.id(r.client).id(r.session).id(r.number).digest(r.digest);
  out.u64(header.system.size());
  for (const SystemOp& op : header.system) put(out, op);
  return out.finish();
}

Digest history_digest(const Digest& previous, const Digest& batch) {
  DigestWriter out("zz history");
  out.digest(previous).digest(batch);
  return out.finish();
}

Digest reply_digest(ByteView reply) {
  DigestWriter out("zz reply");
  out.bytes(reply);
  return out.finish();
}

Digest vote_digest(Seq n, const std::vector<Digest>& replies) {
  DigestWriter out("zz vote");
  out.id(n).u64(replies.size());
  for (const Digest& reply : replies) out.digest(reply);
  return out.finish();
}

HeaderPtr null_header(ServiceId service, Seq n) {
  auto header = std::make_shared<BatchHeader>();
  header->service = service;
  header->n = n;
  return header;
}

Digest results_digest(const Digest& previous, const Digest& closed) {
  DigestWriter out("zz results");
  out.digest(previous).digest(closed);
  return out.finish();
}

Bytes checkpoint_fields(const crypto::ClusterId& cluster, ServiceId service, NodeId signer,
                        const CheckpointState& state) {
  SignedFields out(cluster, "CHECKPOINT");
  out.id(signer).id(service).id(state.n);
  out.bytes(state.history.bytes).bytes(state.results.bytes).bytes(state.table.bytes).bytes(state.root.bytes);
  return copy_of(out);
}

Bytes exec_checkpoint_fields(const crypto::ClusterId& cluster, const ExecCheckpoint& c) {
  SignedFields out(cluster, "EXEC-CHECKPOINT");
  out.id(c.service).id(c.slot).id(c.incarnation).id(c.n).bytes(c.root.bytes);
  return copy_of(out);
}

// The certificate is covered by what it proves: any other proof of the same state is as good.
Bytes view_change_fields(const crypto::ClusterId& cluster, const ViewChange& v) {
  SignedFields out(cluster, "VIEW-CHANGE");
  out.id(v.signer).id(v.service).id(v.view).id(stable_n(v.stable));
  if (v.stable) out.bytes(v.stable->state.history.bytes);
  for (const std::vector<Claim>* claims : {&v.prepared, &v.pre_prepared}) {
    out.u64(claims->size());
    for (const Claim& claim : *claims) out.id(claim.n).bytes(claim.digest.bytes).id(claim.view);
  }
  return copy_of(out);
}

Bytes complaint_fields(const crypto::ClusterId& cluster, ServiceId service, NodeId signer, View view) {
  SignedFields out(cluster, "COMPLAINT");
  out.id(signer).id(service).id(view);
  return copy_of(out);
}

Bytes new_view_fields(const crypto::ClusterId& cluster, const NewView& v) {
  SignedFields out(cluster, "NEW-VIEW");
  out.id(v.signer).id(v.service).id(v.view).id(v.start).u64(v.proof.size());
  for (const ViewChangePtr& part : v.proof) out.id(part->signer).bytes(part->signature.bytes);
  out.u64(v.chosen.size());
  for (const Digest& digest : v.chosen) out.bytes(digest.bytes);
  return copy_of(out);
}

Bytes suspect_fields(const crypto::ClusterId& cluster, const Suspect& s) {
  SignedFields out(cluster, "SUSPECT");
  out.id(s.signer).id(s.service).id(s.epoch).id(s.slot).id(s.incarnation).id(s.n);
  out.u64(static_cast<std::uint64_t>(s.why));
  out.u64(s.agreeing.size());
  for (const SlotId slot : s.agreeing) out.id(slot);
  return copy_of(out);
}

// The sender is the slot's host, which service and slot name in the cluster file.
Bytes join_fields(const crypto::ClusterId& cluster, const Join& j) {
  SignedFields out(cluster, "JOIN");
  out.id(j.service).id(j.slot).id(j.incarnation).bytes(j.key.bytes);
  return copy_of(out);
}

Bytes wake_fields(const crypto::ClusterId& cluster, const Wake& w) {
  SignedFields out(cluster, "WAKE");
  out.id(w.signer).id(w.service).id(w.epoch).id(w.slot).id(w.incarnation).id(w.n).u64(w.sign);
  return copy_of(out);
}

}  // namespace zz::agreement
