#pragma once

// Every message of the protocol as plain structs, and the digests and signatures over their fields. No wire
// format here: codec.hpp turns them into bytes and back. Plain values; payloads are slices of the frame they came in.
//
// The sender of a message is the authenticated peer of its channel and is never a field, except where a
// message is signed because it must convince a third party (docs/protocol.md §3).

#include <memory>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement {

// ---- requests
// ------------------------------------------------------------------------------------------------

// Names one request without its body. d covers (service, client, session, number, flags, op).
struct Reference {
  ClientId client;
  SessionId session;
  RequestNumber number;
  Digest digest;
  auto operator<=>(const Reference&) const = default;
};

// A request with its body. Immutable once made; shared between the tables of a node.
struct Request {
  ClientId client;
  SessionId session;
  RequestNumber number;
  std::uint32_t flags = 0;  // none defined yet; must be 0
  SharedBytes op;
  Digest digest;  // computed by the receiver (request_digest), never taken from the wire
};
using RequestPtr = std::shared_ptr<const Request>;

Digest request_digest(ServiceId service, ClientId client, SessionId session, RequestNumber number, std::uint32_t flags,
                      ByteView op);
inline Reference reference_of(const Request& r) { return {r.client, r.session, r.number, r.digest}; }

// ---- system operations (ordered like requests)
// -----------------------------------------------------------------

enum class Suspicion : std::uint8_t {
  kWrong,    // voted otherwise than g+1 equal votes
  kLate,     // no vote in time, or gone
  kSurplus,  // awake, blameless and not needed: back to sleep
};
std::string_view to_string(Suspicion why);

// Signed by the agreement node `signer`.
struct Suspect {
  ServiceId service;
  NodeId signer;
  Epoch epoch;  // current epoch at the signer
  SlotId slot;
  Incarnation incarnation;
  Seq n;  // the batch that showed it
  Suspicion why{};
  std::vector<SlotId> agreeing;  // ascending: slots whose vote for n equals the g+1
  crypto::Signature signature;
};
Bytes suspect_fields(const crypto::ClusterId& cluster, const Suspect& s);

// EPOCH(e+1): valid when every slot in `evicted` is named by f+1 suspects of distinct signers for epoch e and
// that incarnation, and every slot of `active` was active in e or is in some carried suspect's `agreeing`.
struct EpochChange {
  Epoch epoch;                  // the new one
  std::vector<SlotId> active;   // ascending, g+1 of them, none in `evicted`
  std::vector<SlotId> evicted;  // ascending; re-imaged as new incarnations
  std::vector<Suspect> proof;
};

// No incarnation lies beyond: not even 2^63 boots get there.
inline constexpr Incarnation kIncarnationMax{std::uint64_t{1} << 63};

// A host vouches for a new incarnation of one of its slots. Signed by the slot's host.
struct Join {
  ServiceId service;
  SlotId slot;
  Incarnation incarnation;
  crypto::PublicKey key;
  crypto::Signature signature;
};
Bytes join_fields(const crypto::ClusterId& cluster, const Join& j);

using SystemOp = std::variant<EpochChange, Join>;

// ---- ordering
// ------------------------------------------------------------------------------------------------

struct BatchHeader {
  ServiceId service;
  Seq n;
  Micros time;  // agreed time: microseconds since 1970, strictly increasing over n
  std::vector<Reference> references;
  std::vector<SystemOp> system;  // applied after the references
};
using HeaderPtr = std::shared_ptr<const BatchHeader>;
// D: covers every field, not the view.
Digest batch_digest(const BatchHeader& header);
// H_n = digest(H_{n-1}, D_n); H_0 is all zero. The agreed seed of batch n is H_n.
Digest history_digest(const Digest& previous, const Digest& batch);

struct PrePrepare {
  View view;
  HeaderPtr header;
  Digest digest;  // computed by the receiver
};
struct Prepare {
  View view;
  Seq n;
  Digest digest;
};
struct Commit {
  View view;
  Seq n;
  Digest digest;
};
// Node to node: please send these bodies. At most batch_requests_max digests.
struct FetchBodies {
  std::vector<Reference> wanted;
};
struct Bodies {
  std::vector<RequestPtr> requests;
};

// ---- client
// ----------------------------------------------------------------------------------------------------

// Client to every node. The client id is the channel's. Sending a request again asks for its answer again.
struct Requests {
  SessionId session;
  struct Item {
    RequestNumber number;
    std::uint32_t flags = 0;
    SharedBytes op;
  };
  std::vector<Item> items;
};
// Node to client: these are closed with these reply digests. With a body: from the home node, or on request.
struct Acks {
  SessionId session;
  struct Item {
    RequestNumber number;
    Digest reply_digest;
    bool has_body = false;
    SharedBytes body;
  };
  std::vector<Item> items;
};
// Node to client: not taken. kQueueFull, kQuota, kOutOfWindow and kNotReady mean BUSY: try again later. The others
// are final for this number.
struct Rejected {
  SessionId session;
  RequestNumber number;
  std::uint8_t reason = 0;  // Refusal
};
Digest reply_digest(ByteView reply);
// The node that gives a session's replies their bodies.
inline NodeId home_of(SessionId session, std::uint32_t n) {
  return NodeId{static_cast<std::uint16_t>(session.value % n)};
}

// ---- execution
// -----------------------------------------------------------------------------------------------

// Executor to node: stream the order to me from `from` on. Replaces any earlier subscription of this channel.
struct Subscribe {
  Seq from;
  bool bearer = false;  // this node also sends headers and bodies
};
// Node to executor: batches first_n, first_n+1, ... are committed with these digests.
struct Orders {
  Seq first_n;
  std::vector<Digest> digests;
};
// Bearer to executor: what digest D of n stands for, bodies in the order of header->references.
struct Batch {
  HeaderPtr header;
  Digest digest;  // computed by the receiver
  std::vector<RequestPtr> requests;
};
// Executor to every node, for every batch it executes, in order.
struct Vote {
  Epoch epoch;
  Seq n;
  SlotId slot;                  // must be the channel's
  Incarnation incarnation;      // must be the channel's
  std::vector<Digest> replies;  // one reply digest per reference
};
// What two votes are compared by.
Digest vote_digest(Seq n, const std::vector<Digest>& replies);
// Executor to a node: reply bodies of batch n, for that node's sessions (it is their home) or as asked for.
struct Replies {
  Seq n;
  struct Item {
    std::uint32_t index;  // into references
    SharedBytes body;
  };
  std::vector<Item> items;
};
// Node to executor: send me these bodies again (from the session table's cached replies).
struct FetchReplies {
  Seq n;
  struct Item {
    std::uint32_t index;
    ClientId client;
    SessionId session;
    RequestNumber number;
  };
  std::vector<Item> items;
};

// ---- pool
// ----------------------------------------------------------------------------------------------------

// Node to the host of a sleeping slot. Signed.
struct Wake {
  ServiceId service;
  NodeId signer;
  Epoch epoch;
  SlotId slot;
  Incarnation incarnation;
  Seq n;
  std::uint8_t sign = 0;  // Sign (oversight.hpp), for people
  crypto::Signature signature;
};
Bytes wake_fields(const crypto::ClusterId& cluster, const Wake& w);

// Node to host: the ordered slot table after n. A host acts on f+1 equal ones from distinct nodes.
struct EpochNotice {
  ServiceId service;
  Epoch epoch;
  Seq n;                                     // the batch that carried the last change
  std::vector<SlotId> active;                // ascending
  std::vector<Incarnation> incarnations;     // per slot: the current one; 0 = none joined
  std::vector<Incarnation> evicted_through;  // per slot: this and all earlier incarnations are to be destroyed
  bool operator==(const EpochNotice&) const = default;
};
// Host to every node: an incarnation is dead (its processes or VM ended). Trusted for the host's own slots only.
struct SlotDead {
  SlotId slot;
  Incarnation incarnation;
};

// ---- operator
// ------------------------------------------------------------------------------------------------

struct StatusQuery {};
struct StatusReport {
  std::string json;  // one JSON object
};

using Body =
    std::variant<PrePrepare, Prepare, Commit, FetchBodies, Bodies, Requests, Acks, Rejected, Subscribe, Orders, Batch,
                 Vote, Replies, FetchReplies, Wake, Suspect, EpochNotice, Join, SlotDead, StatusQuery, StatusReport>;

struct Message {
  ServiceId service;
  Body body;
};

}  // namespace zz::agreement
