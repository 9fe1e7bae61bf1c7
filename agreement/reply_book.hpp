#pragma once

// ReplyBook: which requests of one service are answered, with which digest, and who is still to be told
// (docs/protocol.md §8). Pure: one thread, no IO. Per session it holds a ring of the last 2 * client_window
// requests. Sessions are bounded per client and in all: the client's own that is unused for longest makes room, another
// client's only at sessions_max (crypto/cluster_check.cpp keeps a cluster from getting there).
//
// A request's life here: open (ordered at n) -> closed (digest known) -> its body at hand, where this node is
// the session's home or was asked. Bodies may come before the close; they count only when their digest fits. Requests
// of a batch that is closed elsewhere only (presume_closed) are closed here one by one, as clients ask for them
// (ReplyQuestions).

#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "agreement/delivery.hpp"
#include "agreement/messages.hpp"
#include "agreement/reply_questions.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

struct ReplyBookConfig {
  NodeId self;
  std::uint32_t n = 4;  // agreement nodes
  std::uint32_t f = 1;
  std::uint32_t client_window = 256;
  std::uint32_t client_sessions_max = 16;
  std::uint32_t sessions_max = 1024;
  std::size_t ack_bytes_max = 1u << 20;       // body bytes of one Acks; one larger body travels alone
  std::size_t turn_bytes_max = 8u << 20;      // body bytes to one session per take_output; the rest waits
  std::uint64_t body_bytes_max = 256u << 20;  // bodies kept for repeats, all sessions; the oldest go first
  std::uint32_t g = 1;                        // execution faults
};

struct ReplyBookOutput {
  struct ToClient {
    ClientId client;
    Acks acks;
  };
  std::vector<ToClient> acks;
  // Bodies this node needs from an executor whose vote agreed on n.
  std::vector<FetchReplies> fetch;
  std::vector<FetchReplies> ask;  // digests, of every slot's current incarnation
};

class ReplyBook {
 public:
  explicit ReplyBook(const ReplyBookConfig& config);

  // In order of n, every delivered batch. Of a request that is ordered twice only the first time counts.
  void open(const Delivery& batch);
  // n has g+1 equal votes with these reply digests, one per reference of the batch opened as n.
  void close(const BatchHeader& header, const std::vector<Digest>& replies);
  // Bodies from an executor. `header` is batch message.n's. kMalformed: an index outside the batch.
  Refusal bodies(const BatchHeader& header, const Replies& message);
  // The client wants this (known) request answered by this node. kNone: it is, or will be once closed;
  // kSessionExpired: not known here any more; kQuota: so much else was asked for that slots have to be asked about.
  Refusal ask(ClientId client, SessionId session, RequestNumber number);
  // What is open up to n is closed elsewhere (a stable checkpoint). close() may still come.
  void presume_closed(Seq n) { presumed_ = std::max(presumed_, n); }
  // What a slot's current incarnation says of batch message.n, whose header this is. kMalformed: an index outside the
  // batch; kNotWanted: it was not asked for; kConflict: another digest is known to be right.
  Refusal digests(SlotId slot, const BatchHeader& header, const ReplyDigests& message);
  // Some incarnation is not current any more.
  void forget_words() { questions_.forget_words(); }

  void tick(Micros now) { questions_.tick(now); }
  // A batch of which clients have wanted an answer for long that slots do not give; as of the last tick.
  [[nodiscard]] std::optional<Seq> in_vain() const { return questions_.in_vain(); }
  // How batch n, which must hold this request, is answered; nothing while it is open, or not known here any more.
  [[nodiscard]] std::optional<Digest> digest_of(Seq n, const Reference& request);

  [[nodiscard]] ReplyBookOutput take_output();

 private:
  struct Entry {
    RequestNumber number;
    Seq n;
    std::uint32_t index = 0;
    bool closed = false;
    bool asked = false;     // the client wants a body from us although we are not its home
    bool queued = false;    // in the session's pending
    bool fetching = false;  // in fetch_, this turn
    bool told = false;      // acknowledged at least once since closed or asked
    bool has_body = false;
    Digest digest;
    SharedBytes body;
  };
  struct Session {
    ClientId client;
    SessionId id;
    std::vector<Entry> ring;
    std::deque<Acks::Item> pending;               // to be sent at the next take_output, each request once
    std::list<Session*>::iterator age;            // in by_age_
    std::list<Session*>::iterator age_of_client;  // in by_client_
  };
  struct Key {
    ClientId client;
    SessionId session;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& k) const {
      return std::hash<std::uint64_t>{}(k.session.value ^ (std::uint64_t{k.client.value} << 32));
    }
  };
  struct Kept {  // for dropping the oldest bodies
    Key key;
    RequestNumber number;
    std::size_t bytes = 0;
  };

  Session& session_of(ClientId client, SessionId session);
  Session* find(ClientId client, SessionId session);
  void forget(Session* session);
  Entry* entry_of(Session& session, RequestNumber number);
  [[nodiscard]] bool acks_unasked(SessionId session) const;
  void tell(Session& session, Entry& entry);
  void settle(Session& session, Entry& entry, const Digest& digest);
  // Moves what may leave this turn; true when some stays.
  bool take_pending(Session& session, ReplyBookOutput& out);
  void want_body(Session& session, Entry& entry);
  void keep_body(Session& session, Entry& entry, const SharedBytes& body);

  ReplyBookConfig config_;
  std::unordered_map<Key, Session, KeyHash> sessions_;  // looked up, never iterated
  std::list<Session*> by_age_;                          // front: unused for longest
  std::map<ClientId, std::list<Session*>> by_client_;   // the same, each client's
  std::vector<Session*> touched_;                       // have pending acks
  std::vector<FetchReplies> fetch_;
  ReplyQuestions questions_;
  Seq presumed_;
  std::deque<Kept> kept_;
  std::uint64_t body_bytes_ = 0;
  Session* last_ = nullptr;  // the session looked up last: references of a batch come in runs
};

}  // namespace zz::agreement
