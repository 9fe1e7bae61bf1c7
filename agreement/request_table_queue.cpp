// RequestTable: the queues of what waits, who may go, and in whose turn (docs/protocol.md §4).

#include <algorithm>
#include <bit>

#include "agreement/request_table.hpp"
#include "base/assert.hpp"

namespace zz::agreement {

// ---- waiting ---------------------------------------------------------------------------------------------------

bool RequestTable::may_go(const Client& client, const Entry& entry) const {
  return !client.unproven || static_cast<std::uint32_t>(std::popcount(entry.vouchers)) >= 2 * limits_.f;
}

void RequestTable::enqueue(Session& session, Entry& entry, std::uint64_t number) {
  Client& client = *session.owner;
  ++client.waiting;
  if (client.unproven && !entry.asked) note_unasked(client);
  if (!entry.in_queue) {
    entry.in_queue = true;
    if (client.queue.size() > 2 * client.waiting + kQueueSlack) compact(client);
    client.queue.push_back({&session, number});
  }
  if (may_go(client, entry)) set_free(session, entry, number);
}

// Requires that it waits, and may go.
void RequestTable::set_free(Session& session, Entry& entry, std::uint64_t number) {
  Client& client = *session.owner;
  entry.free = true;
  ++queued_;
  queued_bytes_ += entry.request->op.size();
  if (client.unproven && !entry.in_backed) {
    entry.in_backed = true;
    if (client.backed.size() > 2 * client.waiting + kQueueSlack) compact(client);
    client.backed.push_back({&session, number});
  }
  if (!client.ready) {
    client.ready = true;
    ready_.push_back(&client);
  }
}

// Its items stay in the queues and are skipped as stale when their turn comes.
void RequestTable::unqueue(Client& client, Entry& entry) {
  --client.waiting;
  if (client.unproven && !entry.asked) note_asked(client);
  if (!entry.free) return;
  entry.free = false;
  --queued_;
  queued_bytes_ -= entry.request->op.size();
}

bool RequestTable::stale(const Queued& item) {
  const Entry* entry = peek(*item.session, item.number);
  return entry == nullptr || !entry->request || entry->claimed_by != 0;
}

// The first of the line steps out.
void RequestTable::pop_line(Client& client) {
  std::deque<Queued>& line = line_of(client);
  const Queued item = line.front();
  line.pop_front();
  if (!in_window(*item.session, item.number)) return;
  Entry& entry = place(*item.session, item.number);
  if (client.unproven) {
    entry.in_backed = false;
  } else {
    entry.in_queue = false;
  }
}

void RequestTable::compact(Client& client) {
  std::erase_if(client.queue, [this](const Queued& item) {
    if (!stale(item)) return false;
    if (in_window(*item.session, item.number)) place(*item.session, item.number).in_queue = false;
    return true;
  });
  std::erase_if(client.backed, [this](const Queued& item) {
    if (!stale(item)) return false;
    if (in_window(*item.session, item.number)) place(*item.session, item.number).in_backed = false;
    return true;
  });
}

// All that waits once more, session by session in turn and each in the order of its numbers.
void RequestTable::requeue(Client& client) {
  client.queue.clear();
  client.backed.clear();
  std::uint64_t longest = 0;
  for (const auto& session : client.sessions) {
    longest = std::max<std::uint64_t>(longest, session->pending);
    for (Entry& entry : session->ring) {
      if (entry.request && entry.claimed_by == 0) unqueue(client, entry);
      entry.claimed_by = 0;
      entry.in_queue = entry.in_backed = entry.asked = false;
    }
  }
  std::vector<std::uint64_t> next(client.sessions.size(), 1);  // above low
  for (std::uint64_t round = 0; round < longest; ++round) {
    for (std::size_t i = 0; i < client.sessions.size(); ++i) {
      Session& session = *client.sessions[i];
      while (next[i] <= session.ring.size()) {
        const std::uint64_t number = session.low + next[i]++;
        Entry& entry = place(session, number);
        if (!entry.request) continue;
        enqueue(session, entry, number);
        break;
      }
    }
  }
}

void RequestTable::release_all() {
  strays_.clear();
  for (const auto& client : clients_) requeue(*client);
}

// ---- proposing -------------------------------------------------------------------------------------------------

// The client's oldest request that batch n may carry, or null. A request of a session that n knows nothing of can never
// be ordered any more.
const RequestTable::Queued* RequestTable::head(Client& client, Seq n) {
  const std::deque<Queued>& line = line_of(client);
  while (!line.empty()) {
    const Queued& item = line.front();
    if (!stale(item)) {
      if (item.session->known_at(n)) return &item;
      settle(*item.session, place(*item.session, item.number));
    }
    pop_line(client);
  }
  return nullptr;
}

RequestTable::Cut RequestTable::cut(Seq n, std::uint32_t requests_max, std::uint64_t bytes_max) {
  Cut out;
  const std::size_t expected = std::min<std::size_t>(queued_, requests_max);
  out.references.reserve(expected);
  out.bodies.reserve(expected);
  std::uint64_t bytes = 0;
  while (out.references.size() < requests_max && !ready_.empty()) {
    Client& client = *ready_.front();
    const Queued* item = head(client, n);
    if (item == nullptr) {
      client.ready = false;
      ready_.pop_front();
      continue;
    }
    Entry& entry = place(*item->session, item->number);
    const std::uint64_t size = entry.request->op.size();
    if (!out.references.empty() && bytes + size > bytes_max) break;
    bytes += size;
    unqueue(client, entry);
    entry.claimed_by = n.value;
    entry.index = static_cast<std::uint32_t>(out.references.size());
    out.references.push_back(reference_of(*entry.request));
    out.bodies.push_back(entry.request);
    pop_line(client);
    ready_.pop_front();
    ready_.push_back(&client);
  }
  return out;
}

std::vector<PrimaryWatch::Head> RequestTable::heads() {
  std::vector<PrimaryWatch::Head> out;
  for (const auto& client : clients_) {
    if (client->waiting == 0) continue;
    std::deque<Queued>& queue = client->queue;
    while (stale(queue.front())) {
      const Queued item = queue.front();
      queue.pop_front();
      if (in_window(*item.session, item.number)) place(*item.session, item.number).in_queue = false;
    }
    const auto oldest = std::find_if(queue.begin(), queue.end(),
                                     [](const Queued& item) { return item.session->dies_at == 0 && !stale(item); });
    if (oldest == queue.end()) continue;
    out.push_back({client->id, oldest->session->id, RequestNumber{oldest->number}});
  }
  return out;
}

bool RequestTable::gave_up(const PrimaryWatch::Head& head) const {
  if (claimed(head.client, head.session, head.number).n.value != 0) return false;
  const Session* session = find_session(head.client, head.session);
  if (session == nullptr) return true;
  if (head.number.value <= session->low) return false;
  const Entry* entry = peek(*session, head.number.value);
  if (entry != nullptr && entry->delivered) return false;
  return session->dies_at != 0 || entry == nullptr || !entry->request;
}

// ---- unproven clients ------------------------------------------------------------------------------------------

void RequestTable::mark_unproven(ClientId id) {
  if (find_client(id) == nullptr && clients_.size() >= kMarkedClientsMax) return;
  Client& client = client_of(id);
  if (client.unproven) return;
  for (const auto& session : client.sessions) {
    for (Entry& entry : session->ring) {
      if (entry.request && entry.claimed_by == 0) unqueue(client, entry);
    }
  }
  client.unproven = true;
  unproven_.push_back(&client);
  for (const auto& session : client.sessions) {
    for (std::uint64_t i = 1; i <= session->ring.size(); ++i) {
      Entry& entry = place(*session, session->low + i);
      if (entry.request && entry.claimed_by == 0) enqueue(*session, entry, session->low + i);
    }
  }
}

bool RequestTable::is_unproven(ClientId id) const {
  const Client* client = find_client(id);
  return client != nullptr && client->unproven;
}

std::vector<Reference> RequestTable::take_queries(std::size_t max) {
  std::vector<Reference> out;
  while (unasked_ > 0 && out.size() < max) {
    // Every client that has any gets an equal share of the room in this round; what is left is for the next round.
    auto askers = static_cast<std::size_t>(
        std::count_if(unproven_.begin(), unproven_.end(), [](const Client* client) { return client->unasked > 0; }));
    for (std::size_t i = 0; i < unproven_.size() && out.size() < max; ++i) {
      Client& client = *unproven_[next_asked_++ % unproven_.size()];
      if (client.unasked == 0) continue;
      take_queries(client, (max - out.size() + askers - 1) / askers, out);
      --askers;
    }
  }
  return out;
}

// They came last, so they stand last: found from behind, given from before.
void RequestTable::take_queries(Client& client, std::size_t max, std::vector<Reference>& out) {
  const auto unasked = [&client](std::size_t k) {
    const Queued& item = client.queue[k];
    return !stale(item) && !peek(*item.session, item.number)->asked;
  };
  std::size_t at = client.queue.size();
  for (std::size_t left = client.unasked; left > 0;) left -= unasked(--at) ? 1u : 0u;
  for (; at < client.queue.size() && max > 0; ++at) {
    if (!unasked(at)) continue;
    Entry& entry = place(*client.queue[at].session, client.queue[at].number);
    entry.asked = true;
    note_asked(client);
    out.push_back(reference_of(*entry.request));
    --max;
  }
}

void RequestTable::ask_again() {
  for (Client* client : unproven_) {
    for (const Queued& item : client->queue) {
      if (stale(item)) continue;
      Entry& entry = place(*item.session, item.number);
      if (entry.free || !entry.asked) continue;
      entry.asked = false;
      note_unasked(*client);
    }
  }
}

}  // namespace zz::agreement
