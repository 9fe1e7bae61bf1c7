#include "agreement/authority.hpp"

#include <algorithm>
#include <tuple>

#include "agreement/certificates.hpp"
#include "agreement/view_change.hpp"
#include "crypto/digest.hpp"

namespace zz::agreement {
namespace {

Digest digest_of(NodeId signer, const Bytes& fields, const crypto::Signature& signature) {
  crypto::DigestWriter out("zz verified");
  out.id(signer).bytes(fields).bytes(signature.bytes);
  return out.finish();
}

// What holds of every claim in a VIEW-CHANGE, whatever list it is in.
Refusal claim_form(const Claim& claim, Seq stable, std::uint32_t window, View view) {
  if (claim.digest.is_zero() || claim.view >= view) return Refusal::kMalformed;
  if (claim.n <= stable || claim.n.value - stable.value > window) return Refusal::kOutOfWindow;
  return Refusal::kNone;
}

template <class List, class Key>
bool strictly_ascending(const List& list, Key key) {
  return std::adjacent_find(list.begin(), list.end(),
                            [key](const auto& a, const auto& b) { return !(key(a) < key(b)); }) == list.end();
}

}  // namespace

Authority::Authority(const crypto::ClusterFile& cluster, ServiceId service, NodeId self, const crypto::SecretKey& key)
    : cluster_(cluster), service_(service), self_(self), first_primary_(service.value % cluster.n()), key_(key) {}

NodeId Authority::primary_of(View view) const {
  const std::uint64_t n = cluster_.n();
  const std::uint64_t sum = first_primary_ + view.value % n;  // any view: no wrap-around
  return NodeId{static_cast<std::uint16_t>(sum < n ? sum : sum - n)};
}

void Authority::sign(Checkpoint& message) {
  message.service = service_;
  message.signer = self_;
  message.signature = sign(checkpoint_fields(cluster_.id, service_, self_, message.state));
}

void Authority::sign(ViewChange& message) {
  message.service = service_;
  message.signer = self_;
  message.signature = sign(view_change_fields(cluster_.id, message));
}

void Authority::sign(NewView& message) {
  message.service = service_;
  message.signer = self_;
  message.signature = sign(new_view_fields(cluster_.id, message));
}

crypto::Signature Authority::sign_complaint(View view) {
  if (!complaint_ || complaint_->first != view) {
    complaint_.emplace(view, sign(complaint_fields(cluster_.id, service_, self_, view)));
  }
  return complaint_->second;
}

Refusal Authority::check(const Checkpoint& message) {
  if (const Refusal form = form_of(message.service, message.signer); form != Refusal::kNone) return form;
  if (message.state.n == Seq{}) return Refusal::kMalformed;
  const Bytes fields = checkpoint_fields(cluster_.id, service_, message.signer, message.state);
  return verified(message.signer, fields, message.signature) ? Refusal::kNone : Refusal::kBadSignature;
}

Refusal Authority::check(const StableCertificate& certificate) {
  if (const Refusal form = agreement::form_of(certificate, service_, cluster_.f); form != Refusal::kNone) return form;
  return genuine(certificate) ? Refusal::kNone : Refusal::kBadSignature;
}

Refusal Authority::check(const ViewChange& message) {
  if (const Refusal form = form_of(message); form != Refusal::kNone) return form;
  if (!genuine(message)) return Refusal::kBadSignature;
  for (const StableCertificate::Part& part : message.complaints) {
    const Refusal refusal = check_complaint(part.signer, View{message.view.value - 1}, part.signature);
    if (refusal != Refusal::kNone) return refusal;
  }
  return Refusal::kNone;
}

Refusal Authority::check_complaint(NodeId signer, View view, const crypto::Signature& signature) {
  if (const Refusal form = form_of(service_, signer); form != Refusal::kNone) return form;
  const Bytes fields = complaint_fields(cluster_.id, service_, signer, view);
  return verified(signer, fields, signature) ? Refusal::kNone : Refusal::kBadSignature;
}

Refusal Authority::check(const NewView& message) {
  if (const Refusal form = form_of(message); form != Refusal::kNone) return form;
  const Bytes fields = new_view_fields(cluster_.id, message);
  if (!verified(message.signer, fields, message.signature)) return Refusal::kBadSignature;
  // A wrong choice is refused before anything is spent on the signatures inside.
  const std::optional<NewViewChoice> choice = choose(cluster_.f, cluster_.limits.window_batches, message.proof);
  if (!choice || stable_n(choice->stable) != message.start || choice->chosen != message.chosen) {
    return Refusal::kConflict;
  }
  const bool good =
      std::all_of(message.proof.begin(), message.proof.end(), [this](const auto& part) { return genuine(*part); });
  return good ? Refusal::kNone : Refusal::kBadSignature;
}

Refusal Authority::form_of(ServiceId service, NodeId signer) const {
  if (service != service_) return Refusal::kUnknownService;
  if (signer.value >= cluster_.n()) return Refusal::kUnknownPeer;
  return Refusal::kNone;
}

Refusal Authority::form_of(const ViewChange& message) const {
  if (const Refusal form = form_of(message.service, message.signer); form != Refusal::kNone) return form;
  if (message.view == View{}) return Refusal::kMalformed;
  if (message.prepared.size() > kClaimsMax || message.pre_prepared.size() > kClaimsMax) return Refusal::kOversize;
  if (message.stable) {
    const Refusal form = agreement::form_of(*message.stable, service_, cluster_.f);
    if (form != Refusal::kNone) return form;
  }
  if (!message.complaints.empty()) {
    if (const Refusal form = agreement::form_of(message.complaints, cluster_.f); form != Refusal::kNone) return form;
  }
  if (!strictly_ascending(message.prepared, [](const Claim& c) { return c.n; }) ||
      !strictly_ascending(message.pre_prepared, [](const Claim& c) { return std::tie(c.n, c.digest); })) {
    return Refusal::kMalformed;
  }
  for (const std::vector<Claim>* claims : {&message.prepared, &message.pre_prepared}) {
    for (const Claim& claim : *claims) {
      const Refusal form = claim_form(claim, stable_n(message.stable), cluster_.limits.window_batches, message.view);
      if (form != Refusal::kNone) return form;
    }
  }
  return Refusal::kNone;
}

Refusal Authority::form_of(const NewView& message) const {
  if (const Refusal form = form_of(message.service, message.signer); form != Refusal::kNone) return form;
  if (message.view == View{}) return Refusal::kMalformed;
  if (message.signer != primary_of(message.view)) return Refusal::kNotPrimary;
  if (message.chosen.size() > cluster_.limits.window_batches) return Refusal::kOversize;
  const auto& proof = message.proof;
  if (proof.size() < 2 * cluster_.f + 1 || proof.size() > cluster_.n()) return Refusal::kMalformed;
  for (const ViewChangePtr& part : proof) {
    if (!part || part->view != message.view) return Refusal::kMalformed;
    if (const Refusal form = form_of(*part); form != Refusal::kNone) return form;
  }
  const bool ascending = strictly_ascending(proof, [](const ViewChangePtr& part) { return part->signer; });
  return ascending ? Refusal::kNone : Refusal::kMalformed;
}

bool Authority::genuine(const StableCertificate& certificate) {
  return std::all_of(certificate.parts.begin(), certificate.parts.end(), [&](const StableCertificate::Part& part) {
    const Bytes fields = checkpoint_fields(cluster_.id, service_, part.signer, certificate.state);
    return verified(part.signer, fields, part.signature);
  });
}

// The certificate is judged each time, also of a VIEW-CHANGE that is remembered, whose signature does not cover its
// parts.
bool Authority::genuine(const ViewChange& message) {
  return verified(message.signer, view_change_fields(cluster_.id, message), message.signature) &&
         (!message.stable || genuine(*message.stable));
}

bool Authority::verified(NodeId signer, const Bytes& fields, const crypto::Signature& signature) {
  const Digest digest = digest_of(signer, fields, signature);
  if (remembered_.contains(digest)) return true;
  ++signature_checks_;
  if (!crypto::verify(cluster_.nodes[signer.value].key, fields, signature)) return false;
  remember(digest);
  return true;
}

crypto::Signature Authority::sign(const Bytes& fields) {
  const crypto::Signature signature = key_.sign(fields);
  remember(digest_of(self_, fields, signature));  // it comes back inside others' messages
  return signature;
}

void Authority::remember(const Digest& signed_message) {
  if (!remembered_.insert(signed_message).second) return;
  oldest_.push_back(signed_message);
  if (oldest_.size() <= kRememberedMax) return;
  remembered_.erase(oldest_.front());
  oldest_.pop_front();
}

}  // namespace zz::agreement
