#include "agreement/request_table.hpp"

#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

#include "agreement/replica.hpp"
#include "base/assert.hpp"

namespace zz::agreement {
namespace {

constexpr std::size_t kRingFirst = 8;  // most sessions of a command line tool carry one request

template <class T>
auto name_of(const T& item) {
  return std::tie(item.client, item.session, item.number);
}

}  // namespace

RequestTable::RequestTable(const RequestLimits& limits)
    : limits_(limits), span_(std::uint64_t{limits.client_window} * 2) {
  ZZ_ASSERT(limits.client_window > 0 && limits.client_sessions_max > 0);
}

// ---- finding ---------------------------------------------------------------------------------------------------

RequestTable::Client* RequestTable::find_client(ClientId id) const {
  const auto at = std::lower_bound(clients_.begin(), clients_.end(), id,
                                   [](const auto& client, ClientId wanted) { return client->id < wanted; });
  return at != clients_.end() && (*at)->id == id ? at->get() : nullptr;
}

RequestTable::Session* RequestTable::find_session(ClientId client, SessionId session) const {
  if (last_ != nullptr && last_->id == session && last_->owner->id == client) return last_;
  const Client* owner = find_client(client);
  if (owner == nullptr) return nullptr;
  const auto at = std::lower_bound(owner->sessions.begin(), owner->sessions.end(), session,
                                   [](const auto& s, SessionId wanted) { return s->id < wanted; });
  if (at == owner->sessions.end() || (*at)->id != session) return nullptr;
  last_ = at->get();
  return last_;
}

RequestTable::Client& RequestTable::client_of(ClientId id) {
  const auto at = std::lower_bound(clients_.begin(), clients_.end(), id,
                                   [](const auto& client, ClientId wanted) { return client->id < wanted; });
  if (at != clients_.end() && (*at)->id == id) return **at;
  auto fresh = std::make_unique<Client>();
  fresh->id = id;
  return **clients_.insert(at, std::move(fresh));
}

RequestTable::Session& RequestTable::open_session(Client& client, SessionId id) {
  const auto at = std::lower_bound(client.sessions.begin(), client.sessions.end(), id,
                                   [](const auto& s, SessionId wanted) { return s->id < wanted; });
  auto fresh = std::make_unique<Session>();
  fresh->owner = &client;
  fresh->id = id;
  return **client.sessions.insert(at, std::move(fresh));
}

bool RequestTable::in_window(const Session& session, std::uint64_t number) const {
  return number > session.low && number - session.low <= span_;
}

const RequestTable::Entry* RequestTable::peek(const Session& session, std::uint64_t number) {
  if (number <= session.low || number - session.low > session.ring.size()) return nullptr;
  return &session.ring[number & (session.ring.size() - 1)];
}

// Requires in_window(session, number).
RequestTable::Entry& RequestTable::place(Session& session, std::uint64_t number) {
  const std::uint64_t ahead = number - session.low;
  if (ahead > session.ring.size()) {
    std::vector<Entry> wider(std::max<std::size_t>(kRingFirst, std::bit_ceil(ahead)));
    for (std::uint64_t i = 1; i <= session.ring.size(); ++i) {
      const std::uint64_t moved = session.low + i;
      wider[moved & (wider.size() - 1)] = std::move(session.ring[moved & (session.ring.size() - 1)]);
    }
    session.ring = std::move(wider);
  }
  return session.ring[number & (session.ring.size() - 1)];
}

RequestTable::Place RequestTable::find_stray(ClientId client, SessionId session, RequestNumber number) const {
  const Stray wanted{client, session, number};
  for (const Strays& strays : strays_) {
    const auto at = std::lower_bound(strays.items.begin(), strays.items.end(), wanted,
                                     [](const Stray& a, const Stray& b) { return name_of(a) < name_of(b); });
    if (at != strays.items.end() && name_of(*at) == name_of(wanted)) return {strays.n, at->index};
  }
  return {};
}

RequestTable::Place RequestTable::claimed(ClientId client, SessionId session, RequestNumber number) const {
  if (const Session* s = find_session(client, session)) {
    const Entry* entry = peek(*s, number.value);
    if (entry != nullptr && entry->claimed_by != 0) return {Seq{entry->claimed_by}, entry->index};
  }
  return find_stray(client, session, number);
}

RequestPtr RequestTable::find(const Reference& reference) const {
  const Session* session = find_session(reference.client, reference.session);
  if (session == nullptr) return nullptr;
  const Entry* entry = peek(*session, reference.number.value);
  if (entry == nullptr || !entry->request || entry->request->digest != reference.digest) return nullptr;
  return entry->request;
}

// ---- vouching --------------------------------------------------------------------------------------------------

Refusal RequestTable::judge(const Client& client, const Session* session, const Request& request) const {
  const std::uint64_t number = request.number.value;
  if (session == nullptr) {
    // A session that is not known here, yet past its first window, was evicted.
    if (number > span_) return Refusal::kSessionExpired;
  } else {
    if (number <= session->low) return Refusal::kDuplicate;
    if (number - session->low > span_) return Refusal::kOutOfWindow;
    if (const Entry* entry = peek(*session, number)) {
      if (entry->delivered) return Refusal::kDuplicate;
      if (entry->request) {
        return entry->request->digest == request.digest ? Refusal::kDuplicate : Refusal::kConflict;
      }
    }
    if (session->dies_at != 0) return Refusal::kSessionExpired;
  }
  const bool wakes = session == nullptr || session->pending == 0;
  if (wakes && client.live >= limits_.client_sessions_max) return Refusal::kQuota;
  // One request of any size always fits in, or it could never be sent.
  const std::uint64_t size = request.op.size();
  if (client.bytes != 0 && client.bytes + size > limits_.client_bytes_max) return Refusal::kQueueFull;
  if (bytes_ != 0 && bytes_ + size > limits_.bytes_max) return Refusal::kQueueFull;
  return Refusal::kNone;
}

RequestTable::Vouched RequestTable::vouch(RequestPtr request) {
  ZZ_ASSERT(request != nullptr);
  const std::uint64_t number = request->number.value;
  if (number == 0 || request->flags != 0) return {Refusal::kMalformed, {}, 0};
  Session* session = find_session(request->client, request->session);
  Client& client = session != nullptr ? *session->owner : client_of(request->client);
  if (const Refusal refusal = judge(client, session, *request); refusal != Refusal::kNone) return {refusal, {}, 0};
  if (session == nullptr) session = &open_session(client, request->session);

  Entry& entry = place(*session, number);
  const std::uint64_t size = request->op.size();
  if (session->pending++ == 0) ++client.live;
  ++pending_;
  client.bytes += size;
  bytes_ += size;
  if (entry.claimed_by == 0 && !strays_.empty()) {
    const Place stray = find_stray(request->client, request->session, request->number);
    entry.claimed_by = stray.n.value;
    entry.index = stray.index;
  }
  entry.request = std::move(request);
  if (entry.claimed_by == 0) enqueue(*session, entry, number);
  return {Refusal::kNone, Seq{entry.claimed_by}, entry.index};
}

// ---- the queues ------------------------------------------------------------------------------------------------

void RequestTable::enqueue(Session& session, Entry& entry, std::uint64_t number) {
  Client& client = *session.owner;
  ++client.queued;
  ++queued_;
  queued_bytes_ += entry.request->op.size();
  if (entry.in_queue) return;
  entry.in_queue = true;
  if (client.queue.size() > 2 * client.queued + kQueueSlack) compact(client);
  client.queue.push_back({&session, number});
  if (!client.ready) {
    client.ready = true;
    ready_.push_back(&client);
  }
}

// The item stays in the queue and is skipped as stale when its turn comes.
void RequestTable::unqueue(Client& client, const Entry& entry) {
  --client.queued;
  --queued_;
  queued_bytes_ -= entry.request->op.size();
}

bool RequestTable::stale(const Queued& item) {
  const Entry* entry = peek(*item.session, item.number);
  return entry == nullptr || !entry->request || entry->claimed_by != 0;
}

void RequestTable::leave_queue(const Queued& item) {
  if (in_window(*item.session, item.number)) place(*item.session, item.number).in_queue = false;
}

void RequestTable::compact(Client& client) {
  std::erase_if(client.queue, [this](const Queued& item) {
    if (!stale(item)) return false;
    leave_queue(item);
    return true;
  });
}

// The client's oldest request that batch n may carry, or null. A request of a session that n knows nothing of can never
// be ordered any more.
const RequestTable::Queued* RequestTable::head(Client& client, Seq n) {
  while (!client.queue.empty()) {
    const Queued& item = client.queue.front();
    if (!stale(item)) {
      if (item.session->known_at(n)) return &item;
      settle(*item.session, place(*item.session, item.number));
    }
    leave_queue(item);
    client.queue.pop_front();
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
    entry.in_queue = false;
    entry.claimed_by = n.value;
    entry.index = static_cast<std::uint32_t>(out.references.size());
    out.references.push_back(reference_of(*entry.request));
    out.bodies.push_back(entry.request);
    client.queue.pop_front();
    ready_.pop_front();
    ready_.push_back(&client);
  }
  return out;
}

// ---- claims ----------------------------------------------------------------------------------------------------

Refusal RequestTable::claim_one(Seq n, std::uint32_t index, const Reference& reference, RequestPtr& body,
                                std::vector<Stray>& strays) {
  const std::uint64_t number = reference.number.value;
  if (number == 0) return Refusal::kMalformed;
  if (!strays_.empty() && find_stray(reference.client, reference.session, reference.number).n.value != 0) {
    return Refusal::kDuplicate;
  }
  Session* session = find_session(reference.client, reference.session);
  if (session != nullptr && !session->known_at(n)) session = nullptr;
  if (session != nullptr && number <= session->low) return Refusal::kDuplicate;
  if (session == nullptr || !in_window(*session, number)) {
    strays.push_back({reference.client, reference.session, reference.number, index});
    return Refusal::kNone;
  }
  Entry& entry = place(*session, number);
  if (entry.delivered || entry.claimed_by != 0) return Refusal::kDuplicate;
  entry.claimed_by = n.value;
  entry.index = index;
  if (!entry.request) return Refusal::kNone;
  unqueue(*session->owner, entry);
  if (entry.request->digest == reference.digest) body = entry.request;
  return Refusal::kNone;
}

Refusal RequestTable::claim(Seq n, const std::vector<Reference>& references, std::vector<RequestPtr>& bodies,
                            std::uint32_t& unvouched) {
  ZZ_ASSERT(n.value != 0);
  bodies.assign(references.size(), nullptr);
  unvouched = 0;
  std::vector<Stray> strays;
  for (std::uint32_t i = 0; i < references.size(); ++i) {
    const Refusal refusal = claim_one(n, i, references[i], bodies[i], strays);
    if (refusal != Refusal::kNone) {
      release_first(n, references, i);
      bodies.clear();
      return refusal;
    }
    if (!bodies[i]) ++unvouched;
  }
  if (strays.empty()) return Refusal::kNone;
  std::sort(strays.begin(), strays.end(), [](const Stray& a, const Stray& b) { return name_of(a) < name_of(b); });
  const auto twice = std::adjacent_find(strays.begin(), strays.end(),
                                        [](const Stray& a, const Stray& b) { return name_of(a) == name_of(b); });
  if (twice != strays.end()) {
    release_first(n, references, references.size());
    bodies.clear();
    return Refusal::kDuplicate;
  }
  const auto at = std::lower_bound(strays_.begin(), strays_.end(), n,
                                   [](const Strays& group, Seq wanted) { return group.n < wanted; });
  strays_.insert(at, Strays{n, std::move(strays)});
  return Refusal::kNone;
}

void RequestTable::release_first(Seq n, const std::vector<Reference>& references, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    Session* session = find_session(references[i].client, references[i].session);
    const std::uint64_t number = references[i].number.value;
    if (session == nullptr) continue;
    const Entry* claimed = peek(*session, number);
    if (claimed == nullptr || claimed->claimed_by != n.value) continue;
    Entry& entry = place(*session, number);
    entry.claimed_by = 0;
    if (entry.request) enqueue(*session, entry, number);
  }
}

void RequestTable::release(Seq n, const std::vector<Reference>& references) {
  release_first(n, references, references.size());
  drop_strays(n);
}

void RequestTable::drop_strays(Seq n) {
  std::erase_if(strays_, [n](const Strays& group) { return group.n == n; });
}

// ---- delivery --------------------------------------------------------------------------------------------------

// The entry's request, if any, leaves the table.
void RequestTable::settle(Session& session, Entry& entry) {
  if (!entry.request) return;
  Client& client = *session.owner;
  if (entry.claimed_by == 0) unqueue(client, entry);
  const std::uint64_t size = entry.request->op.size();
  --pending_;
  client.bytes -= size;
  bytes_ -= size;
  if (--session.pending == 0) --client.live;
  entry.request.reset();
}

void RequestTable::mark_delivered(Seq n, Session& session, std::uint64_t number) {
  if (session.last_use == 0 && ++session.owner->ordered > limits_.client_sessions_max) {
    evict_oldest(n, *session.owner);
  }
  session.last_use = ++position_;
  if (!in_window(session, number)) return;  // only when more than f nodes are faulty
  Entry& entry = place(session, number);
  settle(session, entry);
  entry.claimed_by = 0;
  entry.delivered = true;
  while (true) {
    Entry& lowest = session.ring[(session.low + 1) & (session.ring.size() - 1)];
    if (!lowest.delivered) break;
    lowest = Entry{};
    ++session.low;
  }
}

// By the order alone, so that every node evicts the same session at the same place. `session` with last_use 0 is the
// one that needs the room.
void RequestTable::evict_oldest(Seq n, Client& client) {
  Session* oldest = nullptr;
  for (const auto& session : client.sessions) {
    if (session->last_use == 0 || session->dies_at != 0) continue;
    if (oldest == nullptr || session->last_use < oldest->last_use) oldest = session.get();
  }
  ZZ_ASSERT(oldest != nullptr);
  oldest->dies_at = n.value + kWindow;
  --client.ordered;
  deaths_.push_back({oldest->dies_at, client.id, oldest->id});
}

// Forgets the sessions that batches from n on know nothing of.
void RequestTable::bury(Seq n) {
  while (!deaths_.empty() && deaths_.front().at <= n.value) {
    const Death death = deaths_.front();
    deaths_.pop_front();
    Session& session = *find_session(death.client, death.session);
    Client& client = *session.owner;
    for (Entry& entry : session.ring) settle(session, entry);
    std::erase_if(client.queue, [&session](const Queued& item) { return item.session == &session; });
    last_ = nullptr;
    std::erase_if(client.sessions, [&session](const auto& s) { return s.get() == &session; });
  }
}

void RequestTable::deliver(Seq n, const std::vector<Reference>& references) {
  bury(n);
  for (const Reference& reference : references) {
    Session* session = find_session(reference.client, reference.session);
    if (session == nullptr) session = &open_session(client_of(reference.client), reference.session);
    mark_delivered(n, *session, reference.number.value);
  }
  if (!strays_.empty()) drop_strays(n);
}

}  // namespace zz::agreement
