#pragma once

// VoteBook: the votes of one service's slots, batch by batch, and the closing of batches (docs/protocol.md
// §2, §8). It knows nothing of epochs, incarnations or trouble: callers admit votes of current incarnations
// only, and say when a slot's incarnation is over.
//
// One thread; time is handed in. Votes are compared list by list; the digest is taken once, when a batch
// closes, and kept for good (32 bytes per batch), because a woken slot votes again for everything from the beginning.
//
// Invariants:
//  1. A batch closes at most once, with g+1 equal votes of distinct slots, or with one that equals what it is confirmed
//     to be closed with elsewhere (confirm).
//  2. A slot has at most one counted vote per open batch: the first.
//  3. Reply digests are held only for open batches, one list per distinct vote.
//  4. At most kBallotsMax closed ballots are held for slots that owe a vote, and kPresumedMax presumed ones within
//     kPresumedDigestsMax; open ones are bounded by the window of the ordering core.
//  5. A batch that 2f+1 nodes have closed may be presumed closed here (presume_closed): nobody owes a vote for it, and
//     without knowing how it was closed no vote for it is wrong. Votes may still close it in earnest while it is held.
//  6. A slot that began with the state of a stable checkpoint (begin) agrees with all up to there, and owes no vote for
//     it.

#include <array>
#include <deque>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/slot_table.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

inline constexpr std::size_t kBallotsMax = 16'384;
// Batches that are only presumed closed are held as long as an executor may say its votes for them again.
inline constexpr std::uint64_t kPresumedMax = 4'096;
inline constexpr std::uint64_t kPresumedDigestsMax = std::uint64_t{1} << 18;  // from the oldest held ballot on

// The votes for one batch.
struct Ballot {
  struct Candidate {
    std::vector<Digest> replies;
    SlotMask voters = 0;
  };
  std::uint32_t references = 0;
  bool closed = false;
  bool presumed = false;  // was open when it was presumed closed
  bool hung = false;      // every slot voted and no g+1 agree: it does not close, unless it is confirmed
  // Marks of the oversight core.
  bool sign_open = false;  // a sign of trouble was raised in this epoch and the batch is not closed
  bool diverged = false;   // reported as diverged and not yet as settled
  SlotMask voted = 0;
  SlotMask agreeing = 0;  // voted like the closing; 0 while open
  Micros opened_at;
  Micros first_vote_at;               // meaningful when voted != 0
  Micros closed_at;                   // meaningful when closed
  std::optional<Digest> confirmed;    // the vote digest that closes it
  std::vector<Candidate> candidates;  // while open
};

class VoteBook {
 public:
  explicit VoteBook(std::uint32_t g);

  // Batch n = last_opened() + 1 may be voted for from now on.
  void open(Seq n, std::uint32_t references, Micros now);

  enum class Effect : std::uint8_t {
    kNone,     // nothing new
    kCounted,  // for a batch that is open, or whose closing is not known here
    kClosed,   // the vote made g+1 equal ones, or is the confirmed one: `closing` is filled
    kHung,     // the vote was the last one and no g+1 agree
    kAgrees,   // equal to what was closed
    kWrong,    // other than what was closed
  };
  struct Closing {
    std::vector<Digest> replies;
    SlotMask agreeing = 0;
    SlotMask dissenting = 0;                // voted otherwise before
    std::vector<Ballot::Candidate> others;  // what they voted
  };
  struct Cast {
    Refusal refusal = Refusal::kNone;
    Effect effect = Effect::kNone;
    Closing closing;
  };
  // kMalformed: not one digest per reference. kDuplicate, kConflict: the slot has voted for n, equally or
  // not. Requires 1 <= n <= last_opened() and slot < 2g+1. Takes `replies` only if it has to keep them.
  Cast cast(SlotId slot, Seq n, std::vector<Digest>&& replies, Micros now);

  // One of g+1 slots that voted equally elsewhere is correct, and says so here too: one vote with this vote_digest()
  // closes n, now or when it comes. Requires that a correct node has closed n so.
  Cast confirm(Seq n, const Digest& digest, Micros now);
  // The batches up to n that are open count as closed. Requires n <= last_opened().
  void presume_closed(Seq n);

  // The slot began with the state after n, which is stable. Requires that n is presumed closed or closed.
  void begin(SlotId slot, Seq n);
  // The slot's incarnation is over: its votes for batches held here are as if never cast.
  void forget(SlotId slot);
  // The slot owes a vote for every batch above `after`; release() ends that.
  void expect(SlotId slot, Seq after);
  void release(SlotId slot);

  [[nodiscard]] Seq last_opened() const { return Seq{digests_.size()}; }
  [[nodiscard]] Seq closed_through() const { return closed_through_; }
  // Where it began counts as its first vote.
  [[nodiscard]] Seq last_vote(SlotId slot) const { return last_vote_[slot.value]; }
  [[nodiscard]] bool has_voted(SlotId slot) const { return last_vote_[slot.value] > began_at_[slot.value]; }
  // True for 0 and presumed ones too. Requires n <= last_opened().
  [[nodiscard]] bool is_closed(Seq n) const;
  // The digest that closed n; nothing while it is open or only presumed closed.
  [[nodiscard]] std::optional<Digest> closed_digest(Seq n) const;
  // The slots whose votes equal the closing of n, and those that began at or above n; 0 while open. For batches whose
  // ballot is gone, or that are only presumed closed while all votes for them are equal: the slots that voted for n or
  // later, since slots vote in order (callers take the wrong ones away).
  [[nodiscard]] SlotMask agreeing(Seq n) const;
  // The ballot, while held: every batch above closed_through(), the last one, one that was closed since the
  // last open(), and the last kPresumedMax ones as far as they are only presumed closed.
  [[nodiscard]] Ballot* find(Seq n);
  [[nodiscard]] const Ballot* find(Seq n) const;
  struct Debt {
    Seq n;
    Micros closed_at;
  };
  // The first closed batch, not presumed so, for which this slot still owes its vote.
  [[nodiscard]] std::optional<Debt> owed(SlotId slot) const;

 private:
  Cast cast_on_closed(SlotId slot, Seq n, const std::vector<Digest>& replies, Ballot* ballot);
  Cast close(Ballot& ballot, Seq n, std::size_t winner, Micros now);
  [[nodiscard]] bool settled(const Ballot& ballot, Seq n) const;
  [[nodiscard]] bool droppable(const Ballot& ballot, Seq n) const;
  void extend_closed_through();
  void trim();
  [[nodiscard]] Seq first_held() const { return Seq{digests_.size() - ballots_.size() + 1}; }

  std::uint32_t g_;
  SlotMask all_;
  std::deque<Ballot> ballots_;   // the last ones, up to last_opened()
  std::vector<Digest> digests_;  // [n - 1]; zero while open or only presumed closed
  Seq closed_through_;
  std::uint64_t references_held_ = 0;  // of ballots_
  std::array<Seq, kSlotsMax> last_vote_{};
  std::array<Seq, kSlotsMax> owes_after_{};
  std::array<Seq, kSlotsMax> began_at_{};
  SlotMask owing_ = 0;
  Seq settled_through_;  // nobody owes votes up to here, whatever is closed yet: owed() need not look at the many held
};

}  // namespace zz::agreement
