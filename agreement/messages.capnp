# The wire format between agreement nodes, executors, hosts and clients (docs/protocol.md).
#
# One channel message is one Cap'n Proto flat message of exactly one segment: the segment table (u32 0, u32 words)
# and the segment, nothing after it. Everything else is refused, and so is any value that a comment here forbids.
# agreement/codec_*.cpp and record_codec.cpp are the only readers and writers. The sender is the authenticated peer of the channel and is
# carried only in what is signed. No digest that the receiver can compute is carried. Unknown union members and
# enumerants are refused: a new one needs a new protocol version. Numbers are never reused.
#
# Digests are groups of four little-endian words: word 0 holds bytes 0..7 of the SHA-256 value. Lists of digests are
# one Data blob of 32 bytes each, lists of claims one of 48 bytes each (n, view: little-endian words; the digest), and
# lists of references hold no pointers: those are the lists with hundreds of entries. tests/agreement/codec_bench.cpp shows why: a blob decodes in about 1 ns an entry, a list of structs in some
# 20 ns, which is little next to the 60 ns that hashing a reference takes anyway.

@0xedfd1baa4047e8e0;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("zz::agreement::wire");

struct Message {
  service @0 :UInt16;  # which service's instance this is for, and the service of everything inside that names one;
                       # 0 for StatusQuery and StatusReport

  body :union {
    # Node to node.
    prePrepare @1 :PrePrepare;
    prepare @2 :Ballot;
    commit @3 :Ballot;
    fetchBodies @4 :FetchBodies;
    bodies @5 :Bodies;

    # Client and node.
    requests @6 :Requests;
    acks @7 :Acks;
    rejected @8 :Rejected;

    # Executor and node.
    subscribe @9 :Subscribe;
    orders @10 :Orders;
    batch @11 :Batch;
    vote @12 :Vote;
    replies @13 :Replies;
    fetchReplies @14 :FetchReplies;

    # Pool.
    wake @15 :Wake;
    suspect @16 :Suspect;
    epochNotice @17 :EpochNotice;
    join @18 :Join;
    slotDead @19 :SlotDead;

    # Operator.
    statusQuery @20 :Void;
    statusReport @21 :StatusReport;

    # Node to node, once more.
    fetchHeaders @22 :FetchHeaders;
    headers @23 :Headers;
    checkpoint @24 :Checkpoint;
    stable @25 :StableCertificate;
    fetchOrder @26 :FetchOrder;
    orderProof @27 :OrderProof;
    viewChange @28 :ViewChange;
    newView @29 :NewView;
    progress @30 :Progress;
    vouchQuery @31 :VouchQuery;
    vouched @32 :Vouched;
    propose @33 :SystemOperation;
    closings @34 :Closings;

    # Executor and node, once more; executors are sent `stable`, too.
    execCheckpoint @35 :ExecCheckpoint;
    fetchState @36 :FetchState;
    stateParts @37 :StateParts;
    replyDigests @38 :ReplyDigests;
  }
}

struct Record {
  # Not a message: what a node writes to its log, in the same framing (agreement/log_record.hpp).
  service @0 :UInt16;
  union {
    view @1 :ViewRecord;
    accepted @2 :AcceptedRecord;
    prepared @3 :Ballot;
    ordered @4 :Batch;
    stable @5 :StableCertificate;
    learner @6 :Bool;
  }
}

# ---- ordering ------------------------------------------------------------------------------------------------------

struct Reference {
  # Names a request without its body. Made by the node that vouches for it. Seven words, no pointer.
  client @0 :UInt32;   # identity number in the cluster file
  session @1 :UInt64;  # random, chosen by the client at its start
  number @2 :UInt64;   # per session, from 1, no gaps
  digest :group {      # of service, client, session, number, flags and op
    a @3 :UInt64;
    b @4 :UInt64;
    c @5 :UInt64;
    d @6 :UInt64;
  }
}

struct Header {
  # Content of a batch, made by the primary.
  n @0 :UInt64;                      # batch number, from 1
  time @1 :Int64;                    # agreed time, microseconds since 1970, strictly increasing over n
  references @2 :List(Reference);    # at most batch_requests_max
  system @3 :List(SystemOperation);  # at most 64; applied after the references
}

struct PrePrepare {
  # Primary to backups.
  view @0 :UInt64;
  header @1 :Header;
}

struct Ballot {
  # PREPARE and COMMIT, node to every node.
  view @0 :UInt64;
  n @1 :UInt64;
  digest :group {  # D of the header
    a @2 :UInt64;
    b @3 :UInt64;
    c @4 :UInt64;
    d @5 :UInt64;
  }
}

struct FetchBodies {
  # Backup to a node that stands for the batch.
  wanted @0 :List(Reference);  # at most batch_requests_max
}

struct Bodies {
  # Answer to FetchBodies.
  requests @0 :List(Request);  # at most batch_requests_max
}

struct Request {
  client @0 :UInt32;
  flags @1 :UInt32;  # must be 0
  session @2 :UInt64;
  number @3 :UInt64;
  op @4 :Data;  # at most op_bytes_max; set by the client, opaque to agreement
}

struct FetchHeaders {
  # Node to node.
  wanted @0 :Data;  # D of each, at most 1,024 of them
}

struct Headers {
  # Answer to FetchHeaders.
  headers @0 :List(Header);  # at most 16
}

struct VouchQuery {
  # Primary to backups: which of these did the client send you?
  references @0 :List(Reference);  # at most batch_requests_max
}

struct Vouched {
  # Backup to primary: I vouch for these.
  references @0 :List(Reference);  # at most batch_requests_max
}

# ---- checkpoints ---------------------------------------------------------------------------------------------------

struct CheckpointState {
  n @0 :UInt64;
  history :group {  # H_n
    a @1 :UInt64;
    b @2 :UInt64;
    c @3 :UInt64;
    d @4 :UInt64;
  }
  results :group {  # R_n
    a @5 :UInt64;
    b @6 :UInt64;
    c @7 :UInt64;
    d @8 :UInt64;
  }
  table :group {  # of the slot table after n
    a @9 :UInt64;
    b @10 :UInt64;
    c @11 :UInt64;
    d @12 :UInt64;
  }
  root :group {  # S_n
    a @13 :UInt64;
    b @14 :UInt64;
    c @15 :UInt64;
    d @16 :UInt64;
  }
}

struct Checkpoint {
  # Node to every node, signed by node `signer` over the state and the service.
  signer @0 :UInt16;
  state @1 :CheckpointState;
  signature @2 :Data;  # Ed25519, 64 bytes
}

struct StableCertificate {
  # Signatures of distinct nodes over one state. As a message: my newest stable checkpoint.
  state @0 :CheckpointState;
  parts @1 :List(Part);  # at most 16

  struct Part {
    signer @0 :UInt16;
    signature @1 :Data;  # Ed25519, 64 bytes
  }
}

struct FetchOrder {
  # Node to node.
  from @0 :UInt64;  # first batch number wanted
}

struct OrderProof {
  # Answer to FetchOrder.
  certificate @0 :StableCertificate;
  from @1 :UInt64;
  digests @2 :Data;  # D of from, from + 1, ... up to the certificate's n, at most 1,024 of them
}

# ---- view change ---------------------------------------------------------------------------------------------------

struct ViewChange {
  # Node to every node, signed by node `signer`.
  signer @0 :UInt16;
  view @1 :UInt64;
  stable @2 :StableCertificate;  # absent: none yet
  prepared @3 :Data;             # claims, at most 1,024 of them
  prePrepared @4 :Data;          # claims, at most 1,024 of them
  signature @5 :Data;            # Ed25519, 64 bytes
  complaints @6 :List(StableCertificate.Part);  # of view - 1; at most 16, not covered by the signature
}

struct NewView {
  # The new primary to every node, signed by node `signer`.
  signer @0 :UInt16;
  view @1 :UInt64;
  proof @2 :List(ViewChange);  # at most 16
  start @3 :UInt64;
  chosen @4 :Data;     # D of start + 1, start + 2, ..., zero for null; at most 1,024 of them
  signature @5 :Data;  # Ed25519, 64 bytes
}

struct Progress {
  # Node to every node: where I am.
  view @0 :UInt64;
  changing @1 :Bool;
  delivered @2 :UInt64;
  stable @3 :UInt64;
  complains @4 :Bool;  # it would leave the view if 2f others would
  settled @5 :UInt64;  # up to here nothing is to be voted on any more in this view
  closed @6 :UInt64;   # every batch up to here is closed, or presumed so
  complaint @7 :Data;  # Ed25519, 64 bytes; empty unless it complains
}

struct Closings {
  # Node to a node that does not get on with closing: how firstN, firstN + 1, ... are closed here.
  firstN @0 :UInt64;
  digests @1 :Data;  # vote digest of each, zero where it is not known; 32 bytes each, at most 256 of them
}

# ---- client --------------------------------------------------------------------------------------------------------

struct Requests {
  # Client to every node, of one session. Sending an item again asks for its answer.
  session @0 :UInt64;
  items @1 :List(Item);  # at most batch_requests_max

  struct Item {
    number @0 :UInt64;
    flags @1 :UInt32;  # must be 0
    op @2 :Data;       # at most op_bytes_max
  }
}

struct Acks {
  # Node to client: these numbers are closed with these reply digests.
  session @0 :UInt64;
  items @1 :List(Item);  # at most batch_requests_max

  struct Item {
    number @0 :UInt64;
    digest :group {  # of the reply body
      a @1 :UInt64;
      b @2 :UInt64;
      c @3 :UInt64;
      d @4 :UInt64;
    }
    hasBody @5 :Bool;  # an empty body is a body
    body @6 :Data;     # at most op_bytes_max; absent unless hasBody
  }
}

struct Rejected {
  # Node to client: not taken.
  session @0 :UInt64;
  number @1 :UInt64;
  reason @2 :UInt8;  # number of a reason in base/refusal.hpp; never 0
}

# ---- execution -----------------------------------------------------------------------------------------------------

struct Subscribe {
  # Executor to node; replaces any earlier one of the channel.
  from @0 :UInt64;   # first batch number wanted
  bearer @1 :Bool;   # this node shall send batches too
}

struct Orders {
  # Node to executor: firstN, firstN + 1, ... are committed with these digests.
  firstN @0 :UInt64;
  digests @1 :Data;  # D of each, 32 bytes each, at most orders_max of them
}

struct Batch {
  # Bearer to executor, and node to a node that is behind.
  header @0 :Header;
  bodies @1 :List(Body);  # exactly one per reference, in their order

  struct Body {
    # With its reference this is the whole request.
    flags @0 :UInt32;  # must be 0
    op @1 :Data;       # at most op_bytes_max
  }
}

struct Vote {
  # Executor to every node.
  epoch @0 :UInt64;        # as ordered before n
  n @1 :UInt64;
  slot @2 :UInt16;         # must be the channel's
  incarnation @3 :UInt64;  # must be the channel's
  replies @4 :Data;        # reply digest per reference, 32 bytes each, at most batch_requests_max
}

struct Replies {
  # Executor to node: reply bodies of one batch.
  n @0 :UInt64;
  items @1 :List(Item);  # at most batch_requests_max

  struct Item {
    index @0 :UInt32;  # into the batch's references, below batch_requests_max
    body @1 :Data;     # at most op_bytes_max
  }
}

struct FetchReplies {
  # Node to executor: send these bodies again.
  n @0 :UInt64;
  items @1 :List(Item);  # at most batch_requests_max
  digests @2 :Bool;      # not the bodies but their digests: REPLY-DIGESTS

  struct Item {
    index @0 :UInt32;  # into the batch's references, below batch_requests_max
    client @1 :UInt32;
    session @2 :UInt64;
    number @3 :UInt64;
  }
}

struct ReplyDigests {
  # Executor to node, when asked: how its session table says that these requests of one batch were answered.
  n @0 :UInt64;
  items @1 :List(Item);  # at most batch_requests_max

  struct Item {
    index @0 :UInt32;  # into the batch's references, below batch_requests_max
    digest :group {    # zero: the session table keeps it no longer
      a @1 :UInt64;
      b @2 :UInt64;
      c @3 :UInt64;
      d @4 :UInt64;
    }
  }
}

struct ExecCheckpoint {
  # Executor to every node, signed with the incarnation's key over its fields and the service.
  slot @0 :UInt16;         # must be the channel's
  incarnation @1 :UInt64;  # must be the channel's
  n @2 :UInt64;
  root :group {  # S_n
    a @3 :UInt64;
    b @4 :UInt64;
    c @5 :UInt64;
    d @6 :UInt64;
  }
  signature @7 :Data;  # Ed25519, 64 bytes
}

struct FetchState {
  # Executor to node, and node to the source.
  ticket @0 :UInt64;        # the sender's own; comes back with the answer
  source @1 :UInt16;        # the slot that is to answer
  n @2 :UInt64;             # a stable checkpoint
  wants @3 :List(Want);     # wants and paths: at most 256 in all
  paths @4 :List(Path);

  struct Want {
    kind @0 :UInt8;   # 0 root record, 1 inner node, 2 object
    depth @1 :UInt8;  # nibbles, at most 16
    prefix @2 :UInt64;
    bytesMax @3 :UInt64;
    digest :group {
      a @4 :UInt64;
      b @5 :UInt64;
      c @6 :UInt64;
      d @7 :UInt64;
    }
  }
  struct Path {
    # All parts on the way to an object.
    object @0 :UInt64;
    below @1 :UInt8;  # nibbles, at most 16
    withRoot @2 :Bool;
  }
}

struct StateParts {
  # Source to node, and node to the asker.
  ticket @0 :UInt64;
  parts @1 :List(Part);  # at most 4,096 of them and 1 MiB of bytes, and one part more

  struct Part {
    kind @0 :UInt8;   # as in Want
    depth @1 :UInt8;  # nibbles, at most 16
    prefix @2 :UInt64;
    bytes @3 :Data;   # at most 64 KiB
  }
}

# ---- system operations and the pool --------------------------------------------------------------------------------

enum Suspicion {
  wrong @0;    # voted otherwise than g+1 equal votes
  late @1;     # no vote in time, or gone
  surplus @2;  # awake, blameless and not needed
}

struct Suspect {
  # Signed by node `signer` over its fields and the service.
  signer @0 :UInt16;
  slot @1 :UInt16;
  why @2 :Suspicion;
  epoch @3 :UInt64;           # current epoch at the signer
  incarnation @4 :UInt64;
  n @5 :UInt64;               # the batch that showed it
  agreeing @6 :List(UInt16);  # ascending slots whose vote for n equals the g+1; at most slots_max
  signature @7 :Data;         # Ed25519, 64 bytes
}

struct EpochChange {
  epoch @0 :UInt64;             # the new one
  active @1 :List(UInt16);      # ascending slots, at most slots_max
  evicted @2 :List(UInt16);     # ascending slots, at most slots_max
  proof @3 :List(Suspect);      # at most 176: each of 16 nodes about each of 11 slots
}

struct Join {
  # Signed by the slot's host over its fields and the service.
  slot @0 :UInt16;
  incarnation @1 :UInt64;
  key @2 :Data;        # Ed25519 public key of the incarnation, 32 bytes
  signature @3 :Data;  # Ed25519, 64 bytes
}

struct SystemOperation {
  union {
    epochChange @0 :EpochChange;
    join @1 :Join;
  }
}

struct Wake {
  # Node to the host of a sleeping slot, signed by node `signer` over its fields and the service.
  signer @0 :UInt16;
  slot @1 :UInt16;
  sign @2 :UInt8;      # what was seen (agreement/oversight.hpp), for people
  epoch @3 :UInt64;
  incarnation @4 :UInt64;
  n @5 :UInt64;
  signature @6 :Data;  # Ed25519, 64 bytes
}

struct EpochNotice {
  # Node to host: the ordered slot table. Both lists of incarnations have one entry per slot.
  epoch @0 :UInt64;
  n @1 :UInt64;                     # the batch that carried the last change
  active @2 :List(UInt16);          # ascending slots, at most slots_max
  incarnations @3 :List(UInt64);    # the current one; 0: none joined
  evictedThrough @4 :List(UInt64);  # this and all before it are to be destroyed
}

struct SlotDead {
  # Host to every node: an incarnation's processes or virtual machine ended.
  slot @0 :UInt16;
  incarnation @1 :UInt64;
}

# ---- operator ------------------------------------------------------------------------------------------------------

struct StatusReport {
  json @0 :Data;  # one JSON object in UTF-8, at most status_bytes_max
}

# ---- the log of a node ---------------------------------------------------------------------------------------------

struct ViewRecord {
  view @0 :UInt64;
  changing @1 :Bool;
  sent @2 :ViewChange;   # absent: none
  accepted @3 :NewView;  # absent: none
}

struct AcceptedRecord {
  # This node stood for the batch in that view.
  ballot @0 :Ballot;
  header @1 :Header;      # with n and D as in the ballot; absent: in another record
  bodies @2 :List(Item);  # those at hand; none without a header

  struct Item {
    index @0 :UInt32;  # into the header's references, ascending
    flags @1 :UInt32;  # must be 0
    op @2 :Data;       # at most op_bytes_max
  }
}
