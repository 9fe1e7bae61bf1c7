#pragma once

// The ordering part of the witness. Per correct node it keeps what the node has on disk, what it said, and what was
// sent to it; over all nodes the one order, what is committed, and who signed which checkpoint. One thread.

#include <map>
#include <set>
#include <vector>

#include "agreement/delivery.hpp"
#include "agreement/log_record.hpp"
#include "tests/sim/hooks.hpp"
#include "tests/sim/witness_ghost.hpp"

namespace zz::sim {

class AgreementWitness {
 public:
  // `ghost` must outlive it.
  explicit AgreementWitness(Ghost& ghost);

  void sent(const Parcel& parcel);  // by a node
  // On disk, of a correct node.
  void persisted(NodeId node, const agreement::LogRecord& record);
  // By a correct node. True when the order has grown by it; the reference run then fills in `results`.
  bool delivered(NodeId node, const agreement::Delivery& delivery);
  [[nodiscard]] GhostBatch& newest() { return order_.back(); }
  void restarted(NodeId node, bool amnesiac);

  [[nodiscard]] Seq top() const { return Seq{order_.size()}; }
  // A valid certificate that this node has seen covers n.
  [[nodiscard]] bool certified(NodeId node, Seq n) const { return n <= nodes_[node.value].certified; }
  // 2f+1 distinct signers, and the correct ones among them signed just this. (A faulty one could sign anything.)
  [[nodiscard]] bool valid(const agreement::CertificatePtr& certificate);

 private:
  enum class Word { kProposal, kPrepare, kCommit };

  // What a node stood for in one view.
  struct Own {
    View view;
    Digest digest;
    bool accepted = false;  // on disk
    bool prepared = false;  // on disk
  };
  // Votes that were sent to a node, equal in view and digest.
  struct Heard {
    View view;
    Digest digest;
    bool proposed = false;  // by the view's primary
    Mask prepares = 0;
    Mask commits = 0;
  };
  struct HeardAt {
    std::vector<Heard> votes;
    bool flooded = false;  // faulty nodes said more than is kept: they count as having said everything
  };
  struct Node {
    MessagePtr checked;  // the last message that was checked
    bool fresh = true;   // has delivered nothing in this life
    Seq delivered;       // last
    Seq ever_delivered;  // in any life
    Seq stable;          // on disk
    Seq certified;       // the highest valid certificate that it has seen
    View view;           // the highest it voted in or left for
    View view_on_disk;
    Seq order_on_disk;  // up to here
    View view_told;  // by PROGRESS
    ByNumber<std::vector<Own>> own;
    ByNumber<HeardAt> heard;
    std::map<View, agreement::ViewChangePtr> changes;  // its VIEW-CHANGEs on disk
    std::map<View, agreement::NewViewPtr> entered;     // the NEW-VIEWs it accepted, on disk
    std::set<View> left_for;                           // VIEW-CHANGE sent
  };
  // Correct nodes that sent COMMIT for this.
  struct Committed {
    View view;
    Digest digest;
    Mask by = 0;
  };
  struct SignedState {
    agreement::CheckpointState state;
    Mask by = 0;  // correct nodes
  };

  void hear(NodeId from, NodeId to, const agreement::Body& body);
  Heard* heard_at(NodeId from, NodeId to, View view, Seq n, const Digest& digest);
  void check(NodeId node, const agreement::Body& body);
  void check_order_words(NodeId node, const agreement::Body& body);

  void vote(NodeId node, Word word, View view, Seq n, const Digest& digest);
  Own* own_at(NodeId node, View view, Seq n, const Digest& digest);
  [[nodiscard]] bool proposed_to(NodeId node, View view, Seq n, const Digest& digest);
  [[nodiscard]] std::uint32_t count(NodeId node, Word word, View view, Seq n, const Digest& digest);
  [[nodiscard]] std::optional<Digest> chosen_for(NodeId node, View view, Seq n);
  [[nodiscard]] std::optional<Digest> chosen_by(const agreement::NewView& message, Seq n);
  void note_commit(NodeId node, View view, Seq n, const Digest& digest);
  [[nodiscard]] bool is_committed(const Committed& committed) const {
    return size_of(committed.by & ghost_.correct) >= ghost_.f + 1;
  }
  void survives(NodeId node, View view, Seq n, const Digest& digest);

  // witness_view_changes.cpp
  [[nodiscard]] static bool same(const agreement::ViewChange& a, const agreement::ViewChange& b);
  [[nodiscard]] static bool same(const agreement::NewView& a, const agreement::NewView& b);
  void view_change(NodeId node, const agreement::ViewChangePtr& message);
  void complete_claims(NodeId node, const agreement::ViewChange& message);
  void true_claims(NodeId node, const agreement::ViewChange& message);
  void new_view(NodeId node, const agreement::NewViewPtr& message);
  void judge(NodeId node, const agreement::NewView& message);
  void judge_choice(NodeId node, const agreement::NewView& message);

  void sign(NodeId node, const agreement::CheckpointState& state);
  void checkpoint(NodeId node, const agreement::Checkpoint& message);
  void certificate(NodeId node, const agreement::CertificatePtr& certificate);
  void note_own(NodeId node, const agreement::StableCertificate& certificate);
  void stable(NodeId node, const agreement::CertificatePtr& certificate);
  void said(NodeId node, Seq n, const Digest& digest);
  void prune();

  [[nodiscard]] Node& at_node(NodeId node) { return nodes_[node.value]; }
  [[nodiscard]] const Digest& null_digest(Seq n);
  [[nodiscard]] bool check_bodies(NodeId node, const agreement::Delivery& delivery);

  Ghost& ghost_;
  std::uint32_t quorum_;  // 2f+1
  std::vector<Node> nodes_;
  std::vector<GhostBatch> order_;  // [n - 1]
  std::map<Seq, Digest> told_;     // what correct nodes say is ordered beyond order_
  ByNumber<std::vector<Committed>> committed_;
  std::vector<agreement::NewViewPtr> views_;  // valid, that correct nodes sent or accepted
  std::map<Seq, SignedState> signed_;
  std::map<const agreement::StableCertificate*, agreement::CertificatePtr> valid_;
  std::map<Seq, Digest> nulls_;
  Seq highest_stable_;
  Seq lowest_stable_;
};

}  // namespace zz::sim
