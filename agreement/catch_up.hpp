#pragma once

// CatchUp: how a node that is behind the stable checkpoint gets the order it missed (docs/protocol.md §6). It asks one
// node after another for the digests up to a stable checkpoint, which the certificate's history proves, and for the
// batches, each of which its digest proves. Nothing is believed unproven, so f liars only cost time.
//
// One thread; time is handed in; no IO. Held: one proof (kProofDigestsMax digests) and no batches: they leave in order.
//
// Invariants:
//  1. Batches leave in order of n without holes, each with bodies that match a digest which a stable certificate
//     proves.
//  2. One proof per question and node asked is looked at, so signature checks are bounded by what this node asks.
//  3. Whoever is asked for the same batches may still answer after the next one was asked: a slow network is no liar.
//  4. A node that answers wrongly is left at once, a silent one after `patience`, one that drips after kDripPatiences;
//     one whose whole answer took longer than `patience` is not asked again while there are others.

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "agreement/authority.hpp"
#include "agreement/messages.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

struct CatchUpOutput {
  std::vector<std::pair<NodeId, FetchOrder>> ask;
  std::vector<Batch> batches;  // proven, n = delivered + 1, + 2, ...
};

class CatchUp {
 public:
  // This many batches behind the stable checkpoint nothing that is under way can help.
  static constexpr std::uint64_t kFar = 64;
  // One answer may take this many times the patience in all.
  static constexpr std::int64_t kDripPatiences = 4;

  // `authority` must outlive it.
  CatchUp(NodeId self, std::uint32_t nodes, Micros patience, Authority& authority);

  // Monotonic time now. Asks when this node has been behind `stable` without delivering anything for a fifth of
  // `patience` (the normal path may be just about to bring it), or at once when it is more than kFar batches behind or
  // an answer was not enough; asks the next node when the one asked brings nothing for `patience`.
  void tick(Micros now);
  // Where this node is, and the newest stable checkpoint it knows of. Batches that were taken out are delivered, or
  // known already, before the next call.
  void at(Seq delivered, const Digest& history, Seq stable);

  // kNotReady: this node was not asked, or has answered; kConflict: the certificate does not prove these digests.
  Refusal step(NodeId from, const OrderProof& proof);
  // kNotReady when nothing is expected; kOutOfWindow when it is not its turn; kConflict when it is not what was proven.
  Refusal step(NodeId from, const Batch& batch);

  [[nodiscard]] CatchUpOutput take_output();
  [[nodiscard]] bool active() const { return active_; }

 private:
  // What was asked for last.
  struct Question {
    Seq from;
    Digest history;           // H of the batch before
    std::uint32_t nodes = 0;  // bit per node that was asked exactly this and has not answered
    Micros asked_at;
    Micros progress_at;
    std::uint64_t bytes = 0;  // of batches brought since asked
    bool failed = false;      // the source has lied
    bool answered = false;    // whole: as much as one answer holds, or all that was proven
  };

  void ask(bool someone_else);
  void reach(Seq n, const Digest& history);

  NodeId self_;
  std::uint32_t nodes_;
  Micros patience_;
  Authority& authority_;

  Micros now_;
  Seq stable_;
  Seq reached_;     // the last batch delivered or given out
  Digest history_;  // H of it
  bool active_ = false;
  std::optional<Micros> behind_since_;  // and nothing was delivered since
  NodeId source_;
  std::optional<Question> question_;
  std::deque<Digest> proven_;  // D of reached + 1, ...
  CatchUpOutput out_;
};

// What a node answers to FETCH-ORDER, at most: the asker reckons with it. Charged for every batch: answer_cost().
inline constexpr std::uint64_t kAnswerBytesMax = 8u << 20;
std::uint64_t answer_cost(const BatchHeader& header, const std::vector<RequestPtr>& requests);

// The order from the lowest stable checkpoint that this node has at or above `from`. Nothing when it has none, or only
// one more than kProofDigestsMax away, or has not delivered up to it. Batches until they cost bytes_max, but one at
// least.
class OrderLog;
class CheckpointBook;
std::vector<Body> answer_fetch_order(const OrderLog& log, const CheckpointBook& book, const FetchOrder& wish,
                                     std::uint64_t bytes_max);

}  // namespace zz::agreement
