#include "tests/sim/sanitise.hpp"

#include <algorithm>

namespace zz::sim {

namespace {

using namespace agreement;

constexpr std::size_t kOrdersMax = 4'096;
constexpr std::size_t kHeadersMax = 16;

struct Wire {
  const crypto::ClusterFile& cluster;
  ServiceId service;

  [[nodiscard]] bool header(const HeaderPtr& h) const {
    return h && h->references.size() <= cluster.limits.batch_requests_max;
  }
  [[nodiscard]] bool bodies(std::vector<RequestPtr>& requests) const {
    if (requests.size() > cluster.limits.batch_requests_max) return false;
    for (RequestPtr& r : requests) {
      if (!r || r->op.size() > cluster.limits.op_bytes_max) return false;
      const Digest digest = request_digest(service, r->client, r->session, r->number, r->flags, r->op.view());
      if (digest == r->digest) continue;
      auto mended = std::make_shared<Request>(*r);
      mended->digest = digest;
      r = std::move(mended);
    }
    return true;
  }
  [[nodiscard]] static bool parts(const CertificatePtr& certificate) {
    return !certificate || certificate->parts.size() <= 3 * crypto::kFaultsMax + 1;
  }
  [[nodiscard]] static bool view_change(const ViewChangePtr& m) {
    return m && parts(m->stable) && m->prepared.size() <= kClaimsMax && m->pre_prepared.size() <= kClaimsMax;
  }

  bool operator()(PrePrepare& m) const {
    if (!header(m.header)) return false;
    m.digest = batch_digest(*m.header);
    return true;
  }
  bool operator()(Batch& m) const {
    if (!header(m.header)) return false;
    m.digest = batch_digest(*m.header);
    return bodies(m.requests);
  }
  bool operator()(Bodies& m) const { return bodies(m.requests); }
  bool operator()(Headers& m) const {
    return m.headers.size() <= kHeadersMax &&
           std::all_of(m.headers.begin(), m.headers.end(), [this](const HeaderPtr& h) { return header(h); });
  }
  bool operator()(FetchBodies& m) const { return m.wanted.size() <= cluster.limits.batch_requests_max; }
  bool operator()(FetchHeaders& m) const { return m.wanted.size() <= kClaimsMax; }
  bool operator()(Orders& m) const { return m.digests.size() <= kOrdersMax; }
  bool operator()(Closings& m) const { return m.digests.size() <= kClosingsMax; }
  bool operator()(Stable& m) const { return m.certificate && parts(m.certificate); }
  bool operator()(OrderProof& m) const {
    return m.certificate && parts(m.certificate) && m.digests.size() <= kProofDigestsMax;
  }
  bool operator()(ViewChangePtr& m) const { return view_change(m); }
  bool operator()(NewViewPtr& m) const {
    return m && m->proof.size() <= 3 * crypto::kFaultsMax + 1 && m->chosen.size() <= kClaimsMax &&
           std::all_of(m->proof.begin(), m->proof.end(), [](const ViewChangePtr& v) { return view_change(v); });
  }
  bool operator()(FetchState& m) const { return m.wants.size() + m.paths.size() <= kStateWantsMax; }
  bool operator()(StateParts& m) const {
    std::size_t bytes = 0;
    for (const StatePart& part : m.parts) {
      if (part.bytes.size() > kStatePartBytesMax) return false;
      bytes += part.bytes.size();
    }
    return m.parts.size() <= kStatePartsMax && bytes <= kStateBytesMax + kStatePartBytesMax;
  }
  bool operator()(VouchQuery& m) const { return m.references.size() <= cluster.limits.batch_requests_max; }
  bool operator()(Vouched& m) const { return m.references.size() <= cluster.limits.batch_requests_max; }
  template <class Other>
  bool operator()(Other&) const {
    return true;
  }
};

}  // namespace

bool pass_the_wire(Message& message, const crypto::ClusterFile& cluster) {
  return std::visit(Wire{cluster, message.service}, message.body);
}

}  // namespace zz::sim
