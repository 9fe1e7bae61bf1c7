#pragma once

// VoteBook: the votes of one service's slots, batch by batch, and the closing of batches (docs/protocol.md
// §2, §8). It knows nothing of epochs, incarnations or trouble: callers admit votes of current incarnations
// only, and say when a slot's incarnation is over.
//
// One thread; time is handed in. Votes are compared list by list; the digest is taken once, when a batch
// closes, and kept for good (32 bytes per batch), because a woken slot votes again for everything from the beginning.
//
// Invariants:
//  1. A batch closes at most once, with g+1 equal votes of distinct slots.
//  2. A slot has at most one counted vote per open batch: the first.
//  3. Reply digests are held only for open batches, one list per distinct vote.
//  4. At most kBallotsMax closed ballots are held for slots that owe a vote; open ones are bounded by the window
//     of the ordering core.

#include <array>
#include <deque>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/slot_table.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

inline constexpr std::size_t kBallotsMax = 16'384;

// The votes for one batch.
struct Ballot {
  struct Candidate {
    std::vector<Digest> replies;
    SlotMask voters = 0;
  };
  std::uint32_t references = 0;
  bool closed = false;
  bool hung = false;  // every slot voted and no g+1 agree: it never closes
  // Marks of the oversight core.
  bool sign_open = false;  // a sign of trouble was raised in this epoch and the batch is not closed
  bool diverged = false;   // reported as diverged and not yet as settled
  SlotMask voted = 0;
  SlotMask agreeing = 0;  // voted like the closing; 0 while open
  Micros opened_at;
  Micros first_vote_at;               // meaningful when voted != 0
  Micros closed_at;                   // meaningful when closed
  std::vector<Candidate> candidates;  // while open
};

class VoteBook {
 public:
  explicit VoteBook(std::uint32_t g);

  // Batch n = last_opened() + 1 may be voted for from now on.
  void open(Seq n, std::uint32_t references, Micros now);

  enum class Effect : std::uint8_t {
    kNone,     // nothing new
    kCounted,  // for an open batch
    kClosed,   // the vote made g+1 equal ones: `closing` is filled
    kHung,     // the vote was the last one and no g+1 agree
    kAgrees,   // equal to what was closed
    kWrong,    // other than what was closed
  };
  struct Closing {
    std::vector<Digest> replies;
    SlotMask agreeing = 0;
    SlotMask dissenting = 0;  // voted otherwise before
  };
  struct Cast {
    Refusal refusal = Refusal::kNone;
    Effect effect = Effect::kNone;
    Closing closing;
  };
  // kMalformed: not one digest per reference. kDuplicate, kConflict: the slot has voted for n, equally or
  // not. Requires 1 <= n <= last_opened() and slot < 2g+1. Takes `replies` only if it has to keep them.
  Cast cast(SlotId slot, Seq n, std::vector<Digest>&& replies, Micros now);

  // The slot's incarnation is over: its votes for batches held here are as if never cast.
  void forget(SlotId slot);
  // The slot owes a vote for every batch above `after`; release() ends that.
  void expect(SlotId slot, Seq after);
  void release(SlotId slot);

  [[nodiscard]] Seq last_opened() const { return Seq{digests_.size()}; }
  [[nodiscard]] Seq closed_through() const { return closed_through_; }
  [[nodiscard]] Seq last_vote(SlotId slot) const { return last_vote_[slot.value]; }
  // True for 0 too. Requires n <= last_opened().
  [[nodiscard]] bool is_closed(Seq n) const;
  // The digest that closed n; requires is_closed(n) and n > 0.
  [[nodiscard]] const Digest& closed_digest(Seq n) const { return digests_[n.value - 1]; }
  // The slots whose votes equal the closing of n; 0 while open. For batches whose ballot is gone: the slots
  // that voted for n or later, since slots vote in order (callers take the wrong ones away).
  [[nodiscard]] SlotMask agreeing(Seq n) const;
  // The ballot, while held: every batch above closed_through(), the last one, and one that was closed since the
  // last open().
  [[nodiscard]] Ballot* find(Seq n);
  [[nodiscard]] const Ballot* find(Seq n) const;
  struct Debt {
    Seq n;
    Micros closed_at;
  };
  // The first closed batch for which this slot still owes its vote.
  [[nodiscard]] std::optional<Debt> owed(SlotId slot) const;

 private:
  Cast cast_on_closed(SlotId slot, Seq n, const std::vector<Digest>& replies, Ballot* ballot);
  Cast close(Ballot& ballot, Seq n, std::size_t winner, Micros now);
  [[nodiscard]] bool settled(const Ballot& ballot, Seq n) const;
  void trim();
  [[nodiscard]] Seq first_held() const { return Seq{digests_.size() - ballots_.size() + 1}; }

  std::uint32_t g_;
  SlotMask all_;
  std::deque<Ballot> ballots_;   // the last ones, up to last_opened()
  std::vector<Digest> digests_;  // [n - 1]; zero while open
  Seq closed_through_;
  std::array<Seq, kSlotsMax> last_vote_{};
  std::array<Seq, kSlotsMax> owes_after_{};
  SlotMask owing_ = 0;
};

}  // namespace zz::agreement
