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
  if (changing) return Refusal::kNotReady;  // its NEW-VIEW comes first, or never; PROGRESS brings the rest
  Slot& slot = log.at(header.n, view);
  if (slot.phase != Phase::kEmpty || slot.chosen) {
    if (slot.digest != message.digest) return Refusal::kConflict;
    if (slot.phase != Phase::kEmpty) return Refusal::kDuplicate;
    fill_chosen(slot, message.header);
    return Refusal::kNone;
  }
  // Ordered already: by a catch-up while the proposal was on its way.
  if (header.n <= delivered) return Refusal::kDuplicate;
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

// At once when nothing is in flight, so that nothing waits at low load. Beside a batch in flight only one that is as
// large, up to the pipeline's depth; beyond that only a full one: batches grow with the load.
bool Replica::State::cut_due(Seq n) const {
  const bool requests_wait = requests.queued() > 0 && ahead(n) <= requests_ahead();
  const bool system_waits = system.due() && ahead(n) <= config.window;
  if (!requests_wait && !system_waits) return false;
  const std::uint64_t in_flight = n.value - 1 - std::min(delivered.value, n.value - 1);
  // The last quarter of the window is for system operations, which may be just what the window waits for: one batch
  // after the other, so that each carries as many as there are.
  if (ahead(n) > requests_ahead()) return in_flight == 0;
  if (in_flight == 0) return true;
  if (in_flight < config.pipeline_depth && (system_waits || requests.queued() >= last_cut)) return true;
  return requests_wait &&
         (requests.queued() >= config.batch_requests_max || requests.queued_bytes() >= config.batch_bytes_max);
}

void Replica::State::cut_batches() {
  if (!is_primary() || !ticked || changing || learner) return;
  if (stable_n(newest_stable) > delivered) return;  // it would propose what others have ordered
  ask_who_vouches();
  for (Seq n = log.top().next(); cut_due(n); n = n.next()) {
    if (!cut(n)) return;
  }
}

bool Replica::State::cut(Seq n) {
  RequestTable::Cut chosen;
  if (ahead(n) <= requests_ahead()) chosen = requests.cut(n, config.batch_requests_max, config.batch_bytes_max);
  auto header = std::make_shared<BatchHeader>();
  header->service = config.service;
  header->n = n;
  header->references = std::move(chosen.references);
  // In the reserve, a host that makes one incarnation after the other gets two JOINs per slot.
  header->system = system.take(n, n <= requests_end() ? n : requests_end());
  if (header->references.empty() && header->system.empty()) return false;  // all that was queued has expired
  last_cut = header->references.size();
  header->time = std::max(Micros{log.last_time(delivered_time).value + 1}, wall);

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

// ---- clients that some nodes do not hear --------------------------------------------------------------------------

void Replica::State::ask_who_vouches() {
  if (!queries_repeated_at || now.value - queries_repeated_at->value >= config.body_timeout.value) {
    queries_repeated_at = now;
    requests.ask_again();
  }
  std::vector<Reference> unproven = requests.take_queries(config.batch_requests_max);
  if (!unproven.empty()) send({}, VouchQuery{std::move(unproven)});
}

Refusal Replica::State::vouch_query(NodeId from, const VouchQuery& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (from != primary()) return Refusal::kNotPrimary;
  if (message.references.size() > config.batch_requests_max) return Refusal::kOversize;
  if (const Refusal refusal = spend(from); refusal != Refusal::kNone) return refusal;
  Vouched answer;
  for (const Reference& reference : message.references) {
    if (requests.vouches(reference)) answer.references.push_back(reference);
  }
  if (!answer.references.empty()) send({}, std::move(answer));  // other backups may need the same word
  return Refusal::kNone;
}

Refusal Replica::State::vouched(NodeId from, const Vouched& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (message.references.size() > config.batch_requests_max) return Refusal::kOversize;
  FetchBodies wanted;
  for (const Reference& reference : message.references) {
    if (requests.vouched_by(from, reference)) wanted.wanted.push_back(reference);
  }
  if (!wanted.wanted.empty()) send(from, std::move(wanted));
  advance_held();
  return Refusal::kNone;
}

void Replica::State::advance_held() {
  for (Seq n = delivered.next(); n <= log.top(); n = n.next()) {
    Slot* slot = log.find(n);
    if (slot != nullptr && slot->phase == Phase::kPrePrepared && slot->unvouched > 0) advance(*slot);
  }
}

// What has waited here for an eighth of the view's timeout may not have reached the primary, or not f+1 nodes: a
// client's message lost, or kept from some on purpose. Everybody is told; the word of f+1 is as good as the client's
// own, and only what f+1 have counts against the primary.
void Replica::State::speak_for_waiting() {
  if (changing || learner) return;
  if (waiting_seen_at && now.value - waiting_seen_at->value < watch.timeout().value / 8) return;
  waiting_seen_at = now;
  std::vector<PrimaryWatch::Head> heads = requests.heads();
  Vouched mine;
  for (const PrimaryWatch::Head& head : heads) {
    if (mine.references.size() == config.batch_requests_max) break;
    if (!std::binary_search(waiting_heads.begin(), waiting_heads.end(), head)) continue;
    if (const RequestPtr request = requests.find(head.client, head.session, head.number)) {
      mine.references.push_back(reference_of(*request));
    }
  }
  waiting_heads = std::move(heads);
  if (!mine.references.empty()) send({}, std::move(mine));
  speak_for_system();
}

// The signatures in them speak for themselves.
void Replica::State::speak_for_system() {
  std::vector<Digest> still;
  for (SystemOp& op : system.waiting()) {
    still.push_back(system_op_digest(op));
    if (std::find(waiting_system.begin(), waiting_system.end(), still.back()) == waiting_system.end()) continue;
    send({}, Propose{std::move(op)});
  }
  waiting_system = std::move(still);
}

// Checking one may cost many signatures.
Refusal Replica::State::take_proposed(NodeId from, const Propose& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (system.contains(system_op_digest(message.op)) || !rules.applies(message.op)) return Refusal::kDuplicate;
  if (const Refusal refusal = spend_check(from); refusal != Refusal::kNone) return refusal;
  if (const Refusal refusal = rules.admissible(message.op); refusal != Refusal::kNone) return refusal;
  system.add(system_op_digest(message.op), message.op);
  return Refusal::kNone;
}

void Replica::State::propose(SystemOp op) {
  const Digest digest = system_op_digest(op);
  if (system.contains(digest) || rules.admissible(op) != Refusal::kNone) return;
  system.add(digest, std::move(op));
}

}  // namespace zz::agreement
