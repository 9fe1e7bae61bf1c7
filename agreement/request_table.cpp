#include "agreement/request_table.hpp"

#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

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

RequestPtr RequestTable::find(ClientId client, SessionId session, RequestNumber number) const {
  const Session* s = find_session(client, session);
  const Entry* entry = s == nullptr ? nullptr : peek(*s, number.value);
  return entry == nullptr ? nullptr : entry->request;
}

RequestPtr RequestTable::find(const Reference& reference) const {
  RequestPtr request = find(reference.client, reference.session, reference.number);
  return request && request->digest == reference.digest ? request : nullptr;
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
  if (wakes && client.live.size() >= limits_.client_sessions_max) return Refusal::kQuota;
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
  ++client.touches;
  if (session != nullptr) session->touched = client.touches;
  Refusal refusal = judge(client, session, *request);
  if (refusal == Refusal::kQuota && give_up_session(client)) refusal = judge(client, session, *request);
  if (refusal != Refusal::kNone) return {refusal, {}, 0};
  if (session == nullptr) {
    session = &open_session(client, request->session);
    session->touched = client.touches;
  }

  Entry& entry = place(*session, number);
  const std::uint64_t size = request->op.size();
  if (session->pending++ == 0) client.live.push_back(session);
  ++pending_;
  client.bytes += size;
  bytes_ += size;
  if (entry.claimed_by == 0 && !strays_.empty()) {
    const Place stray = find_stray(request->client, request->session, request->number);
    entry.claimed_by = stray.n.value;
    entry.index = stray.index;
  }
  if (!vouches_.empty()) {
    entry.vouchers = vouches_.nodes(reference_of(*request));
    vouches_.erase(request->client, request->session, request->number);
  }
  entry.request = std::move(request);
  if (entry.claimed_by == 0) enqueue(*session, entry, number);
  return {Refusal::kNone, Seq{entry.claimed_by}, entry.index};
}

VouchBook::Nodes RequestTable::who_vouches(const Reference& reference) const {
  const Session* known = find_session(reference.client, reference.session);
  const Entry* entry = known == nullptr ? nullptr : peek(*known, reference.number.value);
  if (entry != nullptr && entry->request && entry->request->digest == reference.digest) return entry->vouchers;
  return vouches_.nodes(reference);
}

std::uint32_t RequestTable::vouchers(ClientId client, SessionId session, RequestNumber number) const {
  const Session* known = find_session(client, session);
  const Entry* entry = known == nullptr ? nullptr : peek(*known, number.value);
  return entry == nullptr || !entry->request ? 0 : static_cast<std::uint32_t>(std::popcount(entry->vouchers));
}

bool RequestTable::vouches(const Reference& reference) const { return find(reference) != nullptr; }

bool RequestTable::vouched_by(NodeId from, const Reference& reference) {
  const std::uint64_t number = reference.number.value;
  if (number == 0 || from.value >= VouchBook::kNodes) return false;
  Session* session = find_session(reference.client, reference.session);
  // What could not be taken need not be known.
  if (session == nullptr ? number > span_ : (!in_window(*session, number) || session->dies_at != 0)) return false;
  const Entry* known = session == nullptr ? nullptr : peek(*session, number);
  if (known != nullptr && known->delivered) return false;
  if (known == nullptr || !known->request) return vouches_.add(from, reference, limits_.f + 1);
  if (known->request->digest != reference.digest) {  // counted, but there is no place for it here
    static_cast<void>(vouches_.add(from, reference, limits_.f + 1));
    return false;
  }
  Entry& entry = place(*session, number);
  entry.vouchers = static_cast<VouchBook::Nodes>(entry.vouchers | 1u << from.value);
  if (entry.claimed_by == 0 && !entry.free && may_go(*session->owner, entry)) set_free(*session, entry, number);
  return false;
}

RequestTable::Vouched RequestTable::take_relayed(RequestPtr request) {
  ZZ_ASSERT(request != nullptr);
  const Reference reference = reference_of(*request);
  if (vouches(reference)) return {Refusal::kDuplicate, {}, 0};
  const auto others = static_cast<std::uint32_t>(std::popcount(vouches_.nodes(reference)));
  if (others < limits_.f + 1) return {Refusal::kNotReady, {}, 0};
  return vouch(std::move(request));
}

// Makes room for another session of a client that has as many as it may.
bool RequestTable::give_up_session(Client& client) {
  Session* oldest = nullptr;
  for (Session* session : client.live) {
    if (client.touches - session->touched < span_) continue;
    if (oldest != nullptr && oldest->touched < session->touched) continue;
    const bool named = std::any_of(session->ring.begin(), session->ring.end(),
                                   [](const Entry& entry) { return entry.claimed_by != 0; });
    if (!named) oldest = session;
  }
  if (oldest == nullptr) return false;
  for (Entry& entry : oldest->ring) settle(*oldest, entry);
  if (oldest->last_use == 0) forget(*oldest);
  return true;
}

// Requires that nothing of it waits.
void RequestTable::forget(Session& session) {
  ZZ_ASSERT(session.pending == 0);
  Client& client = *session.owner;
  const auto of_session = [&session](const Queued& item) { return item.session == &session; };
  std::erase_if(client.queue, of_session);
  std::erase_if(client.backed, of_session);
  last_ = nullptr;
  const auto at = std::lower_bound(client.sessions.begin(), client.sessions.end(), session.id,
                                   [](const auto& s, SessionId wanted) { return s->id < wanted; });
  client.sessions.erase(at);
}

// The entry's request, if any, leaves the table.
void RequestTable::settle(Session& session, Entry& entry) {
  if (!entry.request) return;
  Client& client = *session.owner;
  if (entry.claimed_by == 0) unqueue(client, entry);
  const std::uint64_t size = entry.request->op.size();
  --pending_;
  client.bytes -= size;
  bytes_ -= size;
  if (--session.pending == 0) std::erase(client.live, &session);
  entry.request.reset();
  entry.vouchers = 0;
  entry.asked = false;
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
  std::sort(strays.begin(), strays.end(), [](const Stray& a, const Stray& b) { return name_of(a) < name_of(b); });
  const auto twice = std::adjacent_find(strays.begin(), strays.end(),
                                        [](const Stray& a, const Stray& b) { return name_of(a) == name_of(b); });
  if (twice != strays.end()) {
    release_first(n, references, references.size());
    bodies.clear();
    return Refusal::kDuplicate;
  }
  add_strays(n, std::move(strays));
  return Refusal::kNone;
}

void RequestTable::claim_chosen(Seq n, const std::vector<Reference>& references, std::vector<RequestPtr>& bodies,
                                std::uint32_t& unvouched) {
  ZZ_ASSERT(n.value != 0);
  bodies.assign(references.size(), nullptr);
  unvouched = 0;
  std::vector<Stray> strays;
  for (std::uint32_t i = 0; i < references.size(); ++i) {
    RequestPtr claimed_body;
    static_cast<void>(claim_one(n, i, references[i], claimed_body, strays));  // what it refuses, it leaves as it is
    bodies[i] = find(references[i]);
    if (!bodies[i]) ++unvouched;
  }
  // Of one that the batch names twice, the first counts.
  std::stable_sort(strays.begin(), strays.end(),
                   [](const Stray& a, const Stray& b) { return name_of(a) < name_of(b); });
  add_strays(n, std::move(strays));
}

// Requires them in order, and none of batch n yet.
void RequestTable::add_strays(Seq n, std::vector<Stray>&& strays) {
  if (strays.empty()) return;
  const auto at = std::lower_bound(strays_.begin(), strays_.end(), n,
                                   [](const Strays& group, Seq wanted) { return group.n < wanted; });
  strays_.insert(at, Strays{n, std::move(strays)});
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

void RequestTable::mark_delivered(Seq n, Session& session, std::uint64_t number) {
  if (number <= session.low) return;
  if (const Entry* known = peek(session, number); known != nullptr && known->delivered) return;
  if (session.last_use == 0) {
    if (session.owner->ordered.size() == limits_.client_sessions_max) evict_oldest(n, *session.owner);
    session.owner->ordered.push_back(&session);
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

// By the order alone, so that every node evicts the same session at the same place.
void RequestTable::evict_oldest(Seq n, Client& client) {
  const auto oldest = std::min_element(client.ordered.begin(), client.ordered.end(),
                                       [](const Session* a, const Session* b) { return a->last_use < b->last_use; });
  (*oldest)->dies_at = n.value + limits_.window;
  deaths_.push_back({(*oldest)->dies_at, client.id, (*oldest)->id});
  client.ordered.erase(oldest);
}

// Forgets the sessions that batches from n on know nothing of.
void RequestTable::bury(Seq n) {
  while (!deaths_.empty() && deaths_.front().at <= n.value) {
    const Death death = deaths_.front();
    deaths_.pop_front();
    Session& session = *find_session(death.client, death.session);
    for (Entry& entry : session.ring) settle(session, entry);
    forget(session);
  }
}

void RequestTable::deliver(Seq n, const std::vector<Reference>& references) {
  bury(n);
  for (const Reference& reference : references) {
    Session* session = find_session(reference.client, reference.session);
    if (session == nullptr) session = &open_session(client_of(reference.client), reference.session);
    mark_delivered(n, *session, reference.number.value);
    if (!vouches_.empty()) vouches_.erase(reference.client, reference.session, reference.number);
  }
  if (!strays_.empty()) drop_strays(n);
}

}  // namespace zz::agreement
