#include "agreement/checkpoint_book.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/assert.hpp"

namespace zz::agreement {

CheckpointBook::CheckpointBook(const CheckpointRules& rules, ServiceId service, NodeId self, std::uint32_t f,
                               Authority& authority, Observer& observer)
    : rules_(rules),
      service_(service),
      self_(self),
      f_(f),
      authority_(authority),
      observer_(observer),
      clock_(rules),
      heard_of_(std::size_t{3} * f + 1) {
  ZZ_ASSERT(f > 0 && self.value < heard_of_.size() && rules.batches > 0);
}

void CheckpointBook::report(EventKind kind, Seq n, std::string_view why) const {
  observer_.on_event(Event{.kind = kind, .service = service_, .n = n, .node = self_, .why = why});
}

// ---- the order
// ---------------------------------------------------------------------------------------------------

bool CheckpointBook::delivered(Seq n, std::size_t requests, std::uint64_t bytes, const Digest& history,
                               const Digest& table) {
  ZZ_ASSERT(n == delivered_.next());
  delivered_ = n;
  const bool is_due = clock_.passed(requests, bytes);
  if (is_due && n > stable_n(stable_)) due_.emplace(n, Due{{n, history, {}, table, {}}});
  if (const auto before = heard_.find(n); before != heard_.end()) {
    for (const auto& [signer, message] : before->second) {
      if (is_other_order(message.state)) contradicted(signer, n);
    }
  }
  // Adopted before it was delivered here.
  if (!stable_ || n != stable_->state.n) return is_due;
  if (!is_due || stable_->state.history != history || stable_->state.table != table) {
    report(EventKind::kConflict, n, "the stable checkpoint contradicts what was delivered");
  }
  return is_due;
}

void CheckpointBook::settled(Seq n, const Digest& root) {
  ZZ_ASSERT(n <= delivered_);
  if (stable_ && n == stable_->state.n && stable_->state.root != root) {
    report(EventKind::kConflict, n, "the stable checkpoint contradicts what g+1 executors say");
  }
  const auto due = due_.find(n);
  if (due == due_.end()) return;
  if (!std::exchange(due->second.has_root, true)) due->second.state.root = root;
  if (const auto heard = heard_.find(n); heard != heard_.end()) {
    for (const auto& [signer, message] : heard->second) {
      if (has_other_root(message.state)) contradicted(signer, n);
    }
  }
  sign_ready();
}

void CheckpointBook::take_over_root(Due& due) {
  const auto heard = heard_.find(due.state.n);
  if (due.has_root || !due.closed || heard == heard_.end()) return;
  std::map<Digest, std::uint32_t> signers;
  for (const auto& [signer, message] : heard->second) {
    CheckpointState own = due.state;
    own.root = message.state.root;
    if (message.state != own || ++signers[own.root] <= f_) continue;
    due.state = own;
    due.has_root = true;
    out_.taken_over.push_back({own.n, own.root});
    return;
  }
}

void CheckpointBook::closed(Seq n, const Digest& vote_digest) {
  ZZ_ASSERT(n == results_through_.next() && n <= delivered_);
  results_through_ = n;
  results_ = results_digest(results_, vote_digest);
  const auto due = due_.find(n);
  if (due == due_.end()) return;
  due->second.state.results = results_;
  due->second.closed = true;
  take_over_root(due->second);
  sign_ready();
}

void CheckpointBook::sign_ready() {
  if (silent_) return;
  auto due = due_.begin();
  while (due != due_.end() && due->second.closed) {
    const Seq n = due->first;
    if (due->second.has_root && !std::exchange(due->second.is_signed, true)) {
      Checkpoint message;
      message.state = due->second.state;
      authority_.sign(message);
      out_.send.push_back(message);
      count(message);  // may make it stable
    }
    due = due_.upper_bound(n);
  }
}

void CheckpointBook::set_silent(bool silent) {
  silent_ = silent;
  sign_ready();
}

// ---- peers
// -------------------------------------------------------------------------------------------------------

Refusal CheckpointBook::step(NodeId from, const Checkpoint& message) {
  if (from.value >= heard_of_.size()) return Refusal::kUnknownPeer;
  if (from == self_ || message.signer != from) return Refusal::kNotAllowed;
  const Seq n = message.state.n;
  const Seq stable = stable_n(stable_);
  if (n <= stable) return Refusal::kDuplicate;
  if (n.value - stable.value > std::uint64_t{kPendingMax} * rules_.batches) return Refusal::kOutOfWindow;
  if (const auto at = heard_.find(n); at != heard_.end()) {
    if (const auto held = at->second.find(from); held != at->second.end()) {
      return held->second.state == message.state ? Refusal::kDuplicate : Refusal::kConflict;
    }
  }
  if (heard_of_[from.value] >= kPendingMax) return Refusal::kOutOfWindow;
  if (const Refusal why = authority_.check(message); why != Refusal::kNone) return why;
  count(message);
  if (const auto due = due_.find(n); due != due_.end()) {
    take_over_root(due->second);
    sign_ready();
  }
  return Refusal::kNone;
}

Refusal CheckpointBook::step(const CertificatePtr& certificate) {
  if (!certificate) return Refusal::kMalformed;
  if (certificate->state.n <= stable_n(stable_)) return Refusal::kDuplicate;
  if (const Refusal why = authority_.check(*certificate); why != Refusal::kNone) return why;
  return adopt(certificate);
}

void CheckpointBook::keep(const CertificatePtr& certificate) {
  if (step(certificate) != Refusal::kDuplicate || certificates_.contains(certificate->state.n)) return;
  if (authority_.check(*certificate) != Refusal::kNone) return;  // remembered: costs no signature checks
  certificates_.emplace(certificate->state.n, certificate);
}

void CheckpointBook::count(const Checkpoint& message) {
  std::map<NodeId, Checkpoint>& signers = heard_[message.state.n];
  signers.emplace(message.signer, message);
  ++heard_of_[message.signer.value];
  if (is_other_order(message.state) || has_other_root(message.state)) contradicted(message.signer, message.state.n);
  auto certificate = std::make_shared<StableCertificate>();
  certificate->service = service_;
  certificate->state = message.state;
  for (const auto& [signer, one] : signers) {
    if (one.state == message.state) certificate->parts.push_back({signer, one.signature});
  }
  if (certificate->parts.size() > std::size_t{2} * f_) static_cast<void>(adopt(std::move(certificate)));
}

// Where this node has not delivered yet, it cannot tell.
bool CheckpointBook::is_other_order(const CheckpointState& state) const {
  if (state.n > delivered_) return false;
  const auto due = due_.find(state.n);
  return due == due_.end() || due->second.state.history != state.history || due->second.state.table != state.table;
}

// Where this node knows none, it cannot tell.
bool CheckpointBook::has_other_root(const CheckpointState& state) const {
  const auto due = due_.find(state.n);
  return due != due_.end() && due->second.has_root && due->second.state.root != state.root;
}

bool CheckpointBook::contradicts(const CheckpointState& state) const {
  if (is_other_order(state) || has_other_root(state)) return true;
  const auto due = due_.find(state.n);
  return due != due_.end() && due->second.closed && due->second.state.results != state.results;
}

void CheckpointBook::contradicted(NodeId by, Seq n) {
  const std::uint32_t bit = std::uint32_t{1} << by.value;
  if ((contradictors_ & bit) != 0) return;
  contradictors_ |= bit;
  if (std::popcount(contradictors_) == static_cast<int>(f_ + 1)) {
    report(EventKind::kConflict, n, "f+1 nodes stand for another order than what was delivered");
  }
}

Refusal CheckpointBook::adopt(CertificatePtr certificate) {
  const Seq n = certificate->state.n;
  if (contradicts(certificate->state)) {
    report(EventKind::kConflict, n, "a stable certificate contradicts what was delivered");
    return Refusal::kConflict;
  }
  if (results_through_ < n) {
    results_through_ = n;
    results_ = certificate->state.results;
  }
  due_.erase(due_.begin(), due_.upper_bound(n));
  while (!heard_.empty() && heard_.begin()->first <= n) {
    for (const auto& [signer, message] : heard_.begin()->second) --heard_of_[signer.value];
    heard_.erase(heard_.begin());
  }
  stable_ = certificate;
  certificates_.emplace_hint(certificates_.end(), n, certificate);
  out_.stable = std::move(certificate);
  report(EventKind::kCheckpoint, n, {});
  return Refusal::kNone;
}

// ---- questions
// ---------------------------------------------------------------------------------------------------

std::vector<Checkpoint> CheckpointBook::own() const {
  std::vector<Checkpoint> out;
  for (const auto& [n, signers] : heard_) {
    if (const auto mine = signers.find(self_); mine != signers.end()) out.push_back(mine->second);
  }
  return out;
}

CertificatePtr CheckpointBook::covering(Seq n, std::uint64_t span) const {
  const auto found = certificates_.lower_bound(n);
  if (found == certificates_.end() || found->first.value - n.value >= span) {
    return found == certificates_.end() ? nullptr : found->second;
  }
  return std::prev(certificates_.lower_bound(Seq{n.value + span}))->second;
}

CheckpointOutput CheckpointBook::take_output() { return std::exchange(out_, {}); }

}  // namespace zz::agreement
