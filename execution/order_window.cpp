#include "execution/order_window.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/assert.hpp"

namespace zz::execution {

namespace {

// What the structs of one request cost besides its operation.
constexpr std::uint64_t kRequestOverheadBytes = 256;
constexpr std::uint64_t kBatchOverheadBytes = 512;

std::uint64_t cost_of(const agreement::Batch& batch) {
  std::uint64_t bytes = kBatchOverheadBytes + batch.header->system.size() * kRequestOverheadBytes;
  for (const agreement::RequestPtr& request : batch.requests) bytes += kRequestOverheadBytes + request->op.size();
  return bytes;
}

// The digests were computed from the bodies that came, so equal references mean the right bodies.
bool bodies_fit(const agreement::Batch& batch) {
  const auto& references = batch.header->references;
  if (batch.requests.size() != references.size()) return false;
  for (std::size_t i = 0; i < references.size(); ++i) {
    if (!batch.requests[i] || agreement::reference_of(*batch.requests[i]) != references[i]) return false;
  }
  return true;
}

}  // namespace

OrderWindow::OrderWindow(const Options& options) : options_(options), slots_(kOrderWindow) {}

OrderWindow::Noted OrderWindow::note(NodeId from, Seq n, const Digest& digest, Micros now) {
  ZZ_ASSERT(from.value < 32);
  if (n < next_) return {Refusal::kDuplicate, {}};
  if (beyond(n)) return {Refusal::kOutOfWindow, {}};
  heard_ = std::max(heard_, n);
  Slot& s = slot(n);
  const std::uint32_t bit = std::uint32_t{1} << from.value;
  if ((s.nodes & bit) != 0) {
    // Said before. After the decision who said what is forgotten, and no longer matters.
    if (s.decided) return {s.digest == digest ? Refusal::kDuplicate : Refusal::kConflict, {}};
    for (const Candidate& candidate : s.candidates) {
      if ((candidate.nodes & bit) != 0)
        return {candidate.digest == digest ? Refusal::kDuplicate : Refusal::kConflict, {}};
    }
  }
  s.nodes |= bit;
  if (s.decided) return {s.digest == digest ? Refusal::kNone : Refusal::kConflict, {}};
  auto candidate =
      std::find_if(s.candidates.begin(), s.candidates.end(), [&](const Candidate& c) { return c.digest == digest; });
  if (candidate == s.candidates.end()) candidate = s.candidates.insert(candidate, Candidate{digest, 0});
  candidate->nodes |= bit;
  if (std::popcount(candidate->nodes) <= static_cast<int>(options_.f)) return {};
  decide(s, digest);
  s.decided_at = now;
  if (!s.held || s.batch.digest == digest) return {};
  const NodeId liar = s.holder;
  release(s);
  return {Refusal::kNone, liar};
}

void OrderWindow::decide(Slot& s, const Digest& digest) {
  s.decided = true;
  s.digest = digest;
  s.candidates.clear();
  if (s.held) undecided_bytes_ -= s.bytes;
}

Refusal OrderWindow::hold(NodeId from, agreement::Batch batch) {
  if (!batch.header) return Refusal::kMalformed;
  const Seq n = batch.header->n;
  if (n < next_) return Refusal::kDuplicate;
  if (beyond(n)) return Refusal::kOutOfWindow;
  Slot& s = slot(n);
  if (s.held && (s.decided || s.batch.digest == batch.digest)) return Refusal::kDuplicate;
  if (s.decided && s.digest != batch.digest) return Refusal::kConflict;
  if (!bodies_fit(batch)) return Refusal::kConflict;
  const std::uint64_t bytes = cost_of(batch);
  if (s.held) release(s);  // another node's word, equally undecided: the newer bearer is believed
  if (n != next_) {
    if (held_bytes_ + bytes > options_.held_bytes_max) return Refusal::kQueueFull;
    if (!s.decided && undecided_bytes_ + bytes > options_.held_bytes_max / 4) return Refusal::kQueueFull;
  }
  s.held = true;
  s.holder = from;
  s.batch = std::move(batch);
  s.bytes = bytes;
  held_bytes_ += bytes;
  if (!s.decided) undecided_bytes_ += bytes;
  return Refusal::kNone;
}

void OrderWindow::release(Slot& s) {
  held_bytes_ -= s.bytes;
  if (!s.decided) undecided_bytes_ -= s.bytes;
  s.held = false;
  s.batch = agreement::Batch{};
  s.bytes = 0;
}

void OrderWindow::forget_undecided_of(NodeId from) {
  if (undecided_bytes_ == 0) return;
  for (Slot& s : slots_) {
    if (s.held && !s.decided && s.holder == from) release(s);
  }
}

bool OrderWindow::heard(NodeId from, Seq n) const {
  ZZ_ASSERT(from.value < 32);
  return (slot(n).nodes >> from.value & 1U) != 0;
}

agreement::Batch OrderWindow::take() {
  ZZ_ASSERT(runnable());
  Slot& s = slot(next_);
  agreement::Batch out = std::move(s.batch);
  clear(s);
  next_ = next_.next();
  return out;
}

void OrderWindow::clear(Slot& s) {
  if (s.held) release(s);
  s.candidates.clear();
  s.nodes = 0;
  s.decided = false;
}

void OrderWindow::go_to(Seq next) {
  // Backwards, places have another meaning.
  const std::uint64_t passed = next < next_ ? kOrderWindow : std::min(next.value - next_.value, kOrderWindow);
  for (std::uint64_t i = 0; i < passed; ++i) clear(slot(Seq{next_.value + i}));
  next_ = next;
}

}  // namespace zz::execution
