// Replica: request bodies that come after their proposal, from the client or from other nodes (docs/protocol.md §4).

#include <algorithm>
#include <utility>

#include "agreement/order_log.hpp"
#include "agreement/replica_state.hpp"
#include "base/assert.hpp"

namespace zz::agreement {
namespace {

// PROGRESS intervals without a delivery until a proposal counts as kept back: two make the primary say it again.
constexpr std::int64_t kLostForIntervals = 4;

}  // namespace

void Replica::State::arrived(Seq n, std::uint32_t index, const RequestPtr& request) {
  Slot* slot = log.find(n);
  ZZ_ASSERT(slot != nullptr && slot->header && index < slot->header->references.size());
  if (slot->header->references[index].digest != request->digest) return;
  if (slot->unvouched > 0) --slot->unvouched;
  if (!slot->bodies[index]) {
    slot->bodies[index] = request;
    if (--slot->missing == 0) end_fetch(*slot);
  }
  advance(*slot);
  deliver_ready();
}

// ---- asking ----------------------------------------------------------------------------------------------------

// Requires a committed slot, whose bodies are needed now and for which 2f+1 nodes stand, or a held one that waits for
// bodies only.
void Replica::State::fetch(Slot& slot) {
  ZZ_ASSERT((slot.phase == Phase::kCommitted || slot.phase == Phase::kPrePrepared) && slot.missing > 0);
  if (slot.fetching) return;
  slot.fetching = true;
  ++fetching;
  slot.asked = config.self;
  // Held on others' words: the primary has what it proposed, and a liar asked first could hold it up.
  if (slot.phase == Phase::kPrePrepared) {
    slot.asked = NodeId{static_cast<std::uint16_t>((primary().value + nodes - 1) % nodes)};
  }
  slot.empty = 0;
  ask_next(slot);
}

// The next node, in a circle, that said it stands for the batch; of a held one, anybody may have some.
void Replica::State::ask_next(Slot& slot) {
  for (std::uint32_t i = 1; i <= nodes; ++i) {
    const NodeId node{static_cast<std::uint16_t>((slot.asked.value + i) % nodes)};
    if (node == config.self) continue;
    const bool stands = slot.chosen || node == primary() || slot.prepares.has(node, slot.digest);
    if (!stands && slot.phase != Phase::kPrePrepared) continue;
    slot.asked = node;
    ask(slot);
    return;
  }
}

void Replica::State::ask(Slot& slot) {
  FetchBodies message;
  message.wanted.reserve(slot.missing);
  for (std::size_t i = 0; i < slot.bodies.size(); ++i) {
    if (!slot.bodies[i]) message.wanted.push_back(slot.header->references[i]);
  }
  slot.asked_at = now;
  slot.asked_for = slot.missing;
  send(slot.asked, std::move(message));
}

void Replica::State::retry_fetches() {
  if (fetching == 0) return;
  for (Seq n = delivered.next(); n <= log.top(); n = n.next()) {
    Slot* slot = log.find(n);
    if (slot == nullptr || !slot->fetching) continue;
    if (now.value - slot->asked_at.value < config.body_timeout.value) continue;
    slot->empty = 0;
    ask_next(*slot);
  }
}

bool Replica::State::place_body(Slot& slot, std::size_t index, const RequestPtr& request) {
  if (!slot.fetching || slot.bodies[index] || slot.header->references[index].digest != request->digest) return false;
  slot.bodies[index] = request;
  --slot.missing;
  return true;
}

bool Replica::State::place_body(const RequestPtr& request) {
  if (fetching == 0) return false;
  const RequestTable::Place place = requests.claimed(request->client, request->session, request->number);
  Slot* slot = place.n.value == 0 ? nullptr : log.find(place.n);
  if (slot != nullptr && slot->header && place_body(*slot, place.index, request)) return true;
  // Batches that a new view chose may name a request that another batch claims.
  bool used = false;
  for (Seq n = delivered.next(); n <= log.top(); n = n.next()) {
    Slot* other = log.find(n);
    if (other == nullptr || !other->fetching || !other->chosen) continue;
    const std::size_t index = SlotLog::index_of(*other, reference_of(*request));
    if (index < other->bodies.size()) used = place_body(*other, index, request) || used;
  }
  return used;
}

Refusal Replica::State::take_bodies(NodeId from, const Bodies& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (message.requests.size() > config.batch_requests_max) return Refusal::kOversize;
  bool used = false;
  for (const RequestPtr& request : message.requests) {
    if (!request) continue;
    if (place_body(request)) {
      used = true;
      continue;
    }
    const RequestTable::Vouched relayed = requests.take_relayed(request);
    if (relayed.refusal != Refusal::kNone) continue;
    used = true;
    if (relayed.claimed_by.value != 0) arrived(relayed.claimed_by, relayed.index, request);
  }
  const bool awaited = go_on_fetching(from);
  deliver_ready();
  return used || awaited ? Refusal::kNone : Refusal::kDuplicate;
}

// After an answer of `from`: ends the fetches that are complete and asks on for the others. Whether it was asked.
bool Replica::State::go_on_fetching(NodeId from) {
  bool awaited = false;
  for (Seq n = delivered.next(); fetching > 0 && n <= log.top(); n = n.next()) {
    Slot* slot = log.find(n);
    if (slot == nullptr || !slot->fetching) continue;
    if (slot->asked == from) awaited = true;
    if (slot->missing == 0) {
      end_fetch(*slot);
      if (slot->phase == Phase::kPrePrepared) advance(*slot);
    } else if (slot->asked == from && slot->missing < slot->asked_for) {
      slot->empty = 0;
      ask(*slot);
    } else if (slot->asked == from && ++slot->empty < nodes) {
      ask_next(*slot);  // else everybody was asked: the next round comes with the timeout
    }
  }
  return awaited;
}

void Replica::State::end_fetch(Slot& slot) {
  if (!slot.fetching) return;
  slot.fetching = false;
  --fetching;
}

// ---- giving ----------------------------------------------------------------------------------------------------

Refusal Replica::State::spend(NodeId peer) {
  PeerState& state = peers[peer.value];
  if (now.value - state.budget_since.value >= config.body_timeout.value) {
    state.budget_since = now;
    state.fetches = 0;
    state.bytes = 0;
  }
  if (state.fetches >= kFetchesMax || state.bytes >= kFetchedBytesMax) return Refusal::kQuota;
  ++state.fetches;
  return Refusal::kNone;
}

Refusal Replica::State::spend_check(NodeId peer) {
  PeerState& state = peers[peer.value];
  if (now.value - state.dear_since.value >= config.progress.value) {
    state.dear_since = now;
    state.dear_checks = 0;
  }
  return ++state.dear_checks > kDearChecks ? Refusal::kQuota : Refusal::kNone;
}

// An answer without bodies is an answer too: the asker goes on to another node at once.
Refusal Replica::State::give_bodies(NodeId to, const FetchBodies& message) {
  if (const Refusal refusal = check_sender(to); refusal != Refusal::kNone) return refusal;
  if (message.wanted.empty()) return Refusal::kMalformed;
  if (message.wanted.size() > config.batch_requests_max) return Refusal::kOversize;
  if (const Refusal refusal = spend(to); refusal != Refusal::kNone) return refusal;
  Bodies answer;
  std::uint64_t bytes = 0;
  SlotLog::Search search(log);
  for (const Reference& wanted : message.wanted) {
    RequestPtr body = requests.find(wanted);
    if (!body) body = search.find(wanted);
    if (!body) continue;
    const std::uint64_t size = body->op.size();
    if (!answer.requests.empty() && bytes + size > config.batch_bytes_max) break;
    bytes += size;
    answer.requests.push_back(std::move(body));
  }
  peers[to.value].bytes += bytes;
  send(to, std::move(answer));
  return Refusal::kNone;
}

// ---- headers of chosen batches ------------------------------------------------------------------------------------

HeaderPtr Replica::State::find_header(const Digest& digest) {
  if (HeaderPtr header = history_of_votes.find_header(digest)) return header;
  for (const Delivery& delivery : recent) {
    if (delivery.header && delivery.digest == digest) return delivery.header;
  }
  if (const auto at = wanted_headers.find(digest); at != wanted_headers.end()) return at->second;
  for (Seq n = log.low().next(); n <= log.top(); n = n.next()) {
    const Slot* slot = log.find(n);
    if (slot != nullptr && slot->header && slot->digest == digest) return slot->header;
  }
  return nullptr;
}

// Every body_timeout, of everybody, until they are here.
void Replica::State::ask_headers() {
  if (wanted_headers.empty() || now.value - headers_asked_at.value < config.body_timeout.value) return;
  FetchHeaders message;
  for (const auto& [digest, header] : wanted_headers) {
    if (!header && message.wanted.size() < kHeadersMax) message.wanted.push_back(digest);
  }
  if (message.wanted.empty()) return;
  headers_asked_at = now;
  send({}, std::move(message));
}

Refusal Replica::State::give_headers(NodeId to, const FetchHeaders& message) {
  if (const Refusal refusal = check_sender(to); refusal != Refusal::kNone) return refusal;
  if (message.wanted.empty()) return Refusal::kMalformed;
  if (message.wanted.size() > kHeadersMax) return Refusal::kOversize;
  if (const Refusal refusal = spend(to); refusal != Refusal::kNone) return refusal;
  Headers answer;
  for (auto digest = message.wanted.begin(); digest != message.wanted.end(); ++digest) {
    if (std::find(message.wanted.begin(), digest, *digest) != digest) return Refusal::kMalformed;
    if (peers[to.value].bytes >= kFetchedBytesMax) break;
    HeaderPtr header = find_header(*digest);
    if (!header) continue;
    peers[to.value].bytes += header->references.size() * sizeof(Reference) + header->system.size() * kSystemOpBytes;
    answer.headers.push_back(std::move(header));
  }
  if (!answer.headers.empty()) send(to, std::move(answer));
  return Refusal::kNone;
}

Refusal Replica::State::take_headers(NodeId from, const Headers& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (message.headers.size() > kHeadersMax) return Refusal::kOversize;
  bool used = false;
  bool proposed = false;
  for (const HeaderPtr& header : message.headers) {
    if (!header || header->service != config.service) continue;
    const Digest digest = batch_digest(*header);
    if (take_proposal(header, digest)) proposed = true;
    const auto at = wanted_headers.find(digest);
    if (at == wanted_headers.end() || at->second) continue;
    at->second = header;
    used = true;
  }
  if (!used) return proposed ? Refusal::kNone : Refusal::kDuplicate;
  headers_asked_at = Micros{now.value - config.body_timeout.value};  // the next ones at once
  ask_headers();
  if (changing) {
    try_new_view();
    return Refusal::kNone;
  }
  for (Seq n = log.low().next(); n <= log.top(); n = n.next()) {
    Slot* slot = log.find(n);
    if (slot == nullptr || !slot->chosen || slot->phase != Phase::kEmpty) continue;
    const auto at = wanted_headers.find(slot->digest);
    if (at == wanted_headers.end() || !at->second) continue;
    const HeaderPtr header = at->second;
    wanted_headers.erase(at);
    fill_chosen(*slot, header);
  }
  return Refusal::kNone;
}

// ---- proposals that the primary keeps from this node ----------------------------------------------------------------

// What f+1 backups stand for, while this node has no proposal of the primary's, or holds another one that it does not
// stand for.
std::optional<Digest> Replica::State::proposed_to_others(const Slot& slot) const {
  if (slot.chosen || slot.phase > Phase::kPrePrepared) return std::nullopt;
  std::optional<Digest> digest = slot.prepares.said_by(config.f + 1);
  if (slot.phase == Phase::kPrePrepared && digest == slot.digest) digest.reset();
  return digest;
}

// f+1 equal PREPAREs of backups prove what the primary proposed: one of them is correct. Where nothing is delivered for
// longer than the primary needs to say it again, who lacks the proposal asks everybody for the header.
void Replica::State::ask_proposals() {
  if (std::exchange(stuck_at, delivered) != delivered || changing || is_primary()) stuck_since = now;
  if (now.value - stuck_since.value < kLostForIntervals * config.progress.value) return;
  if (now.value - proposals_sought_at.value < config.progress.value) return;
  proposals_sought_at = now;
  FetchHeaders message;
  for (Seq n = delivered.next(); log.in_window(n) && message.wanted.size() < kHeadersMax; n = n.next()) {
    const Slot* slot = log.find(n);
    if (slot == nullptr) continue;
    if (const auto digest = proposed_to_others(*slot)) message.wanted.push_back(*digest);
  }
  if (!message.wanted.empty()) send({}, std::move(message));
}

bool Replica::State::take_proposal(const HeaderPtr& header, const Digest& digest) {
  if (changing || is_primary()) return false;
  Slot* slot = log.find(header->n);
  if (slot == nullptr || proposed_to_others(*slot) != digest) return false;
  if (slot->phase == Phase::kPrePrepared) {
    requests.release(slot->n, slot->header->references);
    SlotLog::drop_proposal(*slot);
  }
  return pre_prepare(primary(), PrePrepare{view, header, digest}) == Refusal::kNone;
}

}  // namespace zz::agreement
