#pragma once

// SlotLog: the sequence numbers (h, h + window] at one node, and what was said about each of them (docs/protocol.md
// §5). A part of Replica; one thread, no IO.
//
// Invariants:
//  1. A slot's phase only rises while its view stays, so committed implies prepared implies accepted implies
//     pre-prepared.
//  2. The times of the slots that the view's primary proposed increase with n, and exceed those of the chosen ones
//     (Replica asks time_fits before it fills a slot). Chosen ones have whatever times their views gave them.
//  3. A sender has at most one PREPARE and one COMMIT per slot and view; the first one stays.

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"

namespace zz::agreement {

inline constexpr std::uint32_t kNodesMax = 3 * crypto::kFaultsMax + 1;

// One vote per node. Counts distinct senders of equal values.
class VoteSet {
 public:
  // kDuplicate: said already; kConflict: said otherwise before (which stays).
  Refusal add(NodeId from, const Digest& digest);
  [[nodiscard]] std::uint32_t count(const Digest& digest) const;
  [[nodiscard]] bool has(NodeId from, const Digest& digest) const;
  // What at least so many have said, if anything; the lowest such node's word.
  [[nodiscard]] std::optional<Digest> said_by(std::uint32_t least) const;
  void clear() { voted_ = 0; }

 private:
  std::uint32_t voted_ = 0;  // bit per node
  std::array<Digest, kNodesMax> digests_;
};

enum class Phase : std::uint8_t {
  kEmpty,        // no pre-prepare yet, maybe votes
  kPrePrepared,  // held: this node does not stand for it yet
  kAccepted,     // this node stands for it: PREPARE sent, or proposed
  kPrepared,     // COMMIT sent
  kCommitted,    // waits for its turn or for bodies
  kDelivered,
};

struct Slot {
  Seq n;      // 0: unused
  View view;  // of everything below
  Phase phase = Phase::kEmpty;
  VoteSet prepares;  // of all but the primary
  VoteSet commits;

  bool chosen = false;  // by the NEW-VIEW: `digest` is known from the start, the header may have to be fetched
  HeaderPtr header;     // from kPrePrepared on, as all below
  Digest digest;
  std::vector<RequestPtr> bodies;  // per reference; null: not at hand
  std::uint32_t missing = 0;       // nulls in bodies
  std::uint32_t unvouched = 0;     // references this node does not vouch for
  bool clock_ok = false;           // the agreed time was near our clock when the proposal came

  bool fetching = false;
  NodeId asked;                 // fetching: who was asked last
  Micros asked_at;              // on Replica's monotonic count
  std::uint32_t asked_for = 0;  // bodies that were missing then
  std::uint32_t empty = 0;      // answers in a row that brought nothing

  std::vector<std::uint32_t> by_request;  // indices sorted by request, made when first looked for
};

class SlotLog {
 public:
  explicit SlotLog(std::uint32_t window);

  [[nodiscard]] std::uint32_t window() const { return static_cast<std::uint32_t>(slots_.size()); }
  [[nodiscard]] Seq low() const { return low_; }
  // The highest n with a pre-prepare so far, or low().
  [[nodiscard]] Seq top() const { return top_; }
  [[nodiscard]] bool in_window(Seq n) const { return n > low_ && n.value - low_.value <= slots_.size(); }
  // Requires in_window(n). Opens the slot in `view` if it is unused.
  Slot& at(Seq n, View view);
  // Null outside the window and for unused slots.
  [[nodiscard]] Slot* find(Seq n);
  // Requires an open, empty slot with n, header, digest and bodies of the proposal, and time_fits unless it is chosen.
  void fill(Slot& slot, HeaderPtr header, const Digest& digest);
  // Requires that no vote stands for it. The votes that came stay.
  static void drop_proposal(Slot& slot);
  // Later than the chosen ones and between the nearest proposed neighbours; `delivered` and its time stand for all
  // slots up to it.
  [[nodiscard]] bool time_fits(Seq n, Micros time, Seq delivered, Micros delivered_time);
  // The latest time of `delivered_time` and all slots that are filled.
  [[nodiscard]] Micros last_time(Micros delivered_time);
  // Requires n >= low(). Slots up to n are forgotten.
  void set_low(Seq n);
  // All slots become unused, and top() is `top`, at least low(): a view change.
  void clear(Seq top);
  // The next own proposal comes after `top` at least.
  void set_top(Seq top) { top_ = std::max(top_, top); }

  // The reference's index in the slot's header, or the number of references when it is not there.
  [[nodiscard]] static std::size_t index_of(Slot& slot, const Reference& reference);

  // Finds bodies in the slots. One search serves a series of references in the order of one batch: it looks through
  // the whole log once, then only where the first one was.
  class Search {
   public:
    explicit Search(SlotLog& log) : log_(log) {}
    [[nodiscard]] RequestPtr find(const Reference& reference);

   private:
    SlotLog& log_;
    Slot* slot_ = nullptr;
    std::size_t next_ = 0;  // where the following reference probably is
    bool looked_ = false;
  };

 private:
  static void reset(Slot& slot);

  Seq low_;
  Seq top_;
  Micros chosen_time_;       // the latest of the chosen slots in this view
  std::vector<Slot> slots_;  // [n % window]
};

}  // namespace zz::agreement
