#pragma once

// The clients' part of the witness: who asked for what, a reference run of the one order on a service of its own, and
// what executors and clients make of it. One thread.

#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "tests/sim/hooks.hpp"
#include "tests/sim/witness_ghost.hpp"
#include "tests/support/local_kv.hpp"

namespace zz::sim {

// Executes the order once, request by request, by the rules of docs/protocol.md §8. Sessions are plain maps of what
// was executed: no ring, no list, nothing of execution/session_table.hpp.
class ReferenceRun {
 public:
  explicit ReferenceRun(const crypto::Limits& limits);

  struct Answer {
    bool ran = false;  // for the first time
    bool expired = false;
    SharedBytes reply;  // when `ran` or `expired`
    Digest digest;
  };
  Answer execute(const execution::Invocation& invocation, SessionId session, RequestNumber number);

 private:
  using Key = std::pair<ClientId, SessionId>;
  struct Session {
    std::map<std::uint64_t, Digest> done;  // by number
    std::uint64_t used = 0;                // when it last executed
  };
  [[nodiscard]] bool expired(const Key& key, const Session* session, std::uint64_t number) const;
  void make_room(ClientId client);

  std::uint64_t kept_;  // numbers that a session keeps
  std::size_t sessions_max_;
  std::size_t client_sessions_max_;
  test::LocalKv service_;
  std::map<Key, Session> sessions_;
  std::set<Key> evicted_;
  std::uint64_t clock_ = 0;
  SharedBytes expired_reply_;
  Digest expired_digest_;
};

class ClientWitness {
 public:
  // `ghost` must outlive it.
  explicit ClientWitness(Ghost& ghost);

  void submitted(Micros now, ClientId client, SessionId session, RequestNumber number, const SharedBytes& op);
  void accepted(Micros now, ClientId client, SessionId session, RequestNumber number, const SharedBytes& reply);
  void asked(ClientId client, const MessagePtr& message);  // REQUESTS left a client
  void voted(const Parcel& parcel);                        // VOTE left an executor for a node
  void closings(const Parcel& parcel);                     // CLOSINGS left a node for another

  // The order has grown by this. Gives the vote digest that closes it.
  Digest ordered(const GhostBatch& batch);
  // A correct node says that it has g+1 equal votes, or one and the words of f+1 other nodes that it is right.
  void closed(NodeId node, Seq n);
  void executed(SlotId slot, Incarnation incarnation, Seq n, const std::vector<Digest>& replies, const Digest& state);
  void adopted(SlotId slot, Incarnation incarnation, Seq n);
  void final_check();

  // Of the votes that were sent to this node: whether there is one for n, and whether two differ.
  [[nodiscard]] bool voted_on(NodeId node, Seq n) const { return values_of(node, n) > 0; }
  [[nodiscard]] bool disputed(NodeId node, Seq n) const { return values_of(node, n) > 1; }

 private:
  using SessionKey = std::pair<ClientId, SessionId>;
  struct Submitted {
    Digest digest;
    Micros at;
    std::uint64_t floor = 0;     // must come after this place of the reference run
    std::uint64_t position = 0;  // its place; 0: not executed yet
    SharedBytes reply;
    std::optional<Micros> accepted;
  };
  struct Numbers {  // delivered ones of a session
    std::uint64_t low = 0;
    std::set<std::uint64_t> above;
  };
  struct HostileOps {
    std::vector<SharedBytes> ops;
    bool flooded = false;
  };
  struct VotesAt {
    std::vector<std::pair<std::uint64_t, Mask>> equal;  // by a hash of the digests: slots
    Mask words = 0;                                     // nodes that gave the digest of the reference run
  };
  struct SlotGhost {
    Incarnation incarnation;
    Seq executed;
  };

  void check_reference(const GhostBatch& batch, const agreement::Reference& reference);
  void check_window(const GhostBatch& batch, const agreement::Reference& reference);
  [[nodiscard]] static std::uint64_t hash_of(const std::vector<Digest>& replies);
  [[nodiscard]] std::size_t values_of(NodeId node, Seq n) const;

  Ghost& ghost_;
  ReferenceRun run_;
  std::map<SessionKey, std::map<std::uint64_t, Submitted>> submitted_;            // of correct clients
  std::map<std::tuple<ClientId, SessionId, std::uint64_t>, HostileOps> hostile_;  // sent by the others
  std::map<ClientId, MessagePtr> last_asked_;
  std::map<SessionKey, Numbers> numbers_;
  std::uint64_t position_ = 0;                // requests executed by the reference run
  std::uint64_t last_accepted_ = 0;           // the highest place of an accepted reply
  std::vector<std::vector<Digest>> replies_;  // [n - 1]
  std::vector<std::uint64_t> hashes_;         // [n - 1]
  std::vector<Digest> digests_;               // [n - 1]
  std::vector<ByNumber<VotesAt>> votes_;      // by node
  std::map<SlotId, SlotGhost> slots_;
  std::vector<std::optional<Digest>> states_;  // [n - 1]
};

}  // namespace zz::sim
