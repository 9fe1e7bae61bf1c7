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
//     m + window, and whoever judges batch n has delivered n - window.
//  4. Every vouched, undelivered and unclaimed request stands exactly once in its client's queue.
//  5. A client has at most client_sessions_max sessions with requests waiting here, and as many with deliveries that
//     are not evicted; each of the others had its last delivery within window batches.
//  6. A session with requests waiting is given up for a new one (they leave the table, as if they had never come) only
//     when the client is at that limit, no batch in flight names a number of it, the client's last 2 * client_window
//     calls of vouch() were for other sessions, and no such session was used less recently. A live client sends its
//     open requests again and again, so what is given up has been abandoned.
//  7. A request of an unproven client may be proposed (counts as queued(), comes with cut()) only while 2f other nodes
//     vouch for it too.
//
// Memory for what other nodes vouch for: a word per request that is here, and VouchBook's bound for the others.

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/primary_watch.hpp"
#include "agreement/vouch_book.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

struct RequestLimits {
  std::uint32_t window = 256;  // L, in batches
  std::uint32_t client_window = 256;
  std::uint32_t client_sessions_max = 16;
  std::uint64_t client_bytes_max = 64u << 20;  // bodies vouched for and not delivered, per client
  std::uint64_t bytes_max = 1u << 30;          // the same, of all clients
  std::uint32_t f = 1;                         // agreement faults
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

  // A new view chose batch n: claims what can be claimed of its references and never refuses. References that are
  // delivered or claimed already are left as they are; bodies at hand are filled in for all of them. (Executors run a
  // request that is ordered twice once.)
  void claim_chosen(Seq n, const std::vector<Reference>& references, std::vector<RequestPtr>& bodies,
                    std::uint32_t& unvouched);
  // All claims of batches that are not delivered end: a view change. All that waits is queued anew, session by session
  // in turn and each in the order of its numbers.
  void release_all();

  // Unproven clients (docs/protocol.md §4): their requests are proposed only when 2f other nodes vouch for them too.
  // For ever: it costs an innocent one a hop. A client that is not known here is remembered while fewer than
  // kMarkedClientsMax clients are, since a hostile primary may name any.
  void mark_unproven(ClientId client);
  [[nodiscard]] bool is_unproven(ClientId client) const;
  // Waiting requests of unproven clients that were not asked for yet: to be put to the other nodes, clients in turn. At
  // most `max`; each once until ask_again() or release_all().
  [[nodiscard]] std::vector<Reference> take_queries(std::size_t max);
  // Queries or answers may be lost, or come before the client's message: those not answered by 2f nodes are due again.
  void ask_again();
  // Node `from` (another one) vouches for it. True once per reference: f+1 nodes do, and the body is not here: it may
  // be fetched from them and is then as good as the client's own (take_relayed).
  bool vouched_by(NodeId from, const Reference& reference);
  // The body of a request that f+1 nodes vouch for. Refusals as vouch(); kNotReady: not that many do.
  Vouched take_relayed(RequestPtr request);
  // Bit per other node that said so, whatever this node has under that number.
  [[nodiscard]] VouchBook::Nodes who_vouches(const Reference& reference) const;
  // How many other nodes said that they vouch for this request, which this node vouches for too.
  [[nodiscard]] std::uint32_t vouchers(ClientId client, SessionId session, RequestNumber number) const;
  // Whether this node vouches for it (undelivered) itself.
  [[nodiscard]] bool vouches(const Reference& reference) const;

  // Each client's oldest request that waits and is not claimed, whether it may be proposed or not; ascending by client.
  // Evicted sessions have no claim on the primary and do not count.
  [[nodiscard]] std::vector<PrimaryWatch::Head> heads();
  // What was a head waits no more, and is neither proposed nor ordered: its session was given up or evicted for later
  // ones of its client.
  [[nodiscard]] bool gave_up(const PrimaryWatch::Head& head) const;
  [[nodiscard]] RequestPtr find(ClientId client, SessionId session, RequestNumber number) const;
  [[nodiscard]] std::uint64_t position() const { return position_; }  // references delivered so far

  // Batch n is delivered; called in order of n. References that were delivered before count once.
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
  [[nodiscard]] std::size_t queued() const { return queued_; }    // of these, not claimed and free to be proposed
  [[nodiscard]] std::uint64_t queued_bytes() const { return queued_bytes_; }

  // Counts everything anew and stops the process where the invariants or the running counts do not hold. For tests: its
  // cost grows with all that is held.
  void check() const;

 private:
  static constexpr std::size_t kQueueSlack = 64;  // stale queue items that are not worth a compaction
  static constexpr std::size_t kMarkedClientsMax = 4'096;

  struct Entry {
    RequestPtr request;             // vouched and not delivered
    std::uint64_t claimed_by = 0;   // batch
    std::uint32_t index = 0;        // its reference
    VouchBook::Nodes vouchers = 0;  // other nodes that vouch for this request
    bool in_queue : 1 = false;
    bool in_backed : 1 = false;  // stands in its client's `backed`
    bool free : 1 = false;       // waits, and may be proposed
    bool asked : 1 = false;      // take_queries gave it
    bool delivered : 1 = false;
  };
  struct Client;
  struct Session {
    Client* owner = nullptr;
    SessionId id;
    std::uint64_t low = 0;
    std::vector<Entry> ring;     // a power of two, at most bit_ceil(span_): grows with use
    std::uint32_t pending = 0;   // vouched, not delivered
    std::uint64_t last_use = 0;  // position in the order of the last delivery; 0: none yet
    std::uint64_t touched = 0;   // its client's count of vouch() calls at its own last one
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
    std::deque<Queued> queue;                        // what waits, oldest first; may hold stale ones
    std::deque<Queued> backed;                       // of an unproven client: of these, what 2f others vouch for
    bool unproven = false;
    bool ready = false;       // stands in ready_
    std::size_t waiting = 0;  // requests in `queue` that are not stale
    std::size_t unasked = 0;  // of these, those take_queries has not given (of an unproven client)
    std::uint64_t bytes = 0;
    std::uint64_t touches = 0;      // calls of vouch()
    std::vector<Session*> live;     // with pending requests; no order
    std::vector<Session*> ordered;  // with deliveries, not evicted; no order
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
  void add_strays(Seq n, std::vector<Stray>&& strays);
  [[nodiscard]] Place find_stray(ClientId client, SessionId session, RequestNumber number) const;
  void drop_strays(Seq n);

  [[nodiscard]] bool may_go(const Client& client, const Entry& entry) const;
  void enqueue(Session& session, Entry& entry, std::uint64_t number);
  void unqueue(Client& client, Entry& entry);
  void set_free(Session& session, Entry& entry, std::uint64_t number);
  void note_unasked(Client& client) { ++client.unasked, ++unasked_; }
  void note_asked(Client& client) { --client.unasked, --unasked_; }
  void settle(Session& session, Entry& entry);
  [[nodiscard]] static bool stale(const Queued& item);
  [[nodiscard]] static std::deque<Queued>& line_of(Client& client) {
    return client.unproven ? client.backed : client.queue;
  }
  void pop_line(Client& client);
  void compact(Client& client);
  [[nodiscard]] const Queued* head(Client& client, Seq n);
  void requeue(Client& client);
  void take_queries(Client& client, std::size_t max, std::vector<Reference>& out);

  bool give_up_session(Client& client);
  void forget(Session& session);
  void mark_delivered(Seq n, Session& session, std::uint64_t number);
  void evict_oldest(Seq n, Client& client);
  void bury(Seq n);

  RequestLimits limits_;
  std::uint64_t span_;                            // numbers a session may be ahead of low
  std::vector<std::unique_ptr<Client>> clients_;  // ascending
  std::deque<Client*> ready_;                     // clients with requests that may go, in turn
  std::vector<Client*> unproven_;                 // in the order of their marks
  std::size_t unasked_ = 0;                       // of all of them
  std::size_t next_asked_ = 0;                    // in unproven_: whose turn take_queries is at
  VouchBook vouches_;                             // for requests that are not here
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
