#pragma once

// Authority: signs the ordering core's transferable messages as one node, and judges those of others: form first,
// then signatures (docs/protocol.md §3, §6, §7). What was found valid is remembered, so that a message which comes
// again, alone or inside another, costs a hash and no signature check.
//
// One thread; no time, no IO. At most kRememberedMax digests are held; the oldest go.
//
// What is checked of a message is everything that can be said without knowing where this node is: signers and
// services, bounds and order of lists, numbers inside (h, h + window], claims' views below the message's, certificates,
// signatures.
//
// Signature checks of one message: at most one for a CHECKPOINT or a complaint, 3f+1 for a certificate, one more for a
// VIEW-CHANGE and 3f+1 for its complaints, and for a NEW-VIEW one and those of its 3f+1 VIEW-CHANGEs, whose complaints
// matter no more. The first bad signature ends it, and a message's own comes first: what is inside costs nothing until
// its sender has signed for it.

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <utility>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"

namespace zz::agreement {

class Authority {
 public:
  static constexpr std::size_t kRememberedMax = 4'096;

  // `cluster` and `key` (this node's) must outlive it.
  Authority(const crypto::ClusterFile& cluster, ServiceId service, NodeId self, const crypto::SecretKey& key);

  // Fill in service, signer and signature.
  void sign(Checkpoint& message);
  void sign(ViewChange& message);
  void sign(NewView& message);
  [[nodiscard]] crypto::Signature sign_complaint(View view);

  // kUnknownService, kUnknownPeer, kMalformed, kOversize, kOutOfWindow or kBadSignature; cheap checks first.
  [[nodiscard]] Refusal check(const Checkpoint& message);
  // 2f+1 to 3f+1 parts, ascending signers, all signatures good.
  [[nodiscard]] Refusal check(const StableCertificate& certificate);
  // View above 0; P ascending and one per n; Q ascending by (n, digest); no digest zero, which would read as null;
  // views below the message's; the certificate; complaints none, or of 2f+1 to 3f+1 ascending signers.
  [[nodiscard]] Refusal check(const ViewChange& message);
  // Signer is the view's primary (kNotPrimary otherwise); every proof a valid VIEW-CHANGE for this view, ascending
  // signers; start and choice are what choose() makes of the proof (kConflict otherwise).
  [[nodiscard]] Refusal check(const NewView& message);
  [[nodiscard]] Refusal check_complaint(NodeId signer, View view, const crypto::Signature& signature);

  [[nodiscard]] const crypto::ClusterFile& cluster() const { return cluster_; }
  [[nodiscard]] NodeId primary_of(View view) const;  // (service + view) mod n
  // Signatures checked so far, good or bad.
  [[nodiscard]] std::uint64_t signature_checks() const { return signature_checks_; }

 private:
  [[nodiscard]] Refusal form_of(ServiceId service, NodeId signer) const;
  [[nodiscard]] Refusal form_of(const ViewChange& message) const;
  [[nodiscard]] Refusal form_of(const NewView& message) const;
  // All signatures are good. Require good form.
  [[nodiscard]] bool genuine(const StableCertificate& certificate);
  [[nodiscard]] bool genuine(const ViewChange& message);
  [[nodiscard]] bool verified(NodeId signer, const Bytes& fields, const crypto::Signature& signature);
  [[nodiscard]] crypto::Signature sign(const Bytes& fields);
  void remember(const Digest& signed_message);

  const crypto::ClusterFile& cluster_;
  ServiceId service_;
  NodeId self_;
  std::uint64_t first_primary_;  // of view 0
  const crypto::SecretKey& key_;
  // Digests of (signer, fields, signature) that are good. Ordered: nobody can choose messages that make look-ups slow.
  std::set<Digest> remembered_;
  std::deque<Digest> oldest_;  // the same, first in, first out
  std::optional<std::pair<View, crypto::Signature>> complaint_;  // the last one: it is said again with every PROGRESS
  std::uint64_t signature_checks_ = 0;
};

}  // namespace zz::agreement
