// Replica: proposals, judged by backups and cut by the primary (docs/protocol.md §4, §5).

#include <algorithm>
#include <utility>

#include "agreement/replica_state.hpp"
#include "base/assert.hpp"

namespace zz::agreement {
namespace {

std::uint64_t op_bytes(const std::vector<RequestPtr>& requests) {
  std::uint64_t sum = 0;
  for (const RequestPtr& request : requests) {
    if (request) sum += request->op.size();
  }
  return sum;
}

}  // namespace

bool Replica::State::near_clock(Micros time) const {
  // The peer's value stands alone: no sum with it can overflow.
  return ticked && time.value >= wall.value - config.clock_bound.value &&
         time.value <= wall.value + config.clock_bound.value;
}

bool Replica::State::fits(const Slot& slot) const {
  return slot.header->references.size() <= 1 || op_bytes(slot.bodies) <= config.batch_bytes_max;
}

// What can be said without looking at the references one by one, and without changing anything.
Refusal Replica::State::judge(const PrePrepare& message) {
  const BatchHeader& header = *message.header;
  if (header.references.size() > config.batch_requests_max) return Refusal::kOversize;
  if (header.system.size() > kSystemOpsPerBatchMax) return Refusal::kOversize;
  if (header.references.empty() && header.system.empty()) return Refusal::kMalformed;
  if (!log.time_fits(header.n, header.time, delivered, delivered_time)) return Refusal::kBadTime;
  for (const SystemOp& op : header.system) {
    if (system.contains(system_op_digest(op))) continue;  // judged when it came in
    if (const Refusal refusal = rules.admissible(op); refusal != Refusal::kNone) return refusal;
  }
  return Refusal::kNone;
}

Refusal Replica::State::pre_prepare(NodeId from, const PrePrepare& message) {
  if (!message.header) return Refusal::kMalformed;
  const BatchHeader& header = *message.header;
  if (header.service != config.service) return Refusal::kUnknownService;
  if (const Refusal refusal = check(from, message.view, header.n); refusal != Refusal::kNone) return refusal;
  if (from != primary()) return Refusal::kNotPrimary;
  Slot& slot = log.at(header.n, view);
  if (slot.phase != Phase::kEmpty) {
    return slot.digest == message.digest ? Refusal::kDuplicate : Refusal::kConflict;
  }
  if (const Refusal refusal = judge(message); refusal != Refusal::kNone) return refusal;
  const Refusal refusal = requests.claim(header.n, header.references, slot.bodies, slot.unvouched);
  if (refusal != Refusal::kNone) return refusal;
  if (slot.unvouched == 0 && header.references.size() > 1 && op_bytes(slot.bodies) > config.batch_bytes_max) {
    requests.release(header.n, header.references);
    return Refusal::kOversize;
  }
  slot.missing = slot.unvouched;
  slot.clock_ok = near_clock(header.time);
  log.fill(slot, message.header, message.digest);
  advance(slot);
  // Held all the same: when f+1 others stand for its time, this node follows them instead of being left behind.
  return slot.clock_ok || slot.phase >= Phase::kAccepted ? Refusal::kNone : Refusal::kBadTime;
}

// ---- the primary -----------------------------------------------------------------------------------------------

// At once while the pipeline has room, so that nothing waits at low load; else only when full, so that batches grow
// with the load.
bool Replica::State::cut_due(Seq n) const {
  const bool requests_wait = requests.queued() > 0 && ahead(n) <= kRequestsAhead;
  const bool system_waits = system.due() && ahead(n) <= kSystemAhead;
  if (!requests_wait && !system_waits) return false;
  const std::uint64_t in_flight = n.value - 1 - delivered.value;
  if (in_flight < config.pipeline_depth) return true;
  return requests_wait &&
         (requests.queued() >= config.batch_requests_max || requests.queued_bytes() >= config.batch_bytes_max);
}

void Replica::State::cut_batches() {
  if (!is_primary() || !ticked) return;
  for (Seq n = log.top().next(); cut_due(n); n = n.next()) {
    if (!cut(n)) return;
  }
}

bool Replica::State::cut(Seq n) {
  RequestTable::Cut chosen;
  if (ahead(n) <= kRequestsAhead) chosen = requests.cut(n, config.batch_requests_max, config.batch_bytes_max);
  auto header = std::make_shared<BatchHeader>();
  header->service = config.service;
  header->n = n;
  header->references = std::move(chosen.references);
  header->system = system.take(n);
  if (header->references.empty() && header->system.empty()) return false;  // all that was queued has expired
  const Slot* last = log.find(log.top());
  const Micros last_time = last != nullptr ? last->header->time : delivered_time;
  header->time = std::max(Micros{last_time.value + 1}, wall);

  Slot& slot = log.at(n, view);
  slot.bodies = std::move(chosen.bodies);
  slot.clock_ok = true;
  const Digest digest = batch_digest(*header);
  log.fill(slot, std::move(header), digest);
  send({}, PrePrepare{view, slot.header, digest});
  report(EventKind::kProposed, n);
  advance(slot);
  return true;
}

void Replica::State::propose(SystemOp op) {
  const Digest digest = system_op_digest(op);
  if (system.contains(digest) || rules.admissible(op) != Refusal::kNone) return;
  system.add(digest, std::move(op));
}

}  // namespace zz::agreement
