#pragma once

// EvidenceBook: the replies that differed, so that people can see which bytes did (docs/protocol.md §11). When slots
// vote differently for a batch, it picks the first request that they answered differently, asks one slot after the
// other of each side for its reply, and gives out what it has once all sides have been heard or the patience is over.
//
// One thread; no clock, IO or randomness. Nothing depends on it: it decides nothing. Bounded: kCasesMax at a time,
// kCasesPerEpoch in an epoch, one body per side, as long as a frame permits. A body counts for a side only if it has
// the digest that the side voted for.

#include <optional>
#include <vector>

#include "agreement/delivery.hpp"
#include "agreement/messages.hpp"
#include "agreement/oversight.hpp"

namespace zz::agreement {

struct Evidence {
  Seq n;
  Epoch epoch;
  Micros time;                  // agreed
  bool hung = false;            // no g+1 slots agree
  std::uint32_t requests = 0;   // in the batch
  std::uint32_t differing = 0;  // so many of them were answered differently
  RequestPtr request;           // the first of these; null if its body is not at hand
  Reference reference;
  struct Side {
    std::vector<std::pair<SlotId, Incarnation>> slots;
    Digest digest;
    bool agrees = false;  // with g+1
    std::optional<SharedBytes> body;
  };
  std::vector<Side> sides;
};

class EvidenceBook {
 public:
  static constexpr std::size_t kCasesMax = 2;
  static constexpr std::uint32_t kCasesPerEpoch = 4;
  static constexpr std::size_t kDoneMax = 8;  // the rest is dropped until somebody takes them
  static constexpr Micros kPatience{2'000'000};

  // `batch` is that of `difference`.
  void open(const Delivery& batch, const OversightOutput::Difference& difference);
  // True if these are bodies that were asked for, of a slot that does not agree.
  bool bodies(SlotId slot, Incarnation incarnation, const Replies& message);
  void tick(Micros now);

  struct Ask {
    SlotId slot;
    Incarnation incarnation;
    FetchReplies wanted;
  };
  [[nodiscard]] std::vector<Ask> take_asks();
  [[nodiscard]] std::vector<Evidence> take_done();

 private:
  struct Case {
    Evidence evidence;
    std::uint32_t index = 0;  // into references
    Micros since;
  };
  void finish(const Case& one);

  Micros now_;
  Epoch epoch_;
  std::uint32_t in_epoch_ = 0;
  std::vector<Case> cases_;
  std::vector<Ask> asks_;
  std::vector<Evidence> done_;
};

}  // namespace zz::agreement
