#pragma once

// RequestTable: the requests that one node vouches for, per client and session, and what the order has done with
// them (docs/protocol.md §4). A part of Replica; one thread, no IO.
//
// A session is a ring over the request numbers (low, low + 2 * client_window], where all numbers up to low are
// delivered. A proposal *claims* the numbers that it names, so that no two batches in flight name the same one;
// delivery settles them. Claims on numbers that have no place in a ring here (the client's own message is still
// on its way, or its session is new) are kept apart as strays, sorted per batch.
//
// Invariants:
//  1. A number has at most one vouched request; the first one wins.
//  2. A number is claimed by at most one batch, and never once it is delivered, while its session is remembered.
//  3. Which delivered numbers count against batch n depends on the order below n alone, so a correct primary's
//     proposal is never refused for it: a session evicted by batch m counts against all batches below
//     m + kWindow, and whoever judges batch n has delivered n - kWindow.
//  4. Every vouched, undelivered and unclaimed request stands exactly once in its client's queue.
//  5. A client has at most client_sessions_max sessions with requests waiting here, and as many with deliveries that
//     are not evicted; each of the others had its last delivery within kWindow batches.

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

struct RequestLimits {
  std::uint32_t client_window = 256;
  std::uint32_t client_sessions_max = 16;
  std::uint64_t client_bytes_max = 64u << 20;  // bodies vouched for and not delivered, per client
  std::uint64_t bytes_max = 1u << 30;          // the same, of all clients
};

class RequestTable {
 public:
  explicit RequestTable(const RequestLimits& limits);

  struct Vouched {
    Refusal refusal = Refusal::kNone;
    Seq claimed_by;           // not 0: this batch names the number, maybe with another digest
    std::uint32_t index = 0;  // its reference
  };
  // Takes a request from its client's own channel. Refusals as in Replica::vouch.
  Vouched vouch(RequestPtr request);

  // Claims every reference of batch n, or none. On kNone, bodies[i] is the vouched body of references[i] or null,
  // and `unvouched` counts the nulls. kMalformed: number 0; kDuplicate: delivered, or named by a batch in flight.
  Refusal claim(Seq n, const std::vector<Reference>& references, std::vector<RequestPtr>& bodies,
                std::uint32_t& unvouched);
  // Takes the claims of batch n back; its requests can be proposed again.
  void release(Seq n, const std::vector<Reference>& references);

  struct Cut {
    std::vector<Reference> references;
    std::vector<RequestPtr> bodies;
  };
  // Takes queued requests for batch n, clients in turn, and claims them. A request longer than bytes_max comes alone.
  [[nodiscard]] Cut cut(Seq n, std::uint32_t requests_max, std::uint64_t bytes_max);

  // Batch n is delivered; called in order of n.
  void deliver(Seq n, const std::vector<Reference>& references);

  // Which batch in flight names this number; n = 0: none.
  struct Place {
    Seq n;
    std::uint32_t index = 0;
  };
  [[nodiscard]] Place claimed(ClientId client, SessionId session, RequestNumber number) const;
  // The vouched, undelivered body that this reference names, or null.
  [[nodiscard]] RequestPtr find(const Reference& reference) const;

  [[nodiscard]] std::size_t pending() const { return pending_; }  // vouched, not delivered
  [[nodiscard]] std::size_t queued() const { return queued_; }    // of these, not claimed
  [[nodiscard]] std::uint64_t queued_bytes() const { return queued_bytes_; }

  // Counts everything anew and stops the process where the invariants or the running counts do not hold. For tests: its
  // cost grows with all that is held.
  void check() const;

 private:
  static constexpr std::size_t kQueueSlack = 64;  // stale queue items that are not worth a compaction

  struct Entry {
    RequestPtr request;            // vouched and not delivered
    std::uint64_t claimed_by = 0;  // batch
    std::uint32_t index = 0;       // its reference
    bool in_queue = false;
    bool delivered = false;
  };
  struct Client;
  struct Session {
    Client* owner = nullptr;
    SessionId id;
    std::uint64_t low = 0;
    std::vector<Entry> ring;     // a power of two, at most bit_ceil(span_): grows with use
    std::uint32_t pending = 0;   // vouched, not delivered
    std::uint64_t last_use = 0;  // position in the order of the last delivery; 0: none yet
    std::uint64_t dies_at = 0;   // not 0: evicted; batches from here on know nothing of it

    [[nodiscard]] bool known_at(Seq n) const { return dies_at == 0 || n.value < dies_at; }
  };
  struct Queued {
    Session* session;
    std::uint64_t number;
  };
  struct Client {
    ClientId id;
    std::vector<std::unique_ptr<Session>> sessions;  // ascending
    std::deque<Queued> queue;                        // oldest first; may hold stale ones
    bool ready = false;                              // stands in ready_
    std::size_t queued = 0;
    std::uint64_t bytes = 0;
    std::uint32_t live = 0;     // sessions with pending requests
    std::uint32_t ordered = 0;  // sessions with deliveries, not evicted
  };
  struct Stray {
    ClientId client;
    SessionId session;
    RequestNumber number;
    std::uint32_t index = 0;
  };
  struct Strays {
    Seq n;
    std::vector<Stray> items;  // ascending
  };
  struct Death {
    std::uint64_t at;
    ClientId client;
    SessionId session;
  };

  [[nodiscard]] Client* find_client(ClientId id) const;
  [[nodiscard]] Session* find_session(ClientId client, SessionId session) const;
  Client& client_of(ClientId id);
  Session& open_session(Client& client, SessionId id);
  [[nodiscard]] bool in_window(const Session& session, std::uint64_t number) const;
  [[nodiscard]] static const Entry* peek(const Session& session, std::uint64_t number);
  Entry& place(Session& session, std::uint64_t number);

  [[nodiscard]] Refusal judge(const Client& client, const Session* session, const Request& request) const;
  Refusal claim_one(Seq n, std::uint32_t index, const Reference& reference, RequestPtr& body,
                    std::vector<Stray>& strays);
  void release_first(Seq n, const std::vector<Reference>& references, std::size_t count);
  [[nodiscard]] Place find_stray(ClientId client, SessionId session, RequestNumber number) const;
  void drop_strays(Seq n);

  void enqueue(Session& session, Entry& entry, std::uint64_t number);
  void unqueue(Client& client, const Entry& entry);
  void settle(Session& session, Entry& entry);
  [[nodiscard]] static bool stale(const Queued& item);
  void leave_queue(const Queued& item);
  void compact(Client& client);
  [[nodiscard]] const Queued* head(Client& client, Seq n);

  void mark_delivered(Seq n, Session& session, std::uint64_t number);
  void evict_oldest(Seq n, Client& client);
  void bury(Seq n);

  RequestLimits limits_;
  std::uint64_t span_;                            // numbers a session may be ahead of low
  std::vector<std::unique_ptr<Client>> clients_;  // ascending
  std::deque<Client*> ready_;                     // clients with a queue, in turn
  std::vector<Strays> strays_;                    // ascending n
  std::deque<Death> deaths_;                      // ascending at
  std::uint64_t position_ = 0;                    // references delivered so far
  std::size_t pending_ = 0;
  std::size_t queued_ = 0;
  std::uint64_t queued_bytes_ = 0;
  std::uint64_t bytes_ = 0;
  mutable Session* last_ = nullptr;  // found last: references come in runs of one session
};

}  // namespace zz::agreement
