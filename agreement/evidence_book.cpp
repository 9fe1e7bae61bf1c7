#include "agreement/evidence_book.hpp"

#include <algorithm>
#include <utility>

namespace zz::agreement {

void EvidenceBook::open(const Delivery& batch, const OversightOutput::Difference& difference) {
  if (difference.epoch != epoch_) in_epoch_ = 0;
  epoch_ = difference.epoch;
  const std::vector<Reference>& references = batch.header->references;
  // Of batches that are long closed the number of replies was not looked at.
  const auto fits = [&](const auto& side) { return side.replies.size() == references.size(); };
  if (!std::all_of(difference.sides.begin(), difference.sides.end(), fits)) return;
  Case made;
  Evidence& evidence = made.evidence;
  for (std::size_t i = references.size(); i-- > 0;) {
    const auto differs = [&](const auto& side) { return side.replies[i] != difference.sides.front().replies[i]; };
    if (std::none_of(difference.sides.begin(), difference.sides.end(), differs)) continue;
    ++evidence.differing;
    made.index = static_cast<std::uint32_t>(i);
  }
  if (evidence.differing == 0 || cases_.size() >= kCasesMax || in_epoch_ >= kCasesPerEpoch) return;
  ++in_epoch_;
  made.since = now_;
  evidence.n = difference.n;
  evidence.epoch = difference.epoch;
  evidence.time = batch.time;
  evidence.hung = difference.hung;
  evidence.requests = static_cast<std::uint32_t>(references.size());
  evidence.reference = references[made.index];
  if (made.index < batch.requests.size()) evidence.request = batch.requests[made.index];
  const Reference& r = evidence.reference;
  for (const OversightOutput::Difference::Side& from : difference.sides) {
    const Digest& digest = from.replies[made.index];
    const auto same = std::find_if(evidence.sides.begin(), evidence.sides.end(),
                                   [&](const Evidence::Side& side) { return side.digest == digest; });
    const auto side =
        same != evidence.sides.end() ? same : evidence.sides.insert(same, Evidence::Side{{}, digest, false, {}});
    side->agrees = side->agrees || from.agrees;
    side->slots.insert(side->slots.end(), from.slots.begin(), from.slots.end());
    for (const auto& [slot, incarnation] : from.slots) {
      asks_.push_back({slot, incarnation, FetchReplies{difference.n, {{made.index, r.client, r.session, r.number}}}});
    }
  }
  cases_.push_back(std::move(made));
}

bool EvidenceBook::bodies(SlotId slot, Incarnation incarnation, const Replies& message) {
  bool of_a_dissenter = false;
  for (Case& one : cases_) {
    if (one.evidence.n != message.n) continue;
    for (const Replies::Item& item : message.items) {
      if (item.index != one.index) continue;
      const Digest digest = reply_digest(item.body.view());
      for (Evidence::Side& side : one.evidence.sides) {
        const auto mine = std::find(side.slots.begin(), side.slots.end(), std::pair(slot, incarnation));
        if (mine == side.slots.end()) continue;
        of_a_dissenter = of_a_dissenter || !side.agrees;
        if (!side.body && digest == side.digest) side.body = SharedBytes::copy(item.body.view());
      }
    }
  }
  std::erase_if(cases_, [this](const Case& one) {
    const auto& sides = one.evidence.sides;
    const bool heard = std::all_of(sides.begin(), sides.end(), [](const auto& side) { return side.body.has_value(); });
    if (heard) finish(one);
    return heard;
  });
  return of_a_dissenter;
}

void EvidenceBook::tick(Micros now) {
  now_ = now;
  std::erase_if(cases_, [this](const Case& one) {
    const bool over = now_.value - one.since.value >= kPatience.value;
    if (over) finish(one);
    return over;
  });
}

void EvidenceBook::finish(const Case& one) {
  if (done_.size() < kDoneMax) done_.push_back(one.evidence);
}

std::vector<EvidenceBook::Ask> EvidenceBook::take_asks() { return std::exchange(asks_, {}); }

std::vector<Evidence> EvidenceBook::take_done() { return std::exchange(done_, {}); }

}  // namespace zz::agreement
