#include "agreement/log_record.hpp"

#include <algorithm>
#include <tuple>

namespace zz::agreement {
namespace {

// A digest stands for one header and one list of bodies, so whatever record has them has the right ones.
void complete(HeaderPtr& header, std::vector<RequestPtr>& bodies, const HeaderPtr& other_header,
              const std::vector<RequestPtr>& other_bodies) {
  if (!header) header = other_header;
  if (bodies.size() < other_bodies.size()) bodies.resize(other_bodies.size());
  for (std::size_t i = 0; i < other_bodies.size(); ++i) {
    if (!bodies[i]) bodies[i] = other_bodies[i];
  }
}

bool is_complete(const OrderedRecord& record) {
  return record.header && record.requests.size() == record.header->references.size() &&
         std::find(record.requests.begin(), record.requests.end(), nullptr) == record.requests.end();
}

Seq newest(const std::map<Seq, CertificatePtr>& certificates) {
  return certificates.empty() ? Seq{} : certificates.rbegin()->first;
}

}  // namespace

void LogImage::apply(const LogRecord& record) {
  if (const auto* view = std::get_if<ViewRecord>(&record)) {
    if (view->view >= view_.view) view_ = *view;  // the view never goes back
  } else if (const auto* accepted = std::get_if<AcceptedRecord>(&record)) {
    if (accepted->n <= newest(certificates_)) return;
    AcceptedRecord& kept = accepted_.try_emplace({accepted->n, accepted->digest}, *accepted).first->second;
    kept.view = std::max(kept.view, accepted->view);
    complete(kept.header, kept.bodies, accepted->header, accepted->bodies);
  } else if (const auto* prepared = std::get_if<PreparedRecord>(&record)) {
    if (prepared->n <= newest(certificates_)) return;
    PreparedRecord& kept = prepared_.try_emplace(prepared->n, *prepared).first->second;
    if (prepared->view >= kept.view) kept = *prepared;
  } else if (const auto* ordered = std::get_if<OrderedRecord>(&record)) {
    OrderedRecord& kept = ordered_[ordered->n];
    kept = *ordered;
    const auto same = accepted_.find({kept.n, kept.digest});
    if (same != accepted_.end()) complete(kept.header, kept.requests, same->second.header, same->second.bodies);
  } else if (const auto* learner = std::get_if<LearnerRecord>(&record)) {
    learner_ = learner->learner;
  } else if (const CertificatePtr& stable = std::get<StableRecord>(record).certificate) {
    certificates_[stable->state.n] = stable;
    std::erase_if(accepted_, [&](const auto& item) { return item.first.first <= stable->state.n; });
    std::erase_if(prepared_, [&](const auto& item) { return item.first <= stable->state.n; });
  }
}

Recovered LogImage::recovered() const {
  Recovered out;
  out.view = view_;
  for (const auto& [n, certificate] : certificates_) out.certificates.push_back(certificate);
  if (!out.certificates.empty()) out.stable = out.certificates.back();
  out.learner = learner_;
  for (Seq n{1}; ordered_.contains(n) && is_complete(ordered_.at(n)); n = n.next()) {
    out.ordered.push_back(ordered_.at(n));
  }
  for (const auto& [key, record] : accepted_) {
    AcceptedRecord& added = out.accepted.emplace_back(record);
    const auto ordered = ordered_.find(added.n);
    if (ordered == ordered_.end() || ordered->second.digest != added.digest) continue;
    complete(added.header, added.bodies, ordered->second.header, ordered->second.requests);
  }
  std::sort(out.accepted.begin(), out.accepted.end(), [](const AcceptedRecord& a, const AcceptedRecord& b) {
    return std::tie(a.n, a.view, a.digest) < std::tie(b.n, b.view, b.digest);
  });
  for (const auto& [n, record] : prepared_) out.prepared.push_back(record);
  return out;
}

}  // namespace zz::agreement
