#include "agreement/certificates.hpp"

#include <algorithm>

namespace zz::agreement {

Refusal form_of(const std::vector<StableCertificate::Part>& quorum, std::uint32_t f) {
  const std::size_t nodes = 3 * std::size_t{f} + 1;
  const bool ascending = std::adjacent_find(quorum.begin(), quorum.end(), [](const auto& a, const auto& b) {
                           return a.signer >= b.signer;
                         }) == quorum.end();
  if (quorum.size() < 2 * std::size_t{f} + 1 || quorum.size() > nodes || !ascending) return Refusal::kMalformed;
  return quorum.back().signer.value < nodes ? Refusal::kNone : Refusal::kUnknownPeer;
}

Refusal form_of(const StableCertificate& certificate, ServiceId service, std::uint32_t f) {
  if (certificate.service != service) return Refusal::kUnknownService;
  if (certificate.state.n == Seq{}) return Refusal::kMalformed;
  return form_of(certificate.parts, f);
}

bool genuine(const crypto::ClusterFile& cluster, const StableCertificate& certificate) {
  return std::all_of(certificate.parts.begin(), certificate.parts.end(), [&](const StableCertificate::Part& part) {
    const Bytes fields = checkpoint_fields(cluster.id, certificate.service, part.signer, certificate.state);
    return crypto::verify(cluster.nodes[part.signer.value].key, fields, part.signature);
  });
}

}  // namespace zz::agreement
