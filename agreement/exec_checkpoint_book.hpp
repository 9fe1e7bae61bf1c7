#pragma once

// ExecCheckpointBook: what the slots of one service say the state is after each checkpoint, the roots of their
// EXEC-CHECKPOINTs, and which root g+1 of them agree on (docs/protocol.md §6). It knows nothing of epochs, incarnations
// or signatures: callers admit words of current incarnations only, and say when a slot's incarnation is over.
//
// One thread; time is handed in.
//
// Invariants:
//  1. A root is settled at most once: by g+1 equal words of distinct slots, or confirmed by f+1 nodes or a stable
//     certificate, of whom one correct node had g+1 equal words.
//  2. Of each slot one word per checkpoint counts: the first.
//  3. Held are the checkpoints that are neither settled nor presumed, of which the window of the ordering core bounds
//     the number, and the last kKept others.
//  4. Slots speak of checkpoints in order: a word about a later one ends what is owed for those before.

#include <array>
#include <map>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/slot_table.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

// The words about one checkpoint.
struct ExecCheckpoints {
  struct Candidate {
    Digest root;
    SlotMask slots = 0;
  };
  std::optional<Digest> root;         // settled
  std::vector<Candidate> candidates;  // while it is not
  SlotMask said = 0;
  SlotMask agreeing = 0;  // said what is settled; 0 while nothing is
  bool presumed = false;  // a checkpoint at or above it is stable
  bool hung = false;      // every slot spoke and no g+1 agree
  Micros agreed_at;       // g+1 words equal to the root; meaningful when agreeing has so many
  // Marks of the oversight core.
  bool sign_open = false;
  bool diverged = false;                                         // reported as diverged and not yet as settled
  std::array<std::optional<Micros>, kSlotsMax> owed_since = {};  // an active slot that has voted for n
};

class ExecCheckpointBook {
 public:
  static constexpr std::size_t kKept = 64;

  explicit ExecCheckpointBook(std::uint32_t g);

  // Ascending: batch n was delivered here and is a checkpoint.
  void open(Seq n);

  enum class Effect : std::uint8_t {
    kNone,     // nothing new
    kCounted,  // nothing is settled yet
    kSettled,  // these are g+1 equal ones, or it was confirmed: `dissenting` said otherwise before
    kHung,     // it was the last one and no g+1 agree
    kAgrees,   // equal to what is settled
    kWrong,    // other than what is settled
  };
  struct Cast {
    Effect effect = Effect::kNone;
    SlotMask dissenting = 0;
  };
  // Whether such a word would count. kMalformed: n is no checkpoint; kDuplicate: said before, or n is no longer held;
  // kConflict: the slot has said something else of n. Requires slot < 2g+1, and n delivered here.
  [[nodiscard]] Refusal admit(SlotId slot, Seq n, const Digest& root) const;
  // Requires admit().
  Cast cast(SlotId slot, Seq n, const Digest& root, Micros now);
  // A correct node had g+1 equal words. kNone where n is not held or settled already.
  Cast confirm(Seq n, const Digest& root, Micros now);
  // A checkpoint n' >= n is stable: nobody has to speak of those up to n any more, and none of them is hung.
  void presume(Seq n);

  // The slot's incarnation is over: its words are as if never said.
  void forget(SlotId slot);
  // The slot's state was that of a stable checkpoint at or above n: it agrees with what is settled up to n.
  void begin(SlotId slot, Seq n);

  [[nodiscard]] ExecCheckpoints* find(Seq n);
  [[nodiscard]] std::map<Seq, ExecCheckpoints>& held() { return held_; }
  [[nodiscard]] const std::map<Seq, ExecCheckpoints>& held() const { return held_; }
  // Slots that said what is settled for n; for checkpoints no longer held those that have spoken of n or later.
  [[nodiscard]] SlotMask agreeing(Seq n) const;
  [[nodiscard]] Seq last_word(SlotId slot) const { return last_word_[slot.value]; }
  // The first checkpoint held that is later than the slot's last word: it owes none before.
  [[nodiscard]] std::map<Seq, ExecCheckpoints>::const_iterator unspoken(SlotId slot) const {
    return held_.upper_bound(last_word(slot));
  }
  // g+1 others have said it, and the slot has said nothing of it or a later one.
  [[nodiscard]] bool owes(SlotId slot, Seq n, const ExecCheckpoints& words) const;

 private:
  Cast settle(ExecCheckpoints& words, const Digest& root, Micros now);
  void trim();

  std::uint32_t g_;
  SlotMask all_;
  std::map<Seq, ExecCheckpoints> held_;
  Seq dropped_through_;
  std::array<Seq, kSlotsMax> last_word_{};
};

}  // namespace zz::agreement
