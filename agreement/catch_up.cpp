#include "agreement/catch_up.hpp"

#include <algorithm>

#include "agreement/checkpoint_book.hpp"
#include "agreement/order_log.hpp"
#include "base/assert.hpp"

namespace zz::agreement {
namespace {

constexpr std::uint64_t kBatchCost = 256;
constexpr std::uint64_t kRequestCost = 128;
constexpr std::uint64_t kSystemOpCost = 4'096;

// Both digests were computed from what came: equal ones mean the proven header and the referenced bodies.
bool is_what_was_proven(const Batch& batch, const Digest& proven) {
  const std::vector<Reference>& references = batch.header->references;
  if (batch.digest != proven || batch.requests.size() != references.size()) return false;
  return std::equal(references.begin(), references.end(), batch.requests.begin(),
                    [](const Reference& reference, const RequestPtr& request) {
                      return request != nullptr && reference_of(*request) == reference;
                    });
}

}  // namespace

CatchUp::CatchUp(NodeId self, std::uint32_t nodes, Micros patience, Authority& authority)
    : self_(self), nodes_(nodes), patience_(patience), authority_(authority), source_(self) {
  ZZ_ASSERT(nodes > 1 && nodes <= 32 && self.value < nodes && patience.value > 0);
}

void CatchUp::at(Seq delivered, const Digest& history, Seq stable) {
  stable_ = std::max(stable_, stable);
  if (delivered > reached_) {
    behind_since_.reset();
    reach(delivered, history);
  }
  if (reached_ < stable_) return;
  active_ = false;
  behind_since_.reset();
  question_.reset();
}

// What was proven and is no longer needed goes.
void CatchUp::reach(Seq n, const Digest& history) {
  const std::uint64_t steps = n.value - reached_.value;
  proven_.erase(proven_.begin(), proven_.begin() + static_cast<std::ptrdiff_t>(std::min(steps, proven_.size())));
  reached_ = n;
  history_ = history;
}

void CatchUp::tick(Micros now) {
  now_ = now;
  if (reached_ >= stable_) return;
  if (!behind_since_) behind_since_ = now;
  const auto passed = [now](Micros since, std::int64_t span) { return now.value - since.value >= span; };
  if (question_) {
    const bool given_up = question_->failed || passed(question_->progress_at, patience_.value) ||
                          passed(question_->asked_at, kDripPatiences * patience_.value);
    if (question_->answered) {
      ask(passed(question_->asked_at, patience_.value));  // who took long is left for a quicker one
    } else if (given_up) {
      ask(true);
    }
    return;
  }
  const bool far = stable_.value - reached_.value > kFar;
  if (active_ || far || passed(*behind_since_, patience_.value / 5)) ask(source_ == self_);
}

void CatchUp::ask(bool someone_else) {
  active_ = true;
  while (someone_else || source_ == self_) {
    source_ = NodeId{static_cast<std::uint16_t>((source_.value + 1u) % nodes_)};
    someone_else = false;
  }
  const Seq from = reached_.next();
  const std::uint32_t others = question_ && question_->from == from ? question_->nodes : 0;
  const std::uint32_t bit = std::uint32_t{1} << source_.value;
  question_ = Question{.from = from, .history = history_, .nodes = others | bit, .asked_at = now_, .progress_at = now_};
  out_.ask.emplace_back(source_, FetchOrder{from});
}

Refusal CatchUp::step(NodeId from, const OrderProof& proof) {
  if (from.value >= nodes_) return Refusal::kUnknownPeer;
  const std::uint32_t bit = std::uint32_t{1} << from.value;
  if (!question_ || (question_->nodes & bit) == 0 || proof.from != question_->from) return Refusal::kNotReady;
  question_->nodes &= ~bit;
  // From here on it is an answer: a wrong one is a lie, not a delay.
  Refusal why = Refusal::kNone;
  std::deque<Digest> proven;
  if (!proof.certificate || proof.digests.empty() || proof.digests.size() > kProofDigestsMax ||
      proof.certificate->state.n.value - proof.from.value != proof.digests.size() - 1) {
    why = Refusal::kMalformed;
  } else {
    Digest history = question_->history;
    for (const Digest& digest : proof.digests) history = history_digest(history, digest);
    why = history == proof.certificate->state.history ? authority_.check(*proof.certificate) : Refusal::kConflict;
  }
  if (why != Refusal::kNone) {
    if (from == source_) question_->failed = true;
    return why;
  }
  if (from == source_) question_->progress_at = now_;
  // Some of it may have come meanwhile.
  const std::uint64_t known = reached_.next().value - proof.from.value;
  if (proof.digests.size() > known + proven_.size()) {
    proven_.assign(proof.digests.begin() + static_cast<std::ptrdiff_t>(known), proof.digests.end());
  }
  return Refusal::kNone;
}

Refusal CatchUp::step(NodeId from, const Batch& batch) {
  if (from.value >= nodes_) return Refusal::kUnknownPeer;
  if (!batch.header) return Refusal::kMalformed;
  if (proven_.empty()) return Refusal::kNotReady;
  const Seq n = batch.header->n;
  if (n <= reached_) return Refusal::kDuplicate;
  if (n != reached_.next()) return Refusal::kOutOfWindow;
  if (!is_what_was_proven(batch, proven_.front())) {
    if (question_ && from == source_) question_->failed = true;
    return Refusal::kConflict;
  }
  out_.batches.push_back(batch);
  reach(n, history_digest(history_, batch.digest));
  if (!question_ || from != source_) return Refusal::kNone;
  question_->progress_at = now_;
  question_->bytes += answer_cost(*batch.header, batch.requests);
  question_->answered = proven_.empty() || question_->bytes >= kAnswerBytesMax;
  return Refusal::kNone;
}

CatchUpOutput CatchUp::take_output() { return std::exchange(out_, {}); }

std::uint64_t answer_cost(const BatchHeader& header, const std::vector<RequestPtr>& requests) {
  std::uint64_t cost = kBatchCost + requests.size() * kRequestCost + header.system.size() * kSystemOpCost;
  for (const RequestPtr& request : requests) cost += request->op.size();
  return cost;
}

std::vector<Body> answer_fetch_order(const OrderLog& log, const CheckpointBook& book, const FetchOrder& wish,
                                     std::uint64_t bytes_max) {
  if (wish.from.value == 0 || wish.from > log.last()) return {};
  const std::uint64_t known = log.last().value - wish.from.value + 1;
  const CertificatePtr certificate = book.covering(wish.from, std::min<std::uint64_t>(known, kProofDigestsMax));
  if (!certificate || certificate->state.n > log.last()) return {};
  const Seq end = certificate->state.n;
  if (end.value - wish.from.value >= kProofDigestsMax) return {};
  std::vector<Body> out;
  OrderProof proof{certificate, wish.from, {}};
  proof.digests.reserve(end.value - wish.from.value + 1);
  for (Seq n = wish.from; n <= end; n = n.next()) proof.digests.push_back(log.at(n).digest);
  out.emplace_back(std::move(proof));
  std::uint64_t cost = 0;
  for (Seq n = wish.from; n <= end && (n == wish.from || cost < bytes_max); n = n.next()) {
    const Delivery& batch = log.at(n);
    cost += answer_cost(*batch.header, batch.requests);
    out.emplace_back(Batch{batch.header, batch.digest, batch.requests});
  }
  return out;
}

}  // namespace zz::agreement
