// Replica: request bodies that come after their proposal, from the client or from other nodes (docs/protocol.md §4).

#include <algorithm>
#include <utility>

#include "agreement/replica_state.hpp"
#include "base/assert.hpp"

namespace zz::agreement {

void Replica::State::arrived(Seq n, std::uint32_t index, const RequestPtr& request) {
  Slot* slot = log.find(n);
  ZZ_ASSERT(slot != nullptr && slot->header && index < slot->header->references.size());
  if (slot->header->references[index].digest != request->digest) return;
  ZZ_ASSERT(slot->unvouched > 0);
  --slot->unvouched;
  if (!slot->bodies[index]) {
    slot->bodies[index] = request;
    if (--slot->missing == 0) end_fetch(*slot);
  }
  advance(*slot);
  deliver_ready();
}

// ---- asking ----------------------------------------------------------------------------------------------------

// Requires a committed slot: its bodies are needed now, and 2f+1 nodes stand for it.
void Replica::State::fetch(Slot& slot) {
  ZZ_ASSERT(slot.phase == Phase::kCommitted && slot.missing > 0);
  if (slot.fetching) return;
  slot.fetching = true;
  ++fetching;
  slot.asked = config.self;
  slot.empty = 0;
  ask_next(slot);
}

// The next node, in a circle, that said it stands for the batch.
void Replica::State::ask_next(Slot& slot) {
  for (std::uint32_t i = 1; i <= nodes; ++i) {
    const NodeId node{static_cast<std::uint16_t>((slot.asked.value + i) % nodes)};
    if (node == config.self) continue;
    if (node != primary() && !slot.prepares.has(node, slot.digest)) continue;
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
  slot.asked_at = elapsed;
  slot.asked_for = slot.missing;
  send(slot.asked, std::move(message));
}

void Replica::State::retry_fetches() {
  if (fetching == 0) return;
  for (Seq n = delivered.next(); n <= log.top(); n = n.next()) {
    Slot* slot = log.find(n);
    if (slot == nullptr || !slot->fetching) continue;
    if (elapsed.value - slot->asked_at.value < config.body_timeout.value) continue;
    slot->empty = 0;
    ask_next(*slot);
  }
}

Refusal Replica::State::take_bodies(NodeId from, const Bodies& message) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (message.requests.size() > config.batch_requests_max) return Refusal::kOversize;
  bool used = false;
  for (const RequestPtr& request : message.requests) {
    if (!request) continue;
    const RequestTable::Place place = requests.claimed(request->client, request->session, request->number);
    Slot* slot = place.n.value == 0 ? nullptr : log.find(place.n);
    if (slot == nullptr || !slot->fetching || slot->bodies[place.index]) continue;
    if (slot->header->references[place.index].digest != request->digest) continue;
    slot->bodies[place.index] = request;
    --slot->missing;
    used = true;
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
  Budget& budget = budgets[peer.value];
  if (elapsed.value - budget.since.value >= config.body_timeout.value) budget = Budget{elapsed, 0, 0};
  if (budget.fetches >= kFetchesMax || budget.bytes >= kFetchedBytesMax) return Refusal::kQuota;
  ++budget.fetches;
  return Refusal::kNone;
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
  budgets[to.value].bytes += bytes;
  send(to, std::move(answer));
  return Refusal::kNone;
}

}  // namespace zz::agreement
