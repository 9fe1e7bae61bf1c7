#pragma once

// Every message of the protocol as plain structs, and the digests and signatures over their fields. No wire
// format here: codec.hpp turns them into bytes and back. Plain values; payloads are slices of the frame they came in.
//
// The sender of a message is the authenticated peer of its channel and is never a field, except where a
// message is signed because it must convince a third party (docs/protocol.md §3).

#include <algorithm>
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
  kSurplus,  // awake, blameless and not needed: back to sleep; an active one whose turn it is to be renewed
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
  Micros time;  // proposed: microseconds since 1970. The agreed time of n is agreed_time() of it
  std::vector<Reference> references;
  std::vector<SystemOp> system;  // applied after the references
};
using HeaderPtr = std::shared_ptr<const BatchHeader>;
// Strictly increasing over n, whatever a new view chose: one microsecond above the last batch's at least.
inline Micros agreed_time(Micros last, const BatchHeader& header) {
  return std::max(Micros{last.value + 1}, header.time);
}
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
// Node to node: please send the headers with these digests. At most kHeadersMax are answered.
struct FetchHeaders {
  std::vector<Digest> wanted;
};
inline constexpr std::size_t kHeadersMax = 16;
struct Headers {
  std::vector<HeaderPtr> headers;  // at most kHeadersMax; no null
};

// Fills a number that a new view found nothing for: no references, no operations, agreed time 0 (it has none of its
// own).
HeaderPtr null_header(ServiceId service, Seq n);

// ---- checkpoints (docs/protocol.md §6)
// -----------------------------------------------------------------------

// What 2f+1 nodes sign about the order up to n.
struct CheckpointState {
  Seq n;
  Digest history;  // H_n
  Digest results;  // R_n = digest(R_{n-1}, vote digest that closed n); R_0 is all zero
  Digest table;    // of the slot table after n
  Digest root;     // S_n: of the executors' state after n (EXEC-CHECKPOINT)
  auto operator<=>(const CheckpointState&) const = default;
};
Digest results_digest(const Digest& previous, const Digest& closed);

// Node to every node. Signed by `signer`.
struct Checkpoint {
  ServiceId service;
  NodeId signer;
  CheckpointState state;
  crypto::Signature signature;
};
Bytes checkpoint_fields(const crypto::ClusterId& cluster, ServiceId service, NodeId signer,
                        const CheckpointState& state);

// A stable checkpoint: 2f+1 signatures over one state.
struct StableCertificate {
  ServiceId service;
  CheckpointState state;
  struct Part {
    NodeId signer;
    crypto::Signature signature;
  };
  std::vector<Part> parts;  // ascending signers, 2f+1 to 3f+1
};
using CertificatePtr = std::shared_ptr<const StableCertificate>;  // null: the beginning, n = 0
inline Seq stable_n(const CertificatePtr& certificate) { return certificate ? certificate->state.n : Seq{}; }

// Node to node that is behind: my newest stable checkpoint. Never null.
struct Stable {
  CertificatePtr certificate;
};
// Node to node: I have the order below `from`; please send what follows.
struct FetchOrder {
  Seq from;
};
// The answer: D of from, from+1, ... up to a stable checkpoint, whose history proves them. Batch messages follow, as
// many as fit the answerer's budget.
struct OrderProof {
  CertificatePtr certificate;  // never null
  Seq from;
  std::vector<Digest> digests;  // of from .. certificate n; at most kProofDigestsMax
};
inline constexpr std::size_t kProofDigestsMax = 1'024;

// ---- view change (docs/protocol.md §7)
// -----------------------------------------------------------------------

// "n was (pre-)prepared here with D, in that view."
struct Claim {
  Seq n;
  Digest digest;
  View view;
  auto operator<=>(const Claim&) const = default;
};
inline constexpr std::size_t kClaimsMax = 1'024;  // in one list

// Node to every node. Signed by `signer`.
struct ViewChange {
  ServiceId service;
  NodeId signer;
  View view;                        // the one wanted, above 0
  CertificatePtr stable;            // h and its proof
  std::vector<Claim> prepared;      // P: ascending n, one per n, newest view
  std::vector<Claim> pre_prepared;  // Q: ascending (n, digest), newest view per digest
  crypto::Signature signature;
  // Why the signer left: 2f+1 to 3f+1 nodes, ascending, complained of view - 1. Empty: f+1 nodes wanted the view and
  // showed none. The signature does not cover them: each is signed by itself.
  std::vector<StableCertificate::Part> complaints;
};
using ViewChangePtr = std::shared_ptr<const ViewChange>;
Bytes view_change_fields(const crypto::ClusterId& cluster, const ViewChange& v);
// "I would leave this view." What PROGRESS and VIEW-CHANGE carry signatures of.
Bytes complaint_fields(const crypto::ClusterId& cluster, ServiceId service, NodeId signer, View view);

// The new primary to every node. Signed by `signer`.
struct NewView {
  ServiceId service;
  NodeId signer;
  View view;
  std::vector<ViewChangePtr> proof;  // ascending signers, 2f+1 to 3f+1, all for `view`
  Seq start;                         // the highest stable checkpoint in the proof
  std::vector<Digest> chosen;        // D of start+1, start+2, ...; all zero = null. At most window_batches
  crypto::Signature signature;
};
using NewViewPtr = std::shared_ptr<const NewView>;
Bytes new_view_fields(const crypto::ClusterId& cluster, const NewView& v);

// Node to every node, every now and then and when a channel comes up: where I am. Who is further sends what is missing.
struct Progress {
  View view;              // the highest this node sent a VIEW-CHANGE for, or is in
  bool changing = false;  // it waits for that view's NEW-VIEW
  Seq delivered;
  Seq stable;
  bool complains = false;         // it would leave `view` if 2f others would
  Seq settled;                    // up to here nothing is to be voted on any more in this view; at most delivered
  Seq closed{};                   // every batch up to here is closed, or presumed so; ServiceInstance fills it in
  crypto::Signature complaint{};  // the sender's for complaint_fields of `view`; zero unless it complains
};
// Node to a node that does not get on with closing: how first_n, first_n+1, ... are closed here.
inline constexpr std::size_t kClosingsMax = 256;
struct Closings {
  Seq first_n;
  std::vector<Digest> digests;  // vote_digest() of each, zero where it is not known; at most kClosingsMax
};
// Primary to backups: whom of you did the client send these? (An unproven client's, docs/protocol.md §4.)
struct VouchQuery {
  std::vector<Reference> references;  // at most batch_requests_max
};
// Node to node: I vouch for these; the answer to VouchQuery, and unasked for requests that wait for long.
struct Vouched {
  std::vector<Reference> references;  // at most batch_requests_max
};
// Node to every node: this operation waits here for long; it should be ordered.
struct Propose {
  SystemOp op;
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
// Bearer to executor, or node to a node that is behind: what digest D of n stands for, bodies in the order of
// header->references.
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
// Node to executor: send me these bodies again (from the session table's cached replies), or tell me what it says that
// their digests are.
struct FetchReplies {
  Seq n;
  struct Item {
    std::uint32_t index;
    ClientId client;
    SessionId session;
    RequestNumber number;
  };
  std::vector<Item> items;
  bool digests = false;  // ReplyDigests, not Replies
};
// Executor to node, when asked: how these requests of batch n were answered, by its session table. What it has not
// executed yet it does not name.
struct ReplyDigests {
  Seq n;
  struct Item {
    std::uint32_t index;  // into references
    Digest digest;        // zero: the session table keeps it no longer
  };
  std::vector<Item> items;
};

// ---- checkpoints of execution (docs/protocol.md §6, §10)
// ----------------------------------------------------------------------------------------------------

// Executor to every node: the root digest of its state after batch n, a due checkpoint. Signed with the incarnation's
// key.
struct ExecCheckpoint {
  ServiceId service;
  SlotId slot;              // must be the channel's
  Incarnation incarnation;  // must be the channel's
  Seq n;
  Digest root;
  crypto::Signature signature;
};
Bytes exec_checkpoint_fields(const crypto::ClusterId& cluster, const ExecCheckpoint& c);

// Node to executor, when its channel comes up and when the stable checkpoint rises: Stable, as to nodes.

// What of a snapshot is wanted. The kinds and places are those of execution/state/parts.hpp; nothing here looks into
// them.
struct StateWant {
  std::uint8_t kind = 0;  // 0 root record, 1 inner node, 2 object
  std::uint64_t prefix = 0;
  std::uint8_t depth = 0;  // nibbles, 0..16
  std::uint64_t bytes_max = 0;
  Digest digest;
  auto operator<=>(const StateWant&) const = default;
};
// All parts on the way to an object, so that one answer serves a first touch.
struct StatePath {
  std::uint64_t object = 0;
  std::uint8_t below = 0;  // nibbles; what is above them the asker holds
  bool with_root = false;
  auto operator<=>(const StatePath&) const = default;
};
struct StatePart {
  std::uint8_t kind = 0;
  std::uint64_t prefix = 0;
  std::uint8_t depth = 0;
  SharedBytes bytes;
};
inline constexpr std::size_t kStateWantsMax = 256;         // wants and paths of one FetchState
inline constexpr std::size_t kStateBytesMax = 1u << 20;    // bytes of the parts of one StateParts, and one part more
inline constexpr std::size_t kStatePartBytesMax = 65'536;  // of one part
inline constexpr std::size_t kStatePartsMax = 4'096;       // in one StateParts

// Executor to node: have that slot send me this of its snapshot of the stable checkpoint n. Node to that executor: the
// same, with a ticket of the node's.
struct FetchState {
  std::uint64_t ticket = 0;  // comes back with the answer; the sender's own
  SlotId source;
  Seq n;
  std::vector<StateWant> wants;
  std::vector<StatePath> paths;
};
// Source to node, and node to asker: as many of the parts as fit, in the order asked for. None: the source has them
// not, or is not to be reached. Every part is verified by the asker; a node only passes it on.
struct StateParts {
  std::uint64_t ticket = 0;
  std::vector<StatePart> parts;
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
                 Vote, Replies, FetchReplies, Wake, Suspect, EpochNotice, Join, SlotDead, StatusQuery, StatusReport,
                 FetchHeaders, Headers, Checkpoint, Stable, FetchOrder, OrderProof, ViewChangePtr, NewViewPtr, Progress,
                 VouchQuery, Vouched, Propose, Closings, ExecCheckpoint, FetchState, StateParts, ReplyDigests>;

struct Message {
  ServiceId service;
  Body body;
};

}  // namespace zz::agreement
